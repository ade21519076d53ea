from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_deploy.runtime.console.command import run_command, table
from mtl_deploy.runtime.console.interrupts import PATIENCE, held
from mtl_deploy.runtime.errors import MtlError, OptionError, VerificationError
from tests.pipes import without_a_reader


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
from mtl_deploy.runtime.console.command import run_command
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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("times", [1, 3])
def test_signals_end_a_command_the_tidy_way(name: str, times: int) -> None:
    """A second one does no harm to the tidying up; the exit code is the shell's for the first."""
    code = f"""
import os, signal, sys, time
from mtl_deploy.runtime.console.command import run_command
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so
def work():
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(5)
    finally:
        for _ in range({times - 1}):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        print("tidy", flush=True)
sys.exit(run_command(work))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (
        128 + getattr(signal, name),
        "tidy\n",
        "interrupted\n",
    )


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("steps", [False, True])
def test_a_later_second_signal_ends_a_command_at_once(tmp_path: Path, steps: bool) -> None:
    """Also where a library's long call keeps Python from handling the first one, but not between steps that belong together."""
    code = """
import hashlib, sys, threading, time
from pathlib import Path
from mtl_deploy.runtime.console.command import run_command
from mtl_deploy.runtime.console.interrupts import held
from mtl_deploy.runtime.files.output_file import placed
from mtl_deploy.runtime.files.temporary import temporary_folder
folder = Path(sys.argv[1])
def work():
    with temporary_folder() as made, placed("--show", folder / "a.txt", force=True) as beside:
        (made / "file").touch()
        beside.write_text("half")
        if sys.argv[2] == "True":
            with held():
                print("begun", flush=True)
                time.sleep(3)
                (folder / "steps").touch()
        else:
            threading.Timer(0.5, print, ["begun"], {"flush": True}).start()  # in the midst of the call
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # half an hour in one call
    return 0
sys.exit(run_command(work))
"""
    command = [sys.executable, "-c", code, str(tmp_path), str(steps)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(PATIENCE + 0.2)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 143
            said = process.stderr.read().splitlines()
            assert (
                "ended at once" in said if not steps else said
            )  # behind the steps both signals arrive at the same time
        finally:
            process.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["steps"] * steps


def test_a_signal_that_was_held_is_not_a_second_one(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from mtl_deploy.runtime.console.command import run_command
from mtl_deploy.runtime.console.interrupts import held
def work():
    try:
        with held():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.3)
    finally:
        time.sleep(0.3)
        print("tidy", flush=True)
sys.exit(run_command(work))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (143, "tidy\n", "interrupted\n")


def test_a_command_that_handles_an_interrupt_itself_has_the_signal_s_exit_code() -> None:
    code = """
import os, signal, sys, time
from mtl_deploy.runtime.console.command import INTERRUPTED, run_command
def work():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except KeyboardInterrupt:
        return INTERRUPTED
sys.exit(run_command(work))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 143


def test_nohup_keeps_its_effect() -> None:
    code = """
import os, signal, sys
from mtl_deploy.runtime.console.command import run_command
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def work():
    os.kill(os.getpid(), signal.SIGHUP)
    return 0
sys.exit(run_command(work))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_terminal_that_goes_away_ends_a_command_tidily() -> None:
    """Its standard error cannot be written to then; nor can its progress lines."""
    code = """
import os, signal, sys, time
from mtl_deploy.runtime.console.command import Progress, run_command
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so
def work():
    progress = Progress()
    try:
        print("begun", flush=True)
        time.sleep(20)
    finally:
        with progress.step("Tidying up"):
            pass
        with open(sys.argv[1], "w") as file:
            file.write("tidy")
sys.exit(run_command(work))
"""
    import pty
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", code, file.name])
        assert b"begun" in os.read(terminal, 100)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
        assert Path(file.name).read_text() == "tidy"


@pytest.mark.usefixtures("interruptible")
def test_signals_wait_for_steps_that_belong_together() -> None:
    seen: list[str] = []

    def steps() -> None:
        with held():
            os.kill(os.getpid(), signal.SIGINT)
            seen.append("done")
        seen.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        steps()
    assert seen == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return 0", 0),
        ("return 3", 3),
        ("raise WorkError('it failed')", 1),
        ("sys.exit(2)", 2),
        ("raise KeyboardInterrupt", 130),
    ],
)
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_changes_no_exit_code(lines: int, end: str, code: int) -> None:
    """A few lines are written when the command has ended, many before."""
    script = f"""
import sys
import time
from mtl_deploy.runtime.console.command import run_command
from mtl_deploy.runtime.errors import WorkError
def command():
    for _ in range({lines}):
        print("line")
    {end}
sys.exit(run_command(command))
"""
    ended = without_a_reader([sys.executable, "-c", script])
    assert ended.returncode == code
    assert ended.stderr == {1: "error: it failed\n", 130: "interrupted\n"}.get(code, "")
    assert without_a_reader([sys.executable, "-c", script], stderr_too=True).returncode == code


def test_every_error_has_an_exit_code() -> None:
    def below(error: type[MtlError]) -> set[type[MtlError]]:
        return {error}.union(*(below(child) for child in error.__subclasses__()))

    assert {error.exit_code for error in below(MtlError)} == {1, 2}


def test_tables_align_numbers_to_the_right() -> None:
    text = table(["task", "error"], [["age", "1.5"], ["gender", "12.25"]])
    assert text.splitlines() == ["task    error", "------  -----", "age       1.5", "gender  12.25"]
    assert table(["task"], []).splitlines() == ["task", "----"]


@pytest.mark.parametrize("room", ["export", "calibration", "runtime", "bench", "runtime.doctor"])
def test_commands_print_their_completion(room: str, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    pytest.importorskip("shtab")
    main = importlib.import_module(f"mtl_deploy.{room}.cli").main
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    assert "complete" in capsys.readouterr().out
