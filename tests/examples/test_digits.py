from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import data
import numpy as np
import pytest
import torch
import train
from PIL import Image

from mtl_deploy.export.cli import main as export
from mtl_deploy.export.network.task_file import read_task_file
from mtl_deploy.export.networks import article

EXAMPLES = Path(__file__).parents[2] / "examples" / "digits"


def test_the_splits_are_real_disjoint_and_the_same_for_the_same_seed() -> None:
    first, test = data.load(seed=3)
    again, _ = data.load(seed=3)
    assert (len(first), len(test)) == (1437, 360)
    assert set(np.bincount(test.digit) > 20) == {True}
    np.testing.assert_array_equal(first.images, again.images)
    shown = {image.tobytes() for image in first.images}
    assert not any(image.tobytes() in shown for image in test.images)
    np.testing.assert_array_equal(first.parity, first.digit % 2)
    assert 5 < first.ink.min() < first.ink.max() < 60


def test_files_hold_what_the_network_was_trained_on(tmp_path: Path) -> None:
    _, test = data.load()
    few = data.Split(*(values[:5] for values in vars(test).values()))
    data.write(few, tmp_path)
    for i, (path, digit, parity, ink) in enumerate(data.read_labels(tmp_path)):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), few.images[i])
        assert (digit, parity) == (few.digit[i], few.parity[i])
        assert ink == pytest.approx(few.ink[i], abs=1e-3)


def test_the_losses_are_those_of_the_tasks_kinds() -> None:
    outputs = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5]]), torch.tensor([[3.0]])]
    digit, parity, ink = train.losses_of(outputs, torch.tensor([0]), torch.tensor([1]), torch.tensor([25.0]))
    assert digit.item() == pytest.approx(np.log(1 + np.exp(-2)))
    assert parity.item() == pytest.approx(np.log(1 + np.exp(-0.5)))
    assert ink.item() == pytest.approx(0.5)


def test_the_task_file_is_the_networks() -> None:
    tasks = read_task_file(EXAMPLES / "tasks.toml")
    assert tuple(task.name for task in tasks) == train.TASKS
    assert tasks[2].scale == train.INK_SCALE
    for task, size in zip(tasks, train.SIZES, strict=True):
        assert task.with_size(size).size == size


def test_training_writes_what_the_exporter_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, str(EXAMPLES / "train.py"), "--out", str(tmp_path), "--epochs", "2", "--limit", "96"]
    result = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=True)
    assert "epoch 2/2" in result.stdout
    assert "best constant answer" in result.stdout
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    layout = article.read_layout({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert layout.description == "ResNet-18 with 3 heads of sizes 10, 1, 1"
    assert len(list((tmp_path / "images" / "test").glob("*.png"))) == 360

    arguments = [
        "--tasks",
        str(tmp_path / "tasks.toml"),
        "--image-size",
        "64",
        "--images",
        str(tmp_path / "images" / "test"),
    ]
    bundle = str(tmp_path / "model.mtl")
    assert export([str(tmp_path / "model.pt"), *arguments, "-o", bundle, "--threads", "1", "--quiet"]) == 0
    shown = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "true digit" in shown.stdout
    assert "fp16.onnx" in shown.stdout


def test_a_short_training_lowers_every_loss() -> None:
    torch.manual_seed(0)
    training, test = data.load()
    few = data.Split(*(values[:144] for values in vars(training).values()))
    held_out = data.Split(*(values[:32] for values in vars(test).values()))
    network = train.make_network()
    arguments = train.argparse.Namespace(weighting="uncertainty", epochs=3, batch=24, learning_rate=2e-3, seed=0)
    history = train.fit(network, few, held_out, arguments)
    assert all(last < first for first, last in zip(history[0], history[-1], strict=True))
