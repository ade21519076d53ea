from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from mtl_deploy.export.fp16.fit import LEAST_SHARE, Fp16Fit, fit
from mtl_deploy.export.fp16.regain import regain

LAYERS = [f"layer{number}" for number in range(50)]
COST = {name: 1.0 + 3.0 * (number > 25) for number, name in enumerate(LAYERS)}
TOTAL = sum(COST.values())


class Rounding:
    """A network whose layers' rounding errors add up as independent ones do, with a little that does not add up."""

    def __init__(self, errors: Mapping[str, Mapping[str, float]], seed: int = 0) -> None:
        self.errors, self.seed = errors, seed
        self.runs = 0

    def __call__(self, kept: frozenset[str]) -> dict[str, float]:
        self.runs += 1
        random = np.random.default_rng((self.seed, len(kept)))
        return {
            task: math.sqrt(sum(error**2 for name, error in of.items() if name not in kept))
            * random.uniform(0.97, 1.03)
            for task, of in self.errors.items()
        }


def test_the_layers_that_cost_most_stay_in_fp32_and_few_others() -> None:
    loud = dict.fromkeys(LAYERS, 0.05) | {"layer3": 3.0, "layer4": 2.0}
    network = Rounding({"age": loud, "gender": dict.fromkeys(LAYERS, 0.1)})
    result = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    assert result.fits
    assert {"layer3", "layer4"} <= result.keep
    assert result.share > 0.9
    assert all(value <= 1 for value in result.excess.values())
    assert network(result.keep)["age"] <= 1
    assert result.before["age"] > 3


def test_every_task_that_is_over_is_helped() -> None:
    age = dict.fromkeys(LAYERS, 0.02) | {"layer3": 3.0}
    race = dict.fromkeys(LAYERS, 0.02) | {"layer40": 3.0}
    network = Rounding({"age": age, "race": race})
    result = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    assert result.fits
    assert {"layer3", "layer40"} <= result.keep


def test_an_error_that_all_layers_share_needs_as_many_as_it_takes_and_no_more() -> None:
    error = dict.fromkeys(LAYERS, 0.18)  # 1.27 of what is allowed
    network = Rounding({"age": error}, seed=2)
    result = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    assert result.fits
    assert 0.6 < result.share < 0.95
    assert network.runs < 90


def test_what_half_of_the_work_in_fp32_does_not_mend_is_said_not_to_fit() -> None:
    network = Rounding({"age": dict.fromkeys(LAYERS, 0.5)})
    result = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    assert not result.fits
    assert result.keep == frozenset()
    assert result.excess == result.before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_error_that_is_no_number_does_not_fit(bad: float) -> None:
    def broken(kept: frozenset[str]) -> dict[str, float]:
        return {"age": bad}

    assert not fit(LAYERS, COST, TOTAL, {"age": bad}, broken, broken).fits


def test_no_list_leaves_less_than_half_in_fp16() -> None:
    asked: list[frozenset[str]] = []

    def hopeless(kept: frozenset[str]) -> dict[str, float]:
        asked.append(kept)
        return {"age": 5.0}

    fit(LAYERS, COST, TOTAL, {"age": 5.0}, hopeless, lambda kept: {"age": 1.0})
    assert asked
    assert all(sum(COST[name] for name in LAYERS if name not in kept) >= LEAST_SHARE * TOTAL for kept in asked)


JOINS = ("sum0", "sum1")


def fitted(errors: Mapping[str, float], joins: Sequence[str]) -> Fp16Fit:
    network = Rounding({"age": errors}, seed=2)
    return fit(LAYERS, COST, TOTAL, network(frozenset()), network, network, joins=joins)


def test_what_joins_branches_stays_in_fp32_before_any_layer_does() -> None:
    result = fitted(dict.fromkeys(LAYERS, 0.02) | dict.fromkeys(JOINS, 3.0), JOINS)
    assert result.fits
    assert (result.keep, result.joins) == (frozenset(), frozenset(JOINS))
    assert result.share == 1.0
    assert result.before["age"] > 3
    assert result.excess["age"] < 1
    assert result.evaluations == 1


def test_layers_alone_do_not_mend_what_rounds_where_branches_join() -> None:
    errors = dict.fromkeys(LAYERS, 0.18) | dict.fromkeys(JOINS, 0.6)
    result, without = fitted(errors, JOINS), fitted(errors, ())
    assert result.fits
    assert result.joins == frozenset(JOINS)
    assert result.keep
    assert result.share > 0.8
    assert not without.fits


def test_what_joins_branches_becomes_fp16_again_where_the_layers_do_without() -> None:
    errors = dict.fromkeys(LAYERS, 0.02) | {"layer3": 3.0} | dict.fromkeys(JOINS, 0.02)
    result = fitted(errors, JOINS)
    assert result.fits
    assert "layer3" in result.keep
    assert result.joins == frozenset()


def test_where_nothing_fits_nothing_is_kept() -> None:
    result = fitted(dict.fromkeys(LAYERS, 0.5) | dict.fromkeys(JOINS, 0.1), JOINS)
    assert not result.fits
    assert (result.keep, result.joins) == (frozenset(), frozenset())
    assert result.excess == result.before


def test_large_layers_become_fp16_again_before_small_ones() -> None:
    loud = LAYERS[:10]
    large = set(loud[::2])
    cost = {name: 3.0 if name in large else 1.0 for name in LAYERS}
    network = Rounding({"age": dict.fromkeys(LAYERS, 0.02) | dict.fromkeys(loud, 0.5)})
    result = fit(LAYERS, cost, sum(cost.values()), network(frozenset()), network, network)
    assert result.fits
    given_back = set(loud) - result.keep
    assert given_back
    assert given_back <= large


def test_layers_become_fp16_again_where_their_rounding_costs_less() -> None:
    loud = dict.fromkeys(LAYERS, 0.02) | dict.fromkeys(LAYERS[:12], 0.6)
    network = Rounding({"age": loud, "gender": dict.fromkeys(LAYERS, 0.05)})
    found = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    assert found.fits
    assert set(LAYERS[:12]) <= set(found.loud)
    assert len(found.loud) < len(LAYERS)
    softer = Rounding({task: {name: error / 1.6 for name, error in of.items()} for task, of in network.errors.items()})
    more = regain(found, LAYERS, COST, TOTAL, softer, softer, enough=0.9)
    assert more.fits
    assert more.keep < found.keep
    assert more.share > found.share
    assert softer(more.keep) == more.excess
    assert more.keep <= set(LAYERS[: max(map(LAYERS.index, more.keep)) + 1])
    assert all(max(softer(more.keep - {name}).values()) > 1 for name in sorted(more.keep)[-3:])
    assert more.before == found.before
    assert softer.runs < 20  # no layer was measured alone


def test_other_orders_are_tried_where_the_last_layers_are_the_loud_ones() -> None:
    loud = LAYERS[:12]
    errors = dict.fromkeys(LAYERS, 0.02) | dict.fromkeys(loud, 0.6)
    network = Rounding({"age": errors})
    found = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    found = replace(found, keep=frozenset(loud))
    softer = Rounding({"age": errors | dict.fromkeys(loud[:9], 0.2) | dict.fromkeys(loud[9:], 0.9)})
    of_depth = regain(found, LAYERS, COST, TOTAL, softer, softer, enough=0.0)
    of_any = regain(found, LAYERS, COST, TOTAL, softer, softer)
    assert of_any.fits
    assert of_any.share > of_depth.share
    assert of_any.keep == set(loud[9:])


def test_a_large_layer_becomes_fp16_for_a_small_one_where_that_is_all_that_is_left() -> None:
    class Tasks:
        """Whatever fits needs one of the two layers, and the small one is no cheaper to keep than it adds."""

        def __call__(self, kept: frozenset[str]) -> dict[str, float]:
            return {"age": 0.9 if kept & {"large", "small"} else 1.1}

    layers, cost = ["small", "large", "rest"], {"small": 1.0, "large": 3.0, "rest": 16.0}
    found = Fp16Fit(frozenset({"small", "large"}), frozenset(), True, {"age": 0.9}, {"age": 1.1}, 0.8, 1)
    swapped = regain(found, layers, cost, 20.0, Tasks(), Tasks(), enough=0.9)
    assert (swapped.keep, swapped.share) == (frozenset({"small"}), 0.95)
    stuck = replace(found, keep=frozenset({"large"}), share=0.85)
    assert regain(stuck, layers, cost, 20.0, Tasks(), Tasks(), enough=0.9).keep == {"large"}


def test_what_no_longer_fits_is_left_as_it_was() -> None:
    loud = dict.fromkeys(LAYERS, 0.02) | dict.fromkeys(LAYERS[:12], 0.6)
    network = Rounding({"age": loud})
    found = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    worse = Rounding({"age": dict.fromkeys(LAYERS, 0.6)})
    assert regain(found, LAYERS, COST, TOTAL, worse, worse) is found


def test_where_every_layer_can_be_fp16_again_all_are() -> None:
    network = Rounding({"age": dict.fromkeys(LAYERS, 0.02) | dict.fromkeys(LAYERS[:12], 0.6)})
    found = fit(LAYERS, COST, TOTAL, network(frozenset()), network, network)
    quiet = Rounding({"age": dict.fromkeys(LAYERS, 0.02)})
    more = regain(found, LAYERS, COST, TOTAL, quiet, quiet, joins=JOINS)
    assert (more.keep, more.joins, more.share) == (frozenset(), frozenset(), 1.0)
