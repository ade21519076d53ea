"""A fork answers ahead of time what the network will be asked for, and nothing rests on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mtl_deploy.export.cli import main
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.export.network.network import Network
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.steps.ahead import Ahead, ahead_of_time
from mtl_deploy.export.steps.network import load
from mtl_deploy.export.steps.truth import ask_pytorch
from mtl_deploy.export.verification.reach import Question
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.command import Progress

QUIET = Progress(quiet=True)
HERE = os.getpid()
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core"),
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out idle threads that other tests have left in this process."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    enumerated = threading.enumerate
    monkeypatch.setattr(threading, "enumerate", lambda: [each for each in enumerated() if each not in others])


class Pooled(nn.Module):
    """What it does besides answering depends on whose process it is in."""

    def __init__(self, elsewhere: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.elsewhere = nn.Linear(3, 4), elsewhere

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if os.getpid() != HERE and self.elsewhere == "hangs":
            time.sleep(600)
        if os.getpid() != HERE and self.elsewhere == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.getpid() != HERE and self.elsewhere == "raises":
            raise ValueError
        if self.elsewhere == "single":
            images = images.float()
        found: torch.Tensor = self.layer(images.mean((2, 3)))
        return found


def loaded(tmp_path: Path, network: nn.Module, threads: int | None = 2) -> tuple[Network, Options]:
    torch.save(network, tmp_path / "network.pt")
    options = Options(
        tmp_path / "network.pt",
        trust_pickle=True,
        tasks=(Task("kind", "multiclass"),),
        preprocessing=Preprocessing(32, 32),
        threads=threads,
    )
    return load(options, QUIET), options


def finished(ahead: Ahead) -> None:
    """Wait until the fork has run all images."""
    while not ahead.is_done:
        assert os.waitpid(ahead._child, os.WNOHANG) == (0, 0), "it has ended"
        time.sleep(0.02)


def test_everything_that_the_network_is_asked_for_is_there(tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled())
    with ahead_of_time(network, options) as forward:
        assert isinstance(forward, Ahead)
        finished(forward)
        found = ask_pytorch(network, None, options, QUIET, forward)
        assert forward.found == 32 // 4 + 8 // 4
    usual = ask_pytorch(network, None, options, QUIET)
    np.testing.assert_array_equal(found.images.array, usual.images.array)
    expected, plain = found.samples[0][1], usual.samples[0][1]
    np.testing.assert_allclose(expected.raw["kind"], plain.raw["kind"], rtol=1e-6)
    np.testing.assert_array_equal(expected.known, plain.known)
    np.testing.assert_allclose(expected.exact["kind"][:8], plain.exact["kind"][:8], rtol=1e-12)
    assert expected.refine is not None
    expected.refine([20])
    assert expected.known[20]
    np.testing.assert_allclose(expected.exact["kind"][20], expected.raw["kind"][20], rtol=1e-5)


def test_the_command_has_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(Pooled(), tmp_path / "network.pt")
    children: list[int] = []
    stop = Ahead.stop

    def noted(self: Ahead) -> None:
        children.append(self._child)
        stop(self)

    monkeypatch.setattr(Ahead, "stop", noted)
    options = ["--task", "kind=multiclass", "--image-size", "32x32", "--precision", "fp32", "--engine", "none"]
    options += ["--trust-pickle", "--threads", "2", "--output", str(tmp_path / "network.mtl")]
    assert main([str(tmp_path / "network.pt"), *options]) == 0
    assert len(set(children) - {0}) == 1  # how much it answers in time depends on the machine


def test_there_is_none_beside_other_threads(tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled())
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        with ahead_of_time(network, options) as forward:
            assert forward is network
    finally:
        ended.set()
        other.join()


@pytest.mark.parametrize("elsewhere", ["hangs", "dies", "raises"])
def test_a_fork_that_fails_changes_nothing(elsewhere: str, tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled(elsewhere))
    with ahead_of_time(network, options) as forward:
        assert isinstance(forward, Ahead)
        found = ask_pytorch(network, None, options, QUIET, forward)
        assert forward.found == 0
        child = forward._child
    assert child == 0, "it was stopped when the network was first asked for what it had not answered"
    usual = ask_pytorch(network, None, options, QUIET)
    np.testing.assert_array_equal(found.samples[0][1].raw["kind"], usual.samples[0][1].raw["kind"])
    np.testing.assert_array_equal(found.samples[0][1].known, usual.samples[0][1].known)


def test_other_values_are_answered_by_the_network(tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled())
    with ahead_of_time(network, options) as forward:
        assert isinstance(forward, Ahead)
        finished(forward)
        images = network_input(np.full((4, 32, 32, 3), 7, np.uint8), network.preprocessing)
        np.testing.assert_array_equal(forward(images)["kind"], network(images)["kind"])
        assert forward.found == 0


def test_a_network_without_float64_has_none(tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled("single"))
    network.__dict__["doubled"] = None  # as for one that fails in it
    with ahead_of_time(network, options) as forward:
        found = ask_pytorch(network, None, options, QUIET, forward)
    assert not found.samples[0][1].exact


def test_the_fork_ends_with_the_work(tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled("hangs"))

    def interrupted() -> int:
        with ahead_of_time(network, options) as forward:
            assert isinstance(forward, Ahead)
            children.append(forward._child)
            raise KeyboardInterrupt

    children: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], 0)


def question(network: Network, applied: str = "none") -> Question:
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    tasks = tuple(replace(task, activation=applied) for task in network.tasks)
    return Question(Signature(tasks, network.preprocessing), images, {"kind": 1e9}, 1e-4)


@pytest.mark.parametrize("applied", ["none", "softmax"])  # which takes float64
def test_a_question_is_answered_in_the_fork(applied: str, tmp_path: Path) -> None:
    """In a new process: PyTorch refuses to differentiate in the fork of one that has done so, as other tests here have."""
    code = "import sys; from tests.export.steps.test_ahead import ask_the_fork as ask; ask(sys.argv[1], sys.argv[2])"
    command = [sys.executable, "-c", code, applied, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def ask_the_fork(applied: str, folder: str) -> None:
    network, options = loaded(Path(folder), Pooled())
    asked = question(network, applied)
    with ahead_of_time(network, options) as forward:
        assert isinstance(forward, Ahead)
        forward.ask(asked)
        os.waitid(os.P_PID, forward._child, os.WEXITED | os.WNOWAIT)  # it has nothing more to do
        network.__dict__["doubled"] = network.__dict__["selected"] = None  # nothing to find it with here
        assert forward.answer(asked) == ["layer.weight"]  # on that scale nobody sees it


@pytest.mark.parametrize("elsewhere", ["hangs", "dies", "raises"])
def test_a_question_that_the_fork_does_not_get_to_is_answered_here(elsewhere: str, tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled(elsewhere))
    asked = question(network)
    with ahead_of_time(network, options) as forward:
        assert isinstance(forward, Ahead)
        forward.ask(asked)
        assert forward.answer(asked) == ["layer.weight"]


def test_a_question_that_nobody_asked_is_answered_here(tmp_path: Path) -> None:
    network, options = loaded(tmp_path, Pooled())
    with ahead_of_time(network, options) as forward:
        assert isinstance(forward, Ahead)
        finished(forward)
        assert forward.answer(question(network)) == ["layer.weight"]


def test_one_thread_means_one_process(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    network, options = loaded(tmp_path, Pooled(), threads=1)
    with ahead_of_time(network, options) as forward:
        assert forward is network
    torch.set_num_threads(before)
