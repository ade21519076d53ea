"""Progress on a terminal and in a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import pytest

from mtl_deploy.runtime.console.command import Progress


def test_a_short_command_writes_nothing_to_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with progress.step("Working") as say:
        progress.update("Working: half of it")
        say("done")
    assert capsys.readouterr().err == ""


def test_a_long_step_that_says_nothing_itself_is_followed_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(every_s=0.2).step("Tracing the network") as say:
        time.sleep(0.7)
        say("done")
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(re.fullmatch(r"Tracing the network(?: \.\.\. \d+ s|: done; 0\.\d s)", line) for line in lines)
    assert lines[0].startswith("Tracing the network ... ")
    assert "progress" not in {one.name for one in threading.enumerate()}


def test_a_log_has_whole_lines_seldom_and_the_last_thing_said(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(every_s=0.2)
    started = time.monotonic()
    for count in range(200):
        progress.update(f"round {count} of 200")
        time.sleep(0.005)
    seconds = time.monotonic() - started
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert "\033" not in text
    assert "\r" not in text
    assert text.endswith("\n")
    assert 1 <= len(lines) <= seconds / 0.2
    assert all(re.fullmatch(r"round \d+ of 200", line) for line in lines)


def test_a_counter_within_a_step_is_what_a_log_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(every_s=0.3)
    with progress.step("Searching"):
        progress.update("Searching: 3 of 40 layers\nand\x1b[2Jmore")
        time.sleep(0.5)
    said = capsys.readouterr().err
    assert said.startswith("Searching: 3 of 40 layers\\u000aand\\u001b[2Jmore ... 0 s\n")


@pytest.mark.parametrize("quiet", [True, False])
def test_a_failure_ends_the_following(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Progress(quiet=quiet, every_s=0.05).step("Working"):
            time.sleep(0.2)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert bool(capsys.readouterr().err) is not quiet
    assert "progress" not in {one.name for one in threading.enumerate()}


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_progress_shows_each_step_with_its_result_on_a_terminal() -> None:
    leader, follower = os.openpty()
    code = """
from mtl_deploy.runtime.console.command import Progress
with Progress(every_s=0).step("Working") as say:
    say("all of it")
"""
    subprocess.run([sys.executable, "-c", code], stderr=follower, check=True)
    os.close(follower)
    text = os.read(leader, 4096).decode()
    os.close(leader)
    assert "Working ..." in text
    assert text.count("Working: all of it; 0.0 s") == 1
