"""Labels that do not reach the images that are measured on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.cli import main
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.held_apart import held_apart, missing_labels
from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import OptionError

PIXELS = np.random.default_rng(5).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
TASKS = (Task("age", "regression", size=1), Task("race", "multiclass", labels=("a", "b", "c"), size=3))
AGES = np.array([30.0, *[np.nan] * 11])
RACES = np.arange(12, dtype=np.int64) % 3


def parts(labels: dict[str, np.ndarray], seed: int) -> tuple[CalibrationData, CalibrationData]:
    data = CalibrationData(PIXELS, labels, "12 images")
    return data, held_apart(data, Int8Options(seed=seed))[2]


def seed_without(name: str, labels: dict[str, np.ndarray]) -> int:
    """Return a seed with which no label of a task is held out."""
    return next(seed for seed in range(50) if name not in parts(labels, seed)[1].labels)


def test_no_label_among_the_held_out_images_is_an_error_and_some_are_none() -> None:
    labels = {"age": AGES}
    data, held_out = parts(labels, seed_without("age", labels))
    with pytest.raises(OptionError, match=r"none of the labels \(age\) is of one of the 6 images that are held out"):
        missing_labels(data, held_out, TASKS)
    whole, measured = parts({"age": np.linspace(1, 80, 12)}, 0)
    assert missing_labels(whole, measured, TASKS) == ()
    bare, measured = parts({}, 0)
    assert missing_labels(bare, measured, TASKS) == ()  # without labels INT8 is compared with FP32


def test_a_task_whose_labels_are_all_calibrated_on_is_named() -> None:
    labels = {"age": AGES, "race": RACES}
    data, held_out = parts(labels, seed_without("age", labels))
    (warning,) = missing_labels(data, held_out, TASKS)
    assert warning.startswith("age: none of its labels is of a held-out image")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def calibrate(bundle: Path, photos: Path, table: str, *more: str) -> int:
    labels = photos.parent / "labels.csv"
    labels.write_text(table, encoding="utf-8")
    images = ["--calibration-data", str(photos), "--threads", "1", "-q"]
    quick = [] if "--evaluate-only" in more else ["--calibration-method", "minmax"]
    return main([str(bundle), *images, "--labels", str(labels), *quick, *more])


def test_the_command_says_so_before_it_quantizes(
    make_bundle: Callable[..., Path], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(work=2)
    seed = str(seed_without("age", {"age": AGES}))
    assert calibrate(bundle, photos, "file,age\n00.png,30\n", "--seed", seed) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "none of the labels (age) is of one of the 6 images that are held out to measure on" in line
    assert open_bundle(bundle).manifest.calibration == {}


@pytest.mark.parametrize("more", [(), ("--evaluate-only",)])
def test_labels_whose_cells_are_empty_are_an_error(
    more: tuple[str, ...], make_bundle: Callable[..., Path], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "file,age\n" + "".join(f"{number:02},\n".replace(",", ".png,") for number in range(12))
    assert calibrate(make_bundle(work=2), photos, table, *more) == 2
    assert "labels.csv: no label of any task is of an image" in capsys.readouterr().err


def test_labels_of_images_that_were_not_drawn_are_an_error(
    make_bundle: Callable[..., Path], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(work=2)
    codes = {
        seed: calibrate(bundle, photos, "file,age\n00.png,30\n", "--seed", seed, "--calibration-samples", "2")
        for seed in "012345"
    }
    assert 2 in codes.values()
    assert "of the 2 images that were drawn; use more with --calibration-samples" in capsys.readouterr().err
