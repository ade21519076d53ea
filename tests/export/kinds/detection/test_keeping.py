"""What a graph keeps is right in more than one way, and wrong in many: suppression itself passes, changed results do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mtl_deploy.export.kinds.detection.keeping import unlike
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions
from mtl_deploy.runtime.kinds.detection.suppression import kept_rows

OPTIONS = DetectionOptions(
    classes=3, top_k=20, score_threshold=0.3, iou_threshold=0.5, input_size=(200, 200), landmarks=1
)


def rows(seed: int, count: int = 300) -> np.ndarray:
    random = np.random.default_rng(seed)
    centre, extent = random.uniform(0, 200, (count, 2)), random.uniform(10, 80, (count, 2))
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    scores = random.uniform(0, 1, (count, 3)) ** 3
    return np.concatenate([boxes, scores, random.uniform(0, 200, (count, 2))], axis=1)


def kept(found: np.ndarray, options: DetectionOptions = OPTIONS) -> np.ndarray:
    padded = np.zeros((options.top_k, options.columns.kept_size))
    chosen = kept_rows(found.astype(np.float32), options)
    padded[: len(chosen)] = chosen
    return padded


@pytest.mark.parametrize("per_row", ["best", "all"])
@pytest.mark.parametrize("seed", range(5))
def test_suppression_passes_and_so_does_that_of_slightly_other_rows(seed: int, per_row: str) -> None:
    from dataclasses import replace

    options = replace(OPTIONS, per_row=per_row, top_k=20 + 60 * (seed % 2))  # type: ignore[arg-type]
    truth = rows(seed)
    assert not unlike(kept(truth, options), truth, options).any()
    random = np.random.default_rng(seed)
    noisy = truth.copy()
    noisy[:, :4] += random.normal(0, 0.1, (len(truth), 4))
    noisy[:, 4:7] += random.normal(0, 1e-3, (len(truth), 3))
    assert not unlike(kept(noisy, options), truth, options).any()


def dropped(found: np.ndarray) -> np.ndarray:
    return np.concatenate([found[:3], found[4:], np.zeros_like(found[:1])])


def doubled(found: np.ndarray) -> np.ndarray:
    return np.concatenate([found[:1], found[:-1]])


def other_class(found: np.ndarray) -> np.ndarray:
    found = found.copy()
    found[0, 5] = (found[0, 5] + 1) % 3
    return found


def moved(found: np.ndarray) -> np.ndarray:
    found = found.copy()
    found[2, 1:3] += 5
    return found


def unsure(found: np.ndarray) -> np.ndarray:
    return found * np.array([*[1] * 4, 0.9, *[1] * 3])


def unordered(found: np.ndarray) -> np.ndarray:
    return np.concatenate([found[1:2], found[:1], found[2:]])


@pytest.mark.parametrize("change", [dropped, doubled, other_class, moved, unsure, unordered, np.zeros_like])
@pytest.mark.parametrize("seed", range(3))
def test_wrong_results_fail(change: Callable[[np.ndarray], np.ndarray], seed: int) -> None:
    truth = rows(seed)
    assert np.isinf(unlike(change(kept(truth)), truth, OPTIONS)).any()


def test_other_thresholds_fail() -> None:
    from dataclasses import replace

    truth = rows(7)
    for other in ({"iou_threshold": 0.9}, {"iou_threshold": 0.2}, {"score_threshold": 0.6, "top_k": 20}):
        options = replace(OPTIONS, top_k=200)
        wrong = kept(truth, replace(options, **{"top_k": 200, **other}))  # type: ignore[arg-type]
        padded = np.zeros((200, options.columns.kept_size))
        padded[: len(wrong)] = wrong[:200]
        assert np.isinf(unlike(padded, truth, options)).any(), other


def test_rows_in_half_precision_are_enough_for_an_engine() -> None:
    truth = rows(1)
    found = kept(truth)
    assert not unlike(found, truth.astype(np.float16), OPTIONS).any()
    assert np.isinf(unlike(moved(found), truth.astype(np.float16), OPTIONS)).any()
