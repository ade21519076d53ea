"""What a terminal shows of a result: the answer first, what matters to it, a line for each part, and all of it where asked for."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from mtl_deploy.bench.blocks import terminal
from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import BatchSection
from mtl_deploy.bench.terminal.text import render
from tests.bench.documents import document

RESULTS = {
    "graphs": document(calls=40),
    "engines": document(engines=True, calls=40),
    "batches": document(batches=(1, 8), calls=40),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_the_answer_is_first_and_then_what_matters_to_it(kind: str) -> None:
    result = RESULTS[kind]
    for details in (False, True):
        answer, warned, header, table, *_ = render(result, details=details).split("\n\n")
        assert answer == result["answer"]
        assert warned.startswith(f"warning: {result['answer_warnings'][0]}\n")
        assert header.startswith(f"model.mtl: {result['precision']}, 1 image per call, ")
        if details and kind == "batches":
            assert table == result["batches"][0]["answer"]
        else:
            assert table.startswith("contestant  ")


def test_warnings_about_other_parts_are_counted_and_said_in_full_with_details() -> None:
    result = RESULTS["batches"]
    brief, whole = render(result), render(result, details=True)
    assert "2 warnings about other parts: --details\n" in brief
    others = ["the check of the shares is rough", "batch 8: the shared side had not settled at batch 8"]
    for text in others:
        assert f"warning: {text}\n" not in brief
        assert f"warning: {text}\n" in whole
    assert "about other parts" not in whole


def test_a_result_that_does_not_say_which_warnings_matter_shows_all() -> None:
    old = copy.deepcopy(RESULTS["batches"])
    for part in (old, *old["batches"]):
        del part["answer_warnings"]
    assert render(old).count("warning: ") == 3
    assert "about other parts" not in render(old)


@pytest.mark.parametrize("kind", RESULTS)
def test_each_part_is_one_line_and_its_tables_with_details(kind: str) -> None:
    result = RESULTS[kind]
    at = At(result)
    roster, brief, whole = Roster(at), render(result), render(result, details=True)
    assert len(brief.splitlines()) < len(whole.splitlines()) / 2
    for section in registry.SECTIONS:
        places = [batch.down(section.place) for batch in at["batches"]]
        several = isinstance(section, BatchSection) and len(places) > 1
        ends = [f", batch {batch['batch'].text()}" for batch in at["batches"]] if several else [""]
        batch = next(iter(at["batches"]))
        found = batch.down(section.place) if isinstance(section, BatchSection) else at.down(section.place)
        if not found:
            continue
        for end in ends:
            assert len([line for line in brief.splitlines() if line.startswith(f"{section.title.lower()}{end}  ")]) == 1
        blocks: Any = section.blocks(found, *([batch] if isinstance(section, BatchSection) else []), roster)  # type: ignore[attr-defined]
        texts = terminal.render(blocks)
        assert texts
        assert all(text in whole for text in texts)
    assert brief.endswith("\n\nEvery table: --details here, --report FILE as a page.\n")


def test_shared_alone_is_shown() -> None:
    result = document(calls=2)
    batch = result["batches"][0]
    for part in (result["contestants"], batch["contestants"]):
        for name in [name for name in part if name != "shared"]:
            del part[name]
    result |= {"cold_start": None, "break_even": None, "scaling": {"threads": None, "heads": None}, "warnings": []}
    result["answer_warnings"] = []
    batch |= {"ratios": {}, "where": None, "open_loop": None, "modes": None, "energy": None, "of_ideal": None}
    assert batch["contestants"]["shared"]["latency_ms"]["p99"] is None
    texts = render(result).split("\n\n")
    assert texts[0] == result["answer"]
    latency, memory = texts[2].splitlines()
    assert latency.startswith("latency          shared p50 ")
    assert "p99" not in latency
    assert memory == "memory and size  shared 519 MB at its peak, 144.3 MB on disk"
    assert "separate" not in "".join(texts[1:])
    assert "latency p99, ms" in render(result, details=True)


def test_a_machine_of_one_core_and_a_run_of_one_round_are_in_the_singular() -> None:
    result = copy.deepcopy(RESULTS["graphs"])
    result["environment"]["usable_cores"] = 1
    result["settings"]["threads"] = 1
    result["batches"][0] |= {"processes": 1, "rounds": 1}
    header = render(result).split("\n\n")[2]
    assert ", 1 image per call, 1 thread; 1 process, 1 round in turn\n" in header
    assert ", 1 core; " in header


def test_a_name_of_two_lines_does_not_break_a_line() -> None:
    result = json.loads(json.dumps(RESULTS["graphs"]).replace("head age", "head\\n\\u001b[31mage"))
    (line,) = (line for line in render(result).splitlines() if line.startswith("where the time goes"))
    assert "head gender" in line
    assert "\x1b" not in line
