"""Backbone and heads from whole calls, beside the profile, and what of the ideal ratio is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mtl_deploy.bench.contestants.hosts import LocalHost
from mtl_deploy.bench.contestants.pair import Settings, find_pair, make_batch
from mtl_deploy.bench.contestants.specs import chosen_specs
from mtl_deploy.bench.measurement.measure import Measurement, slot
from mtl_deploy.bench.sections.break_even.break_even import BreakEven
from mtl_deploy.bench.sections.break_even.section import BreakEvenSection
from mtl_deploy.bench.sections.where import graph_profile as profile_module
from mtl_deploy.bench.sections.where import ideal as ideals
from mtl_deploy.bench.sections.where.graph_profile import Profile
from mtl_deploy.bench.sections.where.parts import Operator, Part
from mtl_deploy.bench.sections.where.section import WhereSection, WhereSettings
from mtl_deploy.bench.sections.where.where import TOLERANCE, Where, end_to_end, explain, measure_where
from mtl_deploy.bench.statistics.derived import derived, locations
from mtl_deploy.bench.statistics.nested import Interval, location
from mtl_deploy.runtime.console.command import Progress
from tests.bench.printed import printed
from tests.bench.synthetic import BACKBONE, HEADS, samples

TASKS = tuple(HEADS)
TOTAL = BACKBONE + sum(HEADS.values())
WORK = {"backbone": 97.0, "head age": 1.0, "head gender": 1.0, "head race": 1.0}


def profile(times: dict[str, float], call_ms: float | None = None) -> Profile:
    total = sum(times.values())
    parts = tuple(
        Part(
            name,
            name.removeprefix("head ") if name.startswith("head ") else None,
            Interval(ms, ms, ms),
            ms / total,
            (Operator("Conv", ms, ms / total),),
        )
        for name, ms in times.items()
    )
    return Profile("ONNX Runtime's profile", 100, call_ms or total, parts)


TRUE = profile(
    {"borders": 0.5, "backbone": BACKBONE - 1, **{f"head {t}": ms for t, ms in HEADS.items()}, "between nodes": 0.5}
)


@pytest.mark.parametrize("seed", range(3))
def test_known_backbone_and_heads_are_found_in_their_intervals(seed: int) -> None:
    found = end_to_end(TRUE, samples(seed=seed), TASKS)
    assert found is not None
    truth = {"backbone": BACKBONE, **{f"head {task}": ms for task, ms in HEADS.items()}}
    assert list(found.ms) == list(truth)
    for name, ms in truth.items():
        assert found.ms[name].low <= found.ms[name].value <= found.ms[name].high
        assert found.ms[name].value == pytest.approx(ms, abs=0.5)
        assert found.share[name].value == pytest.approx(ms / TOTAL, abs=0.01)
        assert found.share[name].high - found.share[name].low < 0.04  # what slows all contestants alike cancels
    assert found.agrees
    assert found.largest_difference < TOLERANCE


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        found = end_to_end(TRUE, samples(seed=seed, noise=0.03), TASKS)
        assert found is not None
        held += found.share["head race"].contains(HEADS["race"] / TOTAL)
    assert held >= 54


def test_a_profile_that_whole_calls_contradict_is_said_so() -> None:
    wrong = profile({"backbone": 20.0, "head age": 1.0, "head gender": 2.0, "head race": 15.0})
    where = explain(wrong, samples(), TASKS, 3.0, WORK)
    assert where.end_to_end is not None
    assert not where.end_to_end.agrees
    assert where.end_to_end.largest_difference == pytest.approx(15 / 38 - 5 / 28, abs=0.02)
    assert any("differ by up to 2" in warning for warning in where.warnings)


def test_costly_profiling_is_a_warning() -> None:
    slow = Profile(TRUE.source, TRUE.calls, 1.3 * TOTAL, TRUE.parts)
    (warning,) = explain(slow, samples(), TASKS, 3.0, {}).warnings
    assert warning.startswith("with ONNX Runtime's profile on, a call takes 36.40 ms instead of 2")
    assert explain(TRUE, samples(), TASKS, 3.0, {}).warnings == ()


def test_what_is_lost_is_said_with_figures() -> None:
    measured = samples()
    measured["separate"] = [[1.1 * calls for calls in rounds] for rounds in measured["separate"]]
    where = explain(TRUE, measured, TASKS, 2.94, WORK)
    heads, fixed, caches = where.reasons
    assert heads.startswith("the heads take 28.6 % of a call's time with 3.0 % of the multiply-adds")
    assert heads.endswith("so that sharing can gain 2.43 times, not 2.94")
    assert fixed == (
        "of a shared call's time 1.8 % is outside of every node and 1.8 % is preprocessing in the graph, without multiply-adds: 3 "
        "separate models pay that 3 times"
    )
    assert caches.startswith("in sequence, the separate models take 7")
    assert "with the same multiply-adds: 10." in caches or "with the same multiply-adds: 9." in caches
    assert "% more; the likely cause is " in caches
    assert where.measured == pytest.approx(1.1 * 68 / 28, rel=0.02)
    assert len(explain(TRUE, samples(), TASKS, 2.94, WORK).reasons) == 2
    quiet = explain(profile({"backbone": 97.0, "head age": 3.0}), {"shared": measured["shared"]}, TASKS, 2.94, WORK)
    assert quiet.reasons == ()
    assert quiet.measured is None
    assert quiet.end_to_end is None


def test_whole_calls_that_vary_too_much_are_said_to_check_nothing() -> None:
    rng = np.random.default_rng(0)
    noisy = {
        name: [[calls * rng.uniform(0.7, 1.4) for calls in rounds] for rounds in n] for name, n in samples().items()
    }
    warnings = explain(TRUE, noisy, TASKS, 2.94, WORK).warnings
    assert any(warning.startswith("whole calls vary too much") for warning in warnings)


def test_heads_are_not_judged_where_much_is_unassigned() -> None:
    unknown = profile({"backbone": 50.0, "head age": 1.0, "unassigned": 49.0})
    assert explain(unknown, samples(), TASKS, 2.94, WORK).reasons == ()


def test_the_table_and_the_document_say_the_same() -> None:
    where = explain(TRUE, samples(), TASKS, 2.94, WORK)
    document, text = where.to_dict(), printed(WhereSection(), where)
    assert set(document) == {"source", "calls", "call_ms", "latency_ms", "parts", "end_to_end", "lost"}
    assert sum(part["share"] for part in document["parts"]) == pytest.approx(1)
    for part in document["parts"]:
        assert set(part) == {"name", "task", "ms", "share", "operators"}
        (line,) = [line for line in text.splitlines() if line.startswith(part["name"])]
        assert f"{100 * part['share']:.1f}" in line
        assert f"{part['ms']['value']:.3f}" in line
    assert [part["name"] for part in document["end_to_end"]["parts"]] == [
        "backbone",
        *(f"head {task}" for task in TASKS),
    ]
    assert set(document["lost"]) == {"ideal", "bytes", "measured", "reasons"}
    assert "whole calls, %" in text
    assert not text.endswith("\n")


def test_contestants_with_surplus_rounds_are_cut_to_the_common_ones() -> None:
    found = samples()
    longer = {**found, "shared": [[*rounds, np.full(5, 1e6)] for rounds in found["shared"]]}
    assert locations(longer)["shared"] == locations(found)["shared"]
    with pytest.raises(ValueError, match="no round in common"):
        locations({"a": [[]], "b": [[np.ones(3)]]})


def test_a_difference_of_nothing_has_an_interval_about_zero() -> None:
    found = samples(heads={"age": 0.0, "gender": 0.0})
    figures = derived(found, lambda one: {"head": one["shared:age"] - one["shared"]})
    assert figures["head"].low < 0 < figures["head"].high
    assert figures["head"].value == pytest.approx(location(found["shared:age"]) - location(found["shared"]))


def test_a_real_artifact_end_to_end(make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "SLOT_S", 0.02)
    settings = Settings(("CPU",), 1)
    pair = find_pair(make_bundle(work=4), "fp32", ("CPU",))
    batch = make_batch(pair, 2, 0)
    hosts = {spec.name: LocalHost(spec) for spec in chosen_specs(pair, settings, without=["concurrent"])}
    try:
        measured = {name: [[host.run(slot, batch, 0.01) for _ in range(3)]] for name, host in hosts.items()}
        where = measure_where(hosts["shared"], batch, measured, ideal=3.0, multiply_adds=WORK)
    finally:
        for host in hosts.values():
            host.close()
    assert sum(part.share for part in where.profile.parts) == pytest.approx(1)
    assert where.end_to_end is not None
    assert set(where.end_to_end.ms) == {"backbone", "head age", "head gender", "head race"}
    assert where.measured is not None
    assert "where the time goes" in printed(WhereSection(), where)


def test_the_sections_measure_by_the_manifest(
    make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "SLOT_S", 0.01)
    pair = find_pair(make_bundle(work=1), "fp32", ("CPU",))
    assert ideals.multiply_adds(pair) == {}
    recorded = {"multiply_adds": {"backbone": 97, "heads": {"age": 1, "gender": 1, "race": 1}}}
    known = replace(pair, bundle=replace(pair.bundle, manifest=replace(pair.bundle.manifest, sharing=recorded)))
    assert ideals.multiply_adds(known) == WORK
    assert ideals.ideal_weights(pair) == pytest.approx((3 * 82 + 3 + 3 + 9 + 2) / (82 + 3 + 3 + 9 + 2))
    host = LocalHost(chosen_specs(pair, Settings(("CPU",), 1), only=["shared"])[0])
    measurement = Measurement(samples())  # type: ignore[arg-type]
    plan = SimpleNamespace(pair=pair, seed=0, quick=False)
    context = SimpleNamespace(plan=plan, hosts={"shared": host}, batch=make_batch(pair, 1, 0), measurement=measurement)
    context.progress = Progress(quiet=True)
    try:
        found = WhereSection().measure(context, WhereSettings(wanted=True))  # type: ignore[arg-type]
        assert isinstance(found, Where)
        assert found.ideal == pytest.approx((15 + 3 * 6184) / (15 + 6184))
    finally:
        host.close()
    context.hosts = {}
    assert WhereSection().measure(context, WhereSettings(wanted=True)) is None  # type: ignore[arg-type]
    context.batches = {4: measurement}
    pays = BreakEvenSection().measure(context, None)  # type: ignore[arg-type]
    assert isinstance(pays, BreakEven)
    assert pays.count == 2
