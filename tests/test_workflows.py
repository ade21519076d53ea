"""The files that GitHub reads: their form by its schemas, and that what they run is what is run here."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-issue-forms": [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "wish.yml")],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}
ASKS_AN_INDEX = {"wheel", "test-install", "test-resolve", "test-lowest"}
"""Targets that ask a package index: tests/test_readme_commands.py runs `make wheel`, the workflows and people run the others."""


def runs(workflow: Path) -> list[str]:
    """Return what the steps of a workflow run."""
    return re.findall(r"^ +(?:- )?run: (?!\|)(.+)$", workflow.read_text(encoding="utf-8"), flags=re.MULTILINE)


def recipes() -> dict[str, tuple[list[str], str]]:
    """Return by target of the Makefile what it needs first, and its recipe."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.findall(r"^([a-z-]+):([^#\n]*)(?:##.*)?\n((?:\t.*\n)*)", text, flags=re.MULTILINE)
    return {name: (needs.split(), recipe) for name, needs, recipe in found}


def made_by(target: str) -> set[str]:
    """Return a target and all that it makes first."""
    needs, _ = recipes()[target]
    return {target}.union(*(made_by(need) for need in needs if need in recipes()))


@pytest.mark.extended
@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_files_have_the_form_that_their_readers_want(schema: str) -> None:
    if find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed: pip install '.[dev]'")
    files = [str(file) for file in SCHEMAS[schema]]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_every_step_is_a_target_of_the_makefile(workflow: Path) -> None:
    """So that a workflow runs nothing that a contributor cannot run with the same words."""
    text = workflow.read_text(encoding="utf-8")
    assert len(runs(workflow)) == len(re.findall(r"\brun:", text)) >= 1
    for line in runs(workflow):
        command, target = line.split()
        assert command == "make"
        assert recipes()[target][1] or recipes()[target][0], line


def test_the_test_job_runs_what_continuous_integration_runs_here() -> None:
    """Each ``run:`` line is a target that ``make test`` or ``make test-slow`` makes, so that it has run where this test runs."""
    here = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert here == ["test", "test-slow"]
    ran = made_by("test") | made_by("test-slow")
    for line in runs(GITHUB / "workflows" / "tests.yml"):
        assert line.split()[1] in ran, line


def test_what_the_other_jobs_run_is_tested_or_asks_an_index() -> None:
    lines = {line.split()[1] for workflow in WORKFLOWS if workflow.stem != "tests" for line in runs(workflow)}
    assert lines == {"site", "test-wheel"} | ASKS_AN_INDEX
    assert "tests/test_packaging.py" in recipes()["test-wheel"][1]  # a file of `make test`
    assert "mkdocs build --strict" in recipes()["site"][1]  # as tests/test_site.py runs it


def test_the_workflows_cover_the_pythons_that_the_package_names() -> None:
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name in ("tests", "wheel"):
        (matrix,) = re.findall(r"python: \[(.*)\]", (GITHUB / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
        assert re.findall(r'"(3\.\d+)"', matrix) == named


def test_reports_begin_with_what_the_doctor_says() -> None:
    bug = (GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")
    doctor = re.search(r"id: doctor\n(.*?)(?=\n  - type)", bug, flags=re.DOTALL)
    assert doctor is not None
    assert "mtl-doctor" in doctor[1]
    assert "required: true" in doctor[1]
    assert "mtl-doctor" in (GITHUB / "pull_request_template.md").read_text(encoding="utf-8")
