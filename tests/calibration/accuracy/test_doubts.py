"""A network that has learned nothing is called that, and one that merely has few images is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dense_bundle import LABELS, SIZE, dense_graph, dense_signature

from mtl_deploy.calibration.accuracy.doubts import doubts
from mtl_deploy.calibration.accuracy.evaluate import evaluate, stored
from mtl_deploy.calibration.accuracy.run import run_graph
from mtl_deploy.calibration.cli import main
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.dense_labels import LabelArray
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

AGE = Task("age", "regression", unit="years", size=1)
GENDER = Task("gender", "binary", labels=("male", "female"), size=1)
RACE = Task("race", "multiclass", size=4)


def said(task: Task, outputs: np.ndarray, labels: np.ndarray | None) -> str:
    """What is said of one task whose network gave these decoded outputs."""
    images = np.zeros((len(outputs), 8, 8, 3), np.uint8)
    data = CalibrationData(images, {} if labels is None else {task.name: labels}, "test")
    signature = Signature((task,), Preprocessing(8, 8))
    found = evaluate({"fp32": stored({task.name: outputs.astype(np.float32)})}, data, signature)
    return "\n".join(doubts(found, data, "fp32", decoded=True))


def gender(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.where(right, labels, 1 - labels)[:, None] * 0.8 + 0.1


@pytest.mark.parametrize("others", [8, 50, 128])
def test_one_class_for_every_image_is_said_where_labels_have_others(others: int) -> None:
    labels = (np.arange(256) < others).astype(np.int64)
    text = said(GENDER, np.full((256, 1), 0.2), labels)
    assert text.startswith(
        f"task 'gender': FP32 answers 'male' for each of 256 images, though {others} are of other classes"
    )


def test_one_class_for_every_image_is_right_where_all_are_of_it() -> None:
    assert said(GENDER, np.full((256, 1), 0.2), np.zeros(256, np.int64)) == ""


def test_one_class_without_labels_is_said_of_many_images_alone() -> None:
    assert "answers class 2 for each of 60 images: unless all are of that class" in said(
        RACE, np.tile([0.1, 0.1, 0.7, 0.1], (60, 1)), None
    )
    assert said(RACE, np.tile([0.1, 0.1, 0.7, 0.1], (12, 1)), None) == ""


@pytest.mark.parametrize("images", [3, 5, 10])
@pytest.mark.parametrize("seed", range(20))
def test_few_images_never_make_a_good_network_no_better_than_a_constant(images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, images)
    assert "has not learned" not in said(GENDER, gender(random.random(images) < 0.95, labels), labels)
    age = random.uniform(0, 90, images)
    assert "has not learned" not in said(AGE, (age + random.normal(0, 6, images))[:, None], age)


def test_few_images_that_do_not_tell_are_said_to() -> None:
    labels = np.array([0, 0, 0, 1, 0, 0])
    text = said(GENDER, gender(np.ones(6, bool), labels), labels)
    assert "may be no better than always answering 'male': 6 images are too few to tell" in text


@pytest.mark.parametrize("seed", range(10))
def test_a_good_network_with_enough_images_raises_no_doubt(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 200)
    assert said(GENDER, gender(random.random(200) < 0.9, labels), labels) == ""
    age = random.uniform(0, 90, 200)
    assert said(AGE, (age + random.normal(0, 6, 200))[:, None], age) == ""


def test_a_network_that_guesses_is_said_to_whatever_it_answers() -> None:
    random = np.random.default_rng(0)
    labels = random.choice(4, 2000, p=[0.4, 0.2, 0.2, 0.2])
    text = said(RACE, np.eye(4)[random.integers(0, 4, 2000)], labels)
    assert "FP32 is worse than always answering class 0 (-1" in text
    assert "balanced accuracy 2" in text
    age = random.normal(40, 10, 2000)
    text = said(AGE, (40 + random.normal(0, 0.5, 2000))[:, None], age)
    assert "is no better than always answering 40" in text or "is worse than always answering 40" in text
    assert "years, the median" in text


def test_a_network_that_nearly_always_gives_the_usual_class_is_no_better() -> None:
    random = np.random.default_rng(0)
    labels = random.choice(4, 1000, p=[0.4, 0.2, 0.2, 0.2])
    answers = np.where(random.random(1000) < 0.01, random.integers(0, 4, 1000), 0)
    assert "FP32 is no better than always answering class 0" in said(RACE, np.eye(4)[answers], labels)


def test_a_regression_that_does_not_look_at_the_image_is_named() -> None:
    text = said(AGE, np.full((50, 1), 33.0), None)
    assert text == "task 'age': FP32 answers 33 years for each of 50 images: its output does not depend on the image"
    assert said(AGE, np.full((2, 1), 33.0), None) == ""
    assert said(AGE, 33 + 1e-3 * np.arange(50.0)[:, None], None) == ""


def test_labels_that_are_all_alike_tell_nothing() -> None:
    assert said(AGE, np.arange(50.0)[:, None], np.full(50, 33.0)) == ""
    assert said(GENDER, gender(np.arange(50) < 40, np.zeros(50, np.int64)), np.zeros(50, np.int64)) == ""


def maps(**changed: np.ndarray) -> str:
    """What is said of the dense network: its truth is what it says, but for what is changed."""
    signature = dense_signature()
    images = synthetic_images(40, *SIZE, seed=0)
    outputs = run_graph(dense_graph(signature), images, signature.preprocessing)
    truths = {"seg": outputs["seg"], "depth": outputs["depth"]}
    dense = {
        task.name: LabelArray(task, truths[task.name], signature.preprocessing, "test")
        for task in signature.tasks
        if task.name in truths
    }
    data = CalibrationData(images, {}, "test", dense=dense)
    answers = {name: changed.get(name, values) for name, values in outputs.items()}
    found = evaluate({"fp32": stored(answers)}, data, signature)
    return "\n".join(doubts(found, data, "fp32", decoded=True))


def test_maps_are_judged_too() -> None:
    assert maps() == ""
    one = np.zeros((40, *SIZE), np.uint8)
    assert f"task 'seg': FP32 gives one value for all pixels of all images ('{LABELS[0]}')" in maps(seg=one)
    random = np.random.default_rng(0)
    guessed = random.integers(0, len(LABELS), (40, *SIZE)).astype(np.uint8)
    text = maps(seg=guessed, depth=random.uniform(0.5, 10, (40, *SIZE)).astype(np.float32))
    assert "task 'depth': FP32 is worse than calling every pixel " in text
    assert " metres, the mean (" in text
    flat = np.zeros((40, 3, *SIZE), np.float32)
    flat[:, 2] = 1
    assert "task 'normals': FP32 gives one value for all pixels" in maps(normals=flat)


def test_the_command_says_so_in_its_report_and_in_the_manifest(
    make_bundle: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle calls greener images female; the labels say that all but a few dark ones are."""
    bundle = make_bundle(work=1)
    images = np.random.default_rng(0).integers(0, 90, (300, 8, 8, 3), dtype=np.uint8)
    images[..., 2] += 120  # bluer: always male
    np.savez(tmp_path / "data.npz", images=images, **{"labels/gender": np.arange(300) % 3 == 0})
    data = ["--calibration-data", str(tmp_path / "data.npz"), "-q", "--threads", "1"]
    assert main([str(bundle), *data]) == 0
    printed = capsys.readouterr().out
    found = open_bundle(bundle).manifest.calibration["doubts"]
    text = [line for line in found if line.startswith("task 'gender': FP32 answers ")]
    assert len(text) == 1
    assert f"warning: {text[0]}" in printed
    assert "for each of 150 images, though " in text[0]
