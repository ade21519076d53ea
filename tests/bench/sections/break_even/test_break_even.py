"""From how many tasks and which batch sharing pays."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.bench.sections.break_even.break_even import break_even
from mtl_deploy.bench.sections.break_even.section import BreakEvenSection
from mtl_deploy.bench.statistics.derived import ratio
from mtl_deploy.bench.statistics.nested import Nested
from tests.bench.printed import printed
from tests.bench.synthetic import BACKBONE, HEADS, nested, samples

TASKS = tuple(HEADS)


def test_known_ratios_of_every_number_of_tasks_are_found() -> None:
    found = break_even({1: samples()}, TASKS)
    mean = sum(HEADS.values()) / 3
    assert [row.tasks for row in found.rows] == list(range(1, 9))
    for row in found.rows:
        truth = row.tasks * (BACKBONE + mean) / (BACKBONE + row.tasks * mean)
        assert row.ratio.value == pytest.approx(truth, rel=0.02)
        assert row.ratio.low <= row.ratio.value <= row.ratio.high
    assert [row.measured for row in found.rows] == [True, False, True, *[False] * 5]
    assert [row.beyond for row in found.rows] == [False] * 3 + [True] * 5
    assert found.count == 2
    assert found.answer.startswith("Sharing pays from 2 tasks on (ratio 1.7")
    assert found.answer.endswith(", by backbone and heads), at batch 1, the only one measured.")


def test_one_task_shares_nothing_however_slow_its_separate_model() -> None:
    slower = samples()
    slower["separate"] = [[1.2 * calls for calls in rounds] for rounds in slower["separate"]]
    found = break_even({1: slower}, TASKS)
    assert found.rows[0].ratio.low > 1
    assert found.count == 2


def test_all_tasks_give_the_measured_ratio() -> None:
    one = samples()
    found = break_even({1: one}, TASKS)
    assert found.rows[2].ratio.value == pytest.approx(ratio(one["separate"], one["shared"]).value)
    assert found.batches[1] == ratio(one["separate"], one["shared"])


def test_sharing_that_costs_as_much_pays_for_no_number() -> None:
    heads = dict.fromkeys(TASKS, 10.0)
    found = break_even({1: samples(backbone=0.0, heads=heads)}, TASKS)
    assert found.count is None
    assert found.smallest is None
    assert found.answer == "Sharing is not shown to pay: for no number of tasks up to 8, at no batch measured (1)."


def without_subsets(value: float, seed: int = 0) -> dict[str, Nested]:
    rng = np.random.default_rng(seed)
    return {"shared": nested(10.0, rng), "separate": nested(10.0 * value, rng)}


def test_without_the_tasks_alone_there_are_no_rows() -> None:
    assert break_even({1: without_subsets(2.5)}, TASKS).rows == ()


@pytest.mark.parametrize(
    ("ratios", "smallest", "words", "warnings"),
    [
        ({1: 2.0, 8: 2.5}, 1, "Sharing pays at every batch measured, 1 to 8.", 0),
        ({1: 1.0, 8: 2.5, 32: 2.0}, 8, "Sharing pays from batch 8 on, of those measured (1, 8, 32).", 0),
        ({1: 2.0, 8: 1.0}, 1, "Sharing pays from batch 1 on, of those measured (1, 8).", 1),
        ({1: 0.5, 8: 0.9}, None, "Sharing is not shown to pay: at no batch measured (1, 8).", 0),
    ],
)
def test_over_batches(ratios: dict[int, float], smallest: int | None, words: str, warnings: int) -> None:
    found = break_even({batch: without_subsets(value) for batch, value in ratios.items()}, TASKS)
    assert found.smallest == smallest
    assert found.answer == words
    assert len(found.warnings) == warnings


def test_the_document_and_the_table() -> None:
    found = break_even({1: samples(), 8: samples(seed=1)}, TASKS, most=4)
    document = found.to_dict()
    assert document["tasks"]["count"] == 2
    assert [row["tasks"] for row in document["tasks"]["rows"]] == [1, 2, 3, 4]
    assert set(document["tasks"]["rows"][0]["ratio"]) == {"value", "low", "high"}
    assert [row["batch"] for row in document["batch"]["rows"]] == [1, 8]
    assert document["answer"] == found.answer
    text = printed(BreakEvenSection(), found)
    assert text.endswith(found.answer)
    assert "model" in text
    assert text.count("95 % interval") >= 3


def test_nothing_measured() -> None:
    found = break_even({1: {"shared": samples()["shared"]}}, TASKS)
    assert found.rows == ()
    assert found.answer == "Break-even was not measured."
    assert found.to_dict()["batch"] == {"smallest": None, "rows": []}
