"""What a search calls met holds on the population, by simulation of networks whose true drops are known.

A simulated network is right where an image's margin is positive; each quantized layer adds noise to all margins, so that its
accuracy on the population has a closed form, and configurations are related as real ones are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pytest

from mtl_deploy.calibration.accuracy.paired_losses import MeanSample, Sample
from mtl_deploy.calibration.search.confirmation import Confirmed, Look, confirmed_search
from mtl_deploy.calibration.search.layers import search

LAYERS = tuple(f"layer{i}" for i in range(12))
CDF = NormalDist().cdf
RUNS = 300
# of 300 runs with a chance of 0.05, more than 26 happen once in 300: 8.7 %
MOST = 26


@dataclass(frozen=True)
class Network:
    """One task; ``noises`` are the standard deviations that the layers add to a margin of mean ``mean`` and deviation 1."""

    mean: float
    noises: np.ndarray
    rest: float = 0.0

    def drop(self, skip: frozenset[str]) -> float:
        """The true one."""
        variance = self.rest**2 + sum(
            noise**2 for name, noise in zip(LAYERS, self.noises, strict=True) if name not in skip
        )
        return CDF(self.mean) - CDF(self.mean / math.sqrt(1 + variance))

    def look(self, random: np.random.Generator, images: int) -> Look:
        """Draw images; return what a choice of layers costs on them."""
        margins = random.normal(self.mean, 1, images)
        each = self.noises[:, None] * random.standard_normal((len(LAYERS), images))
        base = margins + self.rest * random.standard_normal(images)
        right = (margins > 0).astype(float)

        def samples(skip: frozenset[str]) -> dict[str, list[Sample]]:
            kept = np.array([name not in skip for name in LAYERS])
            after = (base + each[kept].sum(axis=0) > 0).astype(float)
            return {"class": [MeanSample(-after, -right, shares=True)]}

        return samples


def scaled(random: np.random.Generator, drop: float, rest: float = 0.0) -> Network:
    """A network whose true drop with all layers in INT8 is the one given; few layers do most of the harm."""
    mean = float(random.uniform(0.7, 1.6))
    shape = random.lognormal(0, 0.8, len(LAYERS))
    low, high = 0.0, 4.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if Network(mean, middle * shape, rest).drop(frozenset()) < drop else (low, middle)
    return Network(mean, low * shape, rest)


def run(network: Network, budget: float, random: np.random.Generator, searching: int, confirming: int) -> Confirmed:
    return confirmed_search(
        LAYERS,
        network.look(random, searching),
        network.look(random, confirming),
        {"class": budget},
        images={"class": confirming},
        heads={},
        cost=dict.fromkeys(LAYERS, 1.0),
    )


def population(seed: int, budget: float) -> tuple[np.random.Generator, Network]:
    random = np.random.default_rng(seed)
    return random, scaled(random, budget * float(random.uniform(0.5, 5)))


BUDGET = 0.02


def test_what_is_called_met_holds_on_the_population_in_95_percent_of_runs_and_mostly_is_called_so() -> None:
    met = wrong = kept = 0
    for seed in range(RUNS):
        random, network = population(seed, BUDGET)
        found = run(network, BUDGET, random, 1500, 1500)
        if found.outcome == "met":
            met += 1
            kept += len(found.skip)
            wrong += network.drop(frozenset(found.skip)) > BUDGET
    assert met >= 0.95 * RUNS  # with all layers kept the drop is 0 in each of these networks
    assert wrong <= 0.05 * met
    assert kept / met < 0.7 * len(LAYERS)  # and it is not by keeping all of them


def test_the_simulation_shows_what_a_point_estimate_gets_wrong() -> None:
    wrong = 0
    for seed in range(RUNS):
        random, network = population(seed, BUDGET)
        look = network.look(random, 1000)
        found = search(
            LAYERS,
            lambda skip, look=look: {"class": look(skip)["class"][0].drop},
            {"class": BUDGET},
            heads={},
            cost=dict.fromkeys(LAYERS, 1.0),
        )
        assert found.met
        wrong += network.drop(frozenset(found.skip)) > BUDGET
    assert wrong > 0.25 * RUNS


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda random: scaled(random, 1.1 * BUDGET), id="quantized_is_just_over"),
        pytest.param(lambda random: scaled(random, 40 * BUDGET / 10), id="many_choices_are_over"),
        # kept in high precision it is over too, and quantizing adds next to nothing: each look is another chance to be wrong
        pytest.param(
            lambda random: Network(1.0, np.full(len(LAYERS), 0.01), rest_for(1.0, 1.05 * BUDGET)), id="all_over"
        ),
    ],
)
def test_a_choice_over_budget_is_rarely_called_met(make: Callable[[np.random.Generator], Network]) -> None:
    wrong = 0
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        network = make(random)
        found = run(network, BUDGET, random, 1000, 1000)
        wrong += found.outcome == "met" and network.drop(frozenset(found.skip)) > BUDGET
    assert wrong <= MOST


def test_many_looks_at_the_confirming_images_do_not_add_up() -> None:
    """Each choice is over budget and differs on images of its own: whoever looks until one fits finds one too often."""
    nodes = [f"layer{i}" for i in range(32)]
    wrong = 0
    for seed in range(RUNS):
        random = np.random.default_rng(seed)

        def look(skip: frozenset[str], drop: float, random: np.random.Generator = random) -> dict[str, list[Sample]]:
            before = random.random(500) < 0.8
            after = np.where(random.random(500) < 0.1, random.random(500) < 0.8 - 10 * drop, before)
            return {"class": [MeanSample(-after.astype(float), -before.astype(float), shares=True)]}

        found = confirmed_search(
            nodes,
            lambda skip: look(skip, 0.0 if len(skip) > 10 else 0.05),
            lambda skip: look(skip, 1.02 * BUDGET),
            {"class": BUDGET},
            images={"class": 500},
            heads={},
            cost={},
        )
        wrong += found.outcome == "met"
    assert wrong <= MOST


def rest_for(mean: float, drop: float) -> float:
    """The noise of all layers in high precision that costs so much."""
    return math.sqrt((mean / NormalDist().inv_cdf(CDF(mean) - drop)) ** 2 - 1)


@pytest.mark.parametrize(("share", "confirming"), [(0.05, 1000), (0.3, 6000)])
def test_a_network_comfortably_within_its_budget_is_accepted_with_all_layers_in_int8(
    share: float, confirming: int
) -> None:
    accepted = 0
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        found = run(scaled(random, share * BUDGET), BUDGET, random, 2000, confirming)
        accepted += found.outcome == "met" and not found.skip
    assert accepted >= 0.8 * RUNS


def test_few_images_leave_it_undecided_and_the_number_that_is_named_decides_it() -> None:
    numbers = []
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        found = run(scaled(random, 0.25 * BUDGET), BUDGET, random, 600, 120)
        if found.outcome == "undecided":
            assert found.tasks["class"].high > BUDGET
            numbers.append(found.tasks["class"].needed)
        else:
            assert found.outcome == "met"  # the choice looks better than FP32 by chance; it is within its budget
    assert len(numbers) >= 0.9 * RUNS
    assert None not in numbers
    decided = 0
    for seed, number in enumerate(numbers):
        random = np.random.default_rng(10_000 + seed)
        assert number > 120
        decided += run(scaled(random, 0.25 * BUDGET), BUDGET, random, 600, min(number, 5000)).outcome == "met"
    assert decided >= 0.8 * len(numbers)


def test_a_drop_that_no_layer_mends_is_missed_and_that_is_not_undecided() -> None:
    network = Network(1.0, np.full(len(LAYERS), 0.1), rest_for(1.0, 3 * BUDGET))
    found = run(network, BUDGET, np.random.default_rng(0), 2000, 2000)
    assert found.outcome == "missed"
    assert set(found.skip) == set(LAYERS)
    assert found.tasks["class"].low > BUDGET
    assert found.times is None


def test_every_task_must_be_shown_to_keep_its_budget() -> None:
    random = np.random.default_rng(0)
    looks = [scaled(random, drop).look(random, 3000) for drop in (0.002, 0.05)]

    def both(skip: frozenset[str]) -> dict[str, list[Sample]]:
        return {name: list(look(skip)["class"]) for name, look in zip(("easy", "hard"), looks, strict=True)}

    found = confirmed_search(
        LAYERS,
        both,
        both,
        {"easy": 0.02, "hard": 0.02},
        images={"easy": 3000, "hard": 3000},
        heads={},
        cost={},
    )
    assert found.outcome == "met"
    assert found.skip
    assert set(found.tasks) == {"easy", "hard"}


def test_of_two_styles_the_worse_one_counts() -> None:
    random = np.random.default_rng(0)
    good, bad = scaled(random, 0.001).look(random, 2000), scaled(random, 0.2).look(random, 2000)

    def both(skip: frozenset[str]) -> dict[str, list[Sample]]:
        return {"class": [*good(skip)["class"], *bad(skip)["class"]]}

    found = confirmed_search(LAYERS, both, both, {"class": 0.02}, images={"class": 2000}, heads={}, cost={})
    assert found.skip
    assert found.tasks["class"].drop == max(sample.drop for sample in both(frozenset(found.skip))["class"])


def test_a_budget_of_nothing_is_never_shown_and_no_number_of_images_is_named() -> None:
    network = Network(1.0, np.zeros(len(LAYERS)))
    found = run(network, 0.0, np.random.default_rng(0), 500, 500)
    assert found.outcome == "undecided"
    assert found.times is None


def test_the_record_is_json_even_where_images_are_too_few_for_an_interval() -> None:
    random = np.random.default_rng(0)
    rows = random.exponential(1, 20)

    def look(skip: frozenset[str]) -> dict[str, list[Sample]]:
        return {"age": [MeanSample(rows + 0.01 * (len(LAYERS) - len(skip)), rows, shares=False)]}

    found = confirmed_search(LAYERS, look, look, {"age": 1.0}, images={"age": 20}, heads={}, cost={})
    assert found.outcome == "undecided"
    assert found.tasks["age"].needed == 30
    assert found.times == 1.5
    record = json.loads(json.dumps(found.to_dict(0.0, 60), allow_nan=False))
    assert record["outcome"] == "undecided"
    assert record["drop_high"] == {"age": "inf"}
    assert record["images_needed"] == {"age": 30}
    assert record["images_needed_in_all"] == 90
