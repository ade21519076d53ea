"""The search on cost models small enough to try every choice of layers."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from mtl_deploy.calibration.search.layers import SearchResult, search

TASKS = ("age", "gender", "race")
Evaluate = Callable[[frozenset[str]], dict[str, float]]


class Additive:
    """Each layer that is quantized adds its own figure to each task's drop; counts the calls."""

    def __init__(self, harm: Mapping[str, Mapping[str, float]], ceiling: float = math.inf) -> None:
        self.harm = harm
        self.ceiling = ceiling
        self.asked: list[frozenset[str]] = []

    def __call__(self, skip: frozenset[str]) -> dict[str, float]:
        self.asked.append(skip)
        return self.drops(skip)

    def drops(self, skip: frozenset[str]) -> dict[str, float]:
        return {
            task: min(self.ceiling, sum(each.get(task, 0.0) for node, each in self.harm.items() if node not in skip))
            for task in TASKS
        }


def fewest(nodes: Sequence[str], drops: Evaluate, budgets: Mapping[str, float]) -> int:
    """Return how many layers must be kept at least, by trying every choice."""
    for count in range(len(nodes) + 1):
        for skip in itertools.combinations(nodes, count):
            found = drops(frozenset(skip))
            if all(found[task] <= allowed + 1e-9 for task, allowed in budgets.items()):
                return count
    raise AssertionError("not even all layers suffice")


def run(
    evaluate: Evaluate,
    nodes: Sequence[str],
    budgets: Mapping[str, float],
    heads: Mapping[str, str | None] | None = None,
    cost: Mapping[str, float] | None = None,
) -> SearchResult:
    return search(nodes, evaluate, budgets, heads=heads or {}, cost=cost or dict.fromkeys(nodes, 1.0))


def network(seed: int) -> tuple[list[str], dict[str, dict[str, float]], dict[str, str | None]]:
    """Return eight layers of a backbone and one per head, few of which do most of the harm."""
    random = np.random.default_rng(seed)
    nodes = [*(f"conv{i}" for i in range(8)), *TASKS]
    heads: dict[str, str | None] = {node: node if node in TASKS else None for node in nodes}
    harm = {
        node: {
            task: float(random.choice([0.02, 1.0], p=[0.7, 0.3]) * random.uniform(0.1, 1))
            for task in TASKS
            if heads[node] in (None, task)
        }
        for node in nodes
    }
    return nodes, harm, heads


def test_all_layers_are_quantized_where_every_budget_holds_so() -> None:
    model = Additive({"a": {"age": 0.1}, "b": {"age": 0.1}})
    result = run(model, ["a", "b"], {"age": 0.2})
    assert (result.skip, result.met, len(model.asked)) == ((), True, 1)


@pytest.mark.parametrize("seed", range(30))
def test_a_budget_of_one_task_is_met_with_the_fewest_layers_where_harm_adds_up(seed: int) -> None:
    nodes, harm, heads = network(seed)
    model = Additive(harm)
    budgets = {"age": 0.25}
    result = run(model, nodes, budgets, heads)
    assert result.met
    assert result.drops == model.drops(frozenset(result.skip))
    assert len(result.skip) == fewest(nodes, model.drops, budgets)


@pytest.mark.parametrize("seed", range(30))
def test_budgets_of_three_tasks_are_met_with_at_most_one_layer_more_than_the_fewest(seed: int) -> None:
    nodes, harm, heads = network(seed)
    model = Additive(harm)
    budgets = {"age": 0.25, "gender": 0.3, "race": 0.5}
    result = run(model, nodes, budgets, heads)
    assert result.met
    assert all(result.drops[task] <= allowed for task, allowed in budgets.items())
    assert len(result.skip) <= fewest(nodes, model.drops, budgets) + 1


@pytest.mark.parametrize("seed", range(10))
def test_layers_that_each_ruin_a_task_are_all_found(seed: int) -> None:
    nodes, harm, heads = network(seed)
    ruined = {node: harm[node] | {"age": 5.0} for node in ("conv1", "conv4", "conv6")}
    model = Additive(harm | ruined, ceiling=1.0)  # without any one of them quantized, nothing looks better
    result = run(model, nodes, {"age": 0.9}, heads)
    assert set(ruined) <= set(result.skip)
    assert len(result.skip) == fewest(nodes, model.drops, {"age": 0.9})


@pytest.mark.parametrize("seed", range(30))
def test_no_layer_kept_is_superfluous(seed: int) -> None:
    nodes, harm, heads = network(seed)
    random = np.random.default_rng(seed)
    pairs = {pair: float(random.uniform(0, 0.4)) for pair in itertools.combinations(nodes[:8], 2)}

    def evaluate(skip: frozenset[str]) -> dict[str, float]:
        together = sum(extra for pair, extra in pairs.items() if not skip & set(pair))
        return {task: drop + together for task, drop in Additive(harm).drops(skip).items()}

    budgets = {"age": 0.5, "race": 0.5}
    result = run(evaluate, nodes, budgets, heads)
    assert result.met
    for node in result.skip:
        fewer = evaluate(frozenset(result.skip) - {node})
        assert any(fewer[task] > allowed for task, allowed in budgets.items())


@pytest.mark.parametrize("seed", range(30))
def test_evaluations_are_bounded_and_none_is_repeated(seed: int) -> None:
    nodes, _, heads = network(seed)
    random = np.random.default_rng(seed)

    def noise(skip: frozenset[str]) -> dict[str, float]:
        asked.append(skip)
        return dict.fromkeys(TASKS, 0.0) if len(skip) == len(nodes) else dict(zip(TASKS, random.random(3), strict=True))

    asked: list[frozenset[str]] = []
    result = run(noise, nodes, {"age": 0.3, "gender": 0.3}, heads)
    assert result.met
    assert len(asked) == len(set(asked)) == len(result.trail) <= 3 + 2 * 11 + 4  # of 11 layers


def test_a_task_that_its_own_head_spoils_costs_no_look_at_the_backbone() -> None:
    nodes = [*(f"conv{i}" for i in range(40)), "age.0", "age.1", "race.0"]
    heads = {"age.0": "age", "age.1": "age", "race.0": "race"}
    harm = {node: dict.fromkeys(TASKS, 0.001) for node in nodes[:40]}
    harm |= {"age.0": {"age": 3.0}, "age.1": {"age": 0.01}, "race.0": {"race": 0.01}}
    model = Additive(harm)
    result = run(model, nodes, dict.fromkeys(TASKS, 0.06), heads)
    assert result.skip == ("age.0",)
    assert len(model.asked) == 5
    assert model.asked[2] == {"age.0", "age.1"}


def test_the_backbone_is_searched_for_the_tasks_that_their_heads_do_not_mend() -> None:
    nodes = ["conv0", "conv1", "age", "race"]
    harm = {"conv0": {"race": 1.0}, "conv1": {}, "age": {"age": 1.0}, "race": {"race": 0.04}}
    model = Additive(harm)
    result = run(model, nodes, dict.fromkeys(TASKS, 0.05), {"age": "age", "race": "race"})
    assert result.skip == ("conv0", "age")


def test_a_head_is_quantized_again_once_the_backbone_alone_mends_its_task() -> None:
    nodes = ["conv0", "conv1", "age", "race"]
    harm = {"conv0": {"race": 1.0, "age": 0.06}, "conv1": {}, "age": {"age": 0.06}, "race": {"race": 0.04}}
    model = Additive(harm)
    result = run(model, nodes, {"age": 0.07, "race": 0.05}, {"age": "age", "race": "race"})
    assert result.skip == ("conv0",)


def test_of_layers_that_help_alike_the_cheapest_is_kept() -> None:
    harm = {node: {"age": 0.3} for node in "abc"}
    cost = {"a": 5.0, "b": 1.0, "c": 4.0}
    result = run(Additive(harm), list("abc"), {"age": 0.6}, cost=cost)
    assert result.skip == ("b",)


def test_tasks_without_a_budget_may_lose_anything() -> None:
    model = Additive({"a": {"age": 0.1, "race": 9.0}, "b": {"age": 0.1}})
    assert run(model, ["a", "b"], {"age": 0.2}).skip == ()


def test_a_budget_that_no_choice_meets_is_not_met_with_all_layers_kept() -> None:
    def evaluate(skip: frozenset[str]) -> dict[str, float]:
        return {"age": 0.4, "gender": 0.0, "race": 0.0 if skip else 1.0}

    result = run(evaluate, ["a", "b"], {"age": 0.1, "race": 0.1})
    assert not result.met
    assert result.skip == ("a", "b")
    assert (result.drops["age"], result.drops["race"]) == (0.4, 0.0)
    assert len(result.trail) == 2


def test_a_drop_that_is_no_number_is_over_every_budget() -> None:
    harm = {"a": {"age": 0.01}, "b": {"age": math.nan}, "c": {"age": math.inf}}
    result = run(Additive(harm), list("abc"), {"age": 1.0})
    assert result.skip == ("b", "c")


def test_a_budget_of_exactly_the_drop_is_met() -> None:
    assert run(Additive({"a": {"age": 0.1}, "b": {"age": 0.2}}), ["a", "b"], {"age": 0.3}).skip == ()


def test_the_record_is_json_and_holds_every_evaluation() -> None:
    seen: list[str] = []
    model = Additive({"a": {"age": 1.0}, "b": {"age": math.nan}})
    result = search(["a", "b"], model, {"age": 0.5}, heads={}, cost={"a": 1.0, "b": 3.0}, progress=seen.append)
    assert result.skip == ("a", "b")
    steps = json.loads(json.dumps(result.steps(), allow_nan=False))
    assert len(steps) == len(model.asked) == len(seen)
    drops = {"age": 1e12, "gender": 0.0, "race": 0.0}  # NaN, as JSON can hold it
    assert steps[0] == {"action": "all layers in INT8", "kept": 0, "drops": drops, "met": False}
    assert seen[0] == "evaluation 1: all layers in INT8"
