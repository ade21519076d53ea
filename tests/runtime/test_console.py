from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mtl_deploy.runtime.console import Progress, run_command, table
from mtl_deploy.runtime.errors import MtlError, OptionError, VerificationError


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OptionError("no such\n  option"), 2, "error: no such option"),
        (VerificationError("wrong"), 1, "error: wrong"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: raising(error)) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_an_interrupt_that_a_library_turns_into_an_error_is_still_an_interrupt() -> None:
    code = """
import os, signal, sys, time
from mtl_deploy.runtime.console import run_command
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise AttributeError("half imported") from None
sys.exit(run_command(work))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    code = """
import sys
from mtl_deploy.runtime.console import run_command
sys.exit(run_command(lambda: [print("line") for _ in range(100000)] and 0))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 0
    assert process.stderr.read() == b""


def test_every_error_has_an_exit_code() -> None:
    def below(error: type[MtlError]) -> set[type[MtlError]]:
        return {error}.union(*(below(child) for child in error.__subclasses__()))

    assert {error.exit_code for error in below(MtlError)} == {1, 2}


def test_tables_align_numbers_to_the_right() -> None:
    text = table(["task", "error"], [["age", "1.5"], ["gender", "12.25"]])
    assert text.splitlines() == ["task    error", "------  -----", "age       1.5", "gender  12.25"]
    assert table(["task"], []).splitlines() == ["task", "----"]


def test_progress_is_silent_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().step("Working") as say:
        say("done")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_progress_shows_each_step_with_its_result_on_a_terminal() -> None:
    leader, follower = os.openpty()
    code = """
from mtl_deploy.runtime.console import Progress
with Progress().step("Working") as say:
    say("all of it")
"""
    subprocess.run([sys.executable, "-c", code], stderr=follower, check=True)
    os.close(follower)
    text = os.read(leader, 4096).decode()
    os.close(leader)
    assert "Working ..." in text
    assert "Working: all of it; 0.0 s" in text


@pytest.mark.parametrize("room", ["export", "calibration", "runtime", "bench"])
def test_commands_print_their_completion(room: str, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    pytest.importorskip("shtab")
    main = importlib.import_module(f"mtl_deploy.{room}.cli").main
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    assert "complete" in capsys.readouterr().out
