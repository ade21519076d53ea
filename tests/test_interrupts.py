"""Tests that interrupt themselves work wherever the suite was started, with SIGINT ignored too."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIXTURE = "interruptible"


def senders() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the tests that send SIGINT to their own process or thread; children are sent it with ``send_signal``."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                names = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
                if "SIGINT" in names and names & {"kill", "pthread_kill", "raise_signal"}:
                    yield f"{file.relative_to(ROOT)}::{node.name}", node


def test_tests_that_interrupt_themselves_set_the_signals_handler() -> None:
    found = dict(senders())
    assert len(found) >= 2
    for name, node in found.items():
        marks = [ast.unparse(mark) for mark in node.decorator_list]
        assert any("usefixtures" in mark and FIXTURE in mark for mark in marks), f"{name} needs the fixture {FIXTURE}"


@pytest.mark.skipif(os.name != "posix", reason="a shell's background jobs")
def test_an_interrupt_arrives_where_the_suite_ignores_the_signal(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, signal, time\nimport pytest\nfrom tests.conftest import interruptible\n"
        "def test_ignored():\n    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN\n"
        "@pytest.mark.usefixtures('interruptible')\ndef test_arrives():\n    with pytest.raises(KeyboardInterrupt):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(5)\n"
        "def test_ignored_again():\n    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in result.stdout, result.stdout + result.stderr
