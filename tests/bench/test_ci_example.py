"""The workflow in docs/benchmarking.md does with each verdict what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mtl_deploy.bench.compare_cli import subcommand
from mtl_deploy.bench.options import add_operand, options_parser
from tests.bench.runs import result, write

PAGE = (Path(__file__).parents[2] / "docs/benchmarking.md").read_text(encoding="utf-8")


def workflow() -> str:
    found = re.search(r"```yaml\n(name: benchmark\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def script(step: str) -> str:
    """Return what a step runs: the block under its ``run: |``."""
    found = re.search(rf"- name: {step}\n(?:        (?!run).*\n)*        run: \|\n((?:          .*\n)+)", workflow())
    assert found is not None
    return textwrap.dedent(found[1])


def test_its_commands_are_commands() -> None:
    parser = options_parser()
    add_operand(parser)
    (measure,) = re.findall(r"mtl-bench (model.mtl .*)", workflow())
    assert parser.parse_args(measure.split()).recipe == "ci"
    (compare,) = re.findall(r"mtl-bench compare (.*) > comparison", workflow())
    assert subcommand().parser.parse_args(compare.split()).fail_above == 5


@pytest.mark.skipif(os.name != "posix", reason="bash")
@pytest.mark.parametrize(
    ("ms", "code", "says"),
    [
        (10.0, 0, "is not slower by more than 5 %"),
        (10.5, 0, "not decided; about "),
        (12.0, 1, "error: shared at batch 1 takes"),
    ],
)
def test_each_verdict_ends_the_step_as_the_page_says(ms: float, code: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "baseline").mkdir()
    write(tmp_path / "baseline", "result.json", result(1, ms={"shared": 10.0}))
    write(tmp_path, "result.json", result(2, ms={"shared": ms}))
    command = tmp_path / "bin" / "mtl-bench"
    command.parent.mkdir()
    start = "import sys; from mtl_deploy.bench.cli import main; sys.exit(main(sys.argv[1:]))"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{start}" "$@"\n')
    command.chmod(0o755)
    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script("Compare")],  # as GitHub starts it
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    comment = (tmp_path / "comment.md").read_text()
    assert says in comment
    assert comment.startswith("```\ncontestant")
    assert ("::warning::the benchmark is inconclusive" in ended.stdout) == ("not decided" in says)
