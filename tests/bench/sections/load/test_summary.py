"""What latency under load says in one line."""

from __future__ import annotations

import copy
from typing import Any

from mtl_deploy.bench.blocks import terminal
from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster, Sentence
from mtl_deploy.bench.sections.load.section import OpenLoopSection
from tests.bench.documents import document

RESULT = document(calls=2)


def said(found: dict[str, Any]) -> str:
    return "".join(terminal.render([Sentence(OpenLoopSection().summary(At(found), Roster(At(RESULT))))]))


def test_the_rates_that_keep_the_deadline() -> None:
    found = copy.deepcopy(RESULT["batches"][0]["open_loop"])
    expected = "p99 within 400 ms: shared up to 18.0 requests/s, 3 separate in sequence up to 6.1 requests/s"
    assert said(found) == expected
    found["contestants"]["separate"]["highest_rate_per_s"] = None
    assert said(found) == "p99 within 400 ms: shared up to 18.0 requests/s"


def test_without_a_deadline_or_a_rate_that_keeps_it_the_p99_at_the_highest_rate_that_was_sustained() -> None:
    found = copy.deepcopy(RESULT["batches"][0]["open_loop"]) | {"deadline_ms": None}
    expected = "shared p99 458.33 ms at 21.6 requests/s, 3 separate in sequence p99 1341.46 ms at 7.4 requests/s"
    assert said(found) == expected
    for one in found["contestants"].values():
        one["highest_rate_per_s"] = None
    assert said(found | {"deadline_ms": 1.0}) == expected
