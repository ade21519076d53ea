"""Processes of their own, for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_deploy.bench.contestants import processes
from mtl_deploy.bench.contestants.processes import Child, Ended, run
from mtl_deploy.runtime.errors import BackendError, WorkError
from tests.bench import children

MODULE = children.__name__


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False


def pids_of(file: Path) -> list[int]:
    done = Path(f"{file}.done")
    assert wait_for(done.exists)
    return [int(word) for word in done.read_text(encoding="ascii").split()]


def all_end(pids: list[int]) -> bool:
    """Whether a process and what it started end; what does not is killed, so that a failed test leaves nothing."""
    try:
        return wait_for(lambda: not any(map(alive, pids)), 10.0)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_it_has_this_process_s_modules_and_environment_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "numpy", "subprocess"):  # what a user's folder may hold
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file in the working directory')", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTL_TEST", "handed down")
    monkeypatch.syspath_prepend(str(tmp_path / "added"))
    ended = run(MODULE, ["describe", "one", "two words"])
    assert ended.succeeded, ended.reason
    found = json.loads(ended.result)
    assert found["arguments"] == ["one", "two words"]
    assert found["paths"] == sys.path
    assert found["environment"] == "handed down"
    assert found["stdin"] == ""
    assert found["session"] != os.getsid(0)
    assert found["json"] == json.__file__


def test_an_error_of_ours_ends_it_with_its_own_words() -> None:
    ended = run(MODULE, ["backend"])
    assert (ended.code, ended.own_words, ended.reason) == (2, *["the library is missing; install it"] * 2)
    with pytest.raises(BackendError, match=r"^nothing was made: the library is missing; install it$"):
        ended.require("nothing was made")
    with pytest.raises(WorkError, match=r"^nothing was made: the work failed$"):
        run(MODULE, ["work"]).require("nothing was made")
    run(MODULE, ["code", "0"]).require("nothing was made")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["code", "7"], "its process ended (exit code 7): its last words"),
        (["code", "2"], "its process ended (exit code 2): its last words"),
        (["signal", "9"], "its process ended (signal 9)"),
        (["unknown", "file"], None),
    ],
)
def test_other_ends_are_told(arguments: list[str], reason: str | None) -> None:
    if reason is None:
        ended = run("tests.bench.no_such_module", arguments)
        reason = "its process ended (exit code 1): ModuleNotFoundError: No module named 'tests.bench.no_such_module'"
    else:
        ended = run(MODULE, arguments)
    assert not ended.succeeded
    assert ended.reason == reason
    with pytest.raises(WorkError, match="nothing was made: its process ended"):
        ended.require("nothing was made")


def test_a_python_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkError, match=r"it was not made: its process ended \(exit code 1\)$"):
        run("mtl_deploy.export.cli").require("it was not made")


def test_a_terminal_s_signals_do_not_end_it() -> None:
    assert run(MODULE, ["interrupted"]).succeeded


@pytest.mark.parametrize("stubborn", [False, True])
def test_one_that_takes_too_long_is_ended(stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CLOSING_S", 0.5)
    file = tmp_path / "pids"
    with Child(MODULE, ["sleep", str(file), *(["stubborn"] if stubborn else [])]) as child:
        pids = pids_of(file)
        ended = child.wait(0.1)
        assert child.wait() == ended
    assert ended.reason == "its process did not end within 0 s"
    assert not ended.succeeded
    assert ended.code == -(signal.SIGKILL if stubborn else signal.SIGTERM)
    assert all_end(pids)


@pytest.mark.usefixtures("interruptible")
def test_it_ends_when_this_is_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "pids"

    def interrupt() -> None:
        if wait_for(Path(f"{file}.done").exists):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(MODULE, ["sleep", str(file)])
    thread.join()
    pids = pids_of(file)
    assert all_end(pids)


@pytest.mark.parametrize("how", ["", "tidy"])
def test_it_ends_in_the_middle_of_its_work_when_the_process_that_started_it_is_killed(how: str, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    code = f"from mtl_deploy.bench.contestants.processes import run; run({MODULE!r}, ['sleep', {str(file)!r}, {how!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    pids = pids_of(file)
    assert alive(pids[0])
    parent.kill()
    parent.wait()
    assert all_end(pids)


def test_what_it_started_ends_with_it_when_it_ends_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    assert run(MODULE, ["leave", str(file)]).succeeded
    assert all_end(pids_of(file))


def test_nothing_is_left_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(3):
        run(MODULE, ["code", "0"])
        with Child(MODULE, ["code", "0"]):
            pass
    assert count() == before


def test_a_result_is_the_last_line() -> None:
    assert Ended(0, "a library speaks\n{}\n", "").result == "{}"
    assert Ended(0, "", "").result == ""
