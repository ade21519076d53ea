"""The file of measurements: what is read back, what is damaged, and what is kept when one is added."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured_bundles import int8_bundle, run_of, write_measured

from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, Manifest, open_bundle
from mtl_deploy.runtime.measured.here import processor
from mtl_deploy.runtime.measured.record import MOST_RUNS, packed, read, with_run


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return int8_bundle(tmp_path / "model.mtl")


def test_what_is_written_is_read_back(bundle: Path) -> None:
    assert read(bundle) == read(bundle.parent)  # nothing, and no problem
    runs = (run_of(bundle), run_of(bundle, threads=2, libraries={"onnxruntime": "1.20.0"}))
    write_measured(bundle, *runs)
    found = read(bundle)
    assert (found.runs, found.problem, found.exists) == (runs, None, True)
    assert runs[1].on.endswith(" with ONNX Runtime 1.20.0, 2 threads")


def _changed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return damage


def _candidate(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["runs"][0]["candidates"][0]
    return found


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "not valid JSON"),
    "cut": (lambda content: content[: len(content) // 2], "not valid JSON"),
    "binary": (lambda _: b"\xff\xfe\x00", "not UTF-8"),
    "a list": (lambda _: b"[]", "a list is not an object"),
    "nested": (lambda _: b"[" * 100_000, "nested deeper"),
    "another version": (_changed(lambda d: d.update(version=2)), "2 is not 1"),
    "no runs": (_changed(lambda d: d.pop("runs")), "'runs' is missing"),
    "no candidates": (_changed(lambda d: d["runs"][0].pop("candidates")), "'candidates' is missing"),
    "an unknown backend": (_changed(lambda d: _candidate(d).update(backend="/bin/sh")), "is not one of"),
    "a time of nothing": (_changed(lambda d: _candidate(d).update(milliseconds=[0.0] * 10)), "not more than 0"),
    "a negative time": (_changed(lambda d: _candidate(d).update(milliseconds=[-1.0] * 10)), "not more than 0"),
    "a time of NaN": (lambda content: content.replace(b"4.4", b"NaN", 1), "NaN"),
    "a long number": (lambda content: content.replace(b"4.4", b"9" * 5000, 1), "digits"),
    "text for a time": (_changed(lambda d: _candidate(d).update(milliseconds=["1"] * 10)), "is not a number"),
    "rounds that do not match": (_changed(lambda d: _candidate(d)["milliseconds"].pop()), "numbers of rounds"),
    "too many rounds": (_changed(lambda d: _candidate(d).update(milliseconds=[1.0] * 1001)), "1000 or fewer"),
    "too many runs": (_changed(lambda d: d.update(runs=d["runs"] * 40)), "32 or fewer"),
    "text in two lines": (_changed(lambda d: _candidate(d).update(fault="a\nwarning: b")), "text in one line"),
    "an escape sequence": (_changed(lambda d: d["runs"][0]["processor"].update(name="\x1b[2J")), "text in one line"),
    "no cores": (_changed(lambda d: d["runs"][0]["processor"].update(cores=0)), "less than 1"),
    "large": (lambda content: content + b" " * (5 << 20), "larger than 4 MiB"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_and_does_not_count(bundle: Path, kind: str) -> None:
    damage, word = DAMAGE[kind]
    file = write_measured(bundle, run_of(bundle))
    file.write_bytes(damage(file.read_bytes()))
    found = read(bundle)
    assert not found.runs
    assert found.problem is not None
    assert found.problem.startswith(f"{file} is damaged and does not count (")
    assert word in found.problem
    assert found.problem.endswith(f"measure again: mtl-bench {bundle} --record")


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_is_no_file_is_named_and_nothing_waits_for_it(bundle: Path, kind: str) -> None:
    file = bundle / MEASURED_FILE
    {"folder": file.mkdir, "pipe": lambda: os.mkfifo(file), "loop": lambda: file.symlink_to(file)}[kind]()
    assert str(file) in (read(bundle).problem or "")


def test_a_run_replaces_those_that_said_the_same_and_no_other(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    here = run_of(bundle)
    elsewhere = run_of(bundle, processor=replace(processor(), name="Other 9000"))
    threads = run_of(bundle, threads=1)
    older = run_of(bundle, libraries={"onnxruntime": "1.20.0"})
    again = replace(here, measured="2027-01-01T00:00:00+00:00")
    assert with_run((here, elsewhere, threads, older), manifest, again) == (elsewhere, threads, older, again)
    many = tuple(run_of(bundle, threads=number) for number in range(1, MOST_RUNS + 1))
    kept = with_run(many, manifest, here)
    assert (len(kept), kept[0], kept[-1]) == (MOST_RUNS, many[1], here)
    write_measured(bundle, *kept)
    assert read(bundle).problem is None


def test_runs_of_graphs_that_are_gone_go(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    run = run_of(bundle)
    artifacts = [replace(one, sha256="0" * 64) if one.path == "int8.onnx" else one for one in manifest.artifacts]
    without = Manifest(manifest.name, manifest.signature, tuple(artifacts))
    assert with_run((run,), manifest) == (run,)
    assert with_run((run,), without) == ()


def test_the_file_is_text_for_people_and_the_same_for_the_same_runs(bundle: Path) -> None:
    run = run_of(bundle)
    assert packed((run,)) == packed((run,))
    document = json.loads(packed((run,)))
    assert document["version"] == 1
    assert document["runs"][0]["candidates"][0]["path"] == "fp32.onnx"
