"""A kind of which each image becomes a row, and is no map: a metric that is no mean over images, labels read one by one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from mtl_deploy.calibration.accuracy.doubts import doubts
from mtl_deploy.calibration.accuracy.evaluate import Evaluation, evaluate, stored
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.kinds import registry
from mtl_deploy.calibration.kinds.base import Floats, Metric
from mtl_deploy.calibration.kinds.rows import RowKind
from mtl_deploy.calibration.search.budgets import parse_budgets
from mtl_deploy.runtime import Task
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature

IMAGES = 48
TASK = Task("peak", "raw", size=6, shape=(3, 2))  # any kind of the runtime: this is about calibration


class Ranked(RowKind):
    """Three candidates with a place and a score each; the best one is judged, and the metric is precision over ranked images."""

    metrics = {"ap": Metric("average precision")}

    def answers(self, task: Task, output: Any, signature: Signature) -> list[Any]:
        return [sample[sample[:, 1].argmax()] for sample in output]

    def row(self, task: Task, answer: Any, truth: Any) -> Floats:
        return np.array([1.0, answer[1], abs(answer[0] - truth) <= 1.0])

    def measured(self, task: Task, rows: Floats) -> dict[str, float]:
        return {"ap": float(self.drawn(task, rows, np.ones((1, len(rows))))[0])}

    def drawn(self, task: Task, rows: Floats, counts: Floats) -> Floats:
        order = np.argsort(-rows[:, 1], kind="stable")
        seen, hits = counts[:, order].cumsum(axis=1), (counts[:, order] * rows[order, 2]).cumsum(axis=1)
        precision = np.where(seen > 0, hits / np.maximum(seen, 1), 0)
        return (precision * counts[:, order]).sum(axis=1) / counts.sum(axis=1)

    def apart(self, task: Task, answer: Any, reference: Any) -> tuple[float, float]:
        away = float(abs(answer[0] - reference[0]))
        return away, away

    def variation(self, task: Task) -> Any:
        return Varied()

    def spread_row(self, task: Task, expected: Any, found: Any) -> Floats:
        return np.array([abs(expected[0] - found[0]), expected[0]])


class Varied:
    """The places so far."""

    def __init__(self) -> None:
        self._places: list[float] = []

    def add(self, answer: Any) -> None:
        self._places.append(float(answer[0]))

    @property
    def ignoring(self) -> float:
        return float(np.std(self._places))


@dataclass(frozen=True)
class Truths:
    """A number for each image, NaN where there is none."""

    values: Any

    def __len__(self) -> int:
        return len(self.values)

    def read(self, position: int) -> Any:
        return None if np.isnan(self.values[position]) else self.values[position]

    def part(self, positions: Any) -> Truths:
        return Truths(self.values[positions])

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.values.tobytes()).hexdigest()

    @property
    def known(self) -> Any:
        return ~np.isnan(self.values)


KIND = Ranked()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the kind in the place of raw tensors."""
    monkeypatch.setitem(registry.KINDS, "raw", "tests.calibration.kinds.test_rows")


def outputs(noise: float) -> Any:
    random = np.random.default_rng(0)
    places = random.uniform(0, 20, IMAGES)
    found = np.stack([np.stack([places, random.uniform(0.5, 1, IMAGES)], axis=1)] * 3, axis=1)
    found[:, 1:, 1] *= 0.5
    found[..., 0] += noise * np.random.default_rng(1).normal(size=(IMAGES, 3))
    return places, found.astype(np.float32)


def evaluated(labelled: bool) -> tuple[Evaluation, CalibrationData]:
    truth, exact = outputs(0.0)
    _, noisy = outputs(1.0)
    truth = truth.copy()
    truth[-1] = np.nan
    images = np.random.default_rng(2).integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    data = CalibrationData(images, {}, "images", dense={"peak": Truths(truth)} if labelled else {})
    sources = {"fp32": stored({"peak": exact}), "int8": stored({"peak": noisy})}
    return evaluate(sources, data, Signature((TASK,), Preprocessing(8, 8))), data


def test_the_metric_is_computed_from_rows_and_its_drop_has_an_interval() -> None:
    found, data = evaluated(labelled=True)
    first, second = (found.matrix.cell("peak", name) for name in ("fp32", "int8"))
    assert first.metrics == {"ap": 1.0}
    assert 0.3 < second.metrics["ap"] < 0.95
    assert second.drop == pytest.approx(1 - second.metrics["ap"])
    assert second.drop_low is not None
    assert second.drop_low < second.drop < (second.drop_high or 0)
    assert (first.samples, second.samples) == (IMAGES - 1, IMAGES - 1)
    assert second.mean_error > 0
    table = found.matrix.text()
    assert "average precision, %" in table
    assert "points" in table, "the drop of a share is given in points"
    assert not doubts(found, data, "fp32", decoded=True)
    assert found.losses["int8", "peak"].against(found.losses["fp32", "peak"]).drop == pytest.approx(second.drop)
    assert parse_budgets("peak=1%", [TASK]) == {"peak": 0.01}


def test_without_labels_another_networks_answers_stand_for_them() -> None:
    found, _ = evaluated(labelled=False)
    cell = found.matrix.cell("peak", "int8")
    assert cell.metrics == {}
    assert cell.drop is None
    assert cell.mean_error == pytest.approx(found.losses["int8", "peak"].figure)
    apart = found.apart["int8", "peak"]
    assert apart.scale == pytest.approx(np.std(outputs(0.0)[0]), rel=1e-5)
