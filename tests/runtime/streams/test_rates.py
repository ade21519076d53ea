"""A rate for each task: which graph runs, which values are fresh, and how old the others are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.runtime import RunError
from mtl_deploy.runtime import load as load_model
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.streams.rates import Rates
from mtl_deploy.runtime.streams.result import Age
from tests.runtime.streams.gated import IMAGES, gated

MakeBundle = Callable[..., Path]
ALL = ("age", "gender", "race")


def test_a_slow_task_runs_for_every_third_frame_and_keeps_its_value_between(make_bundle: MakeBundle) -> None:
    with gated(make_bundle()) as (model, gate):
        expected = model.predict(IMAGES[:8])
        gate.calls.clear()
        with model.stream(every={"race": 3}, drop="wait") as stream:
            for image in IMAGES[:8]:
                stream.submit(image)
            stream.finish()
            results = list(stream)
    assert [names for _, names in gate.calls] == [ALL if number % 3 == 0 else ("age", "gender") for number in range(8)]
    for number, result in enumerate(results):
        computed = number // 3 * 3
        assert list(result.predictions) == list(ALL)
        np.testing.assert_allclose(
            result["race"].probabilities, expected[computed]["race"].probabilities, rtol=1e-4, atol=1e-6
        )
        assert result["age"].value == pytest.approx(expected[number]["age"].value, rel=1e-5)
        if number == computed:
            assert (result.fresh, result.ages) == (set(ALL), {})
        else:
            seconds = result.submitted - results[computed].submitted
            assert result.fresh == {"age", "gender"}
            assert result.ages == {"race": Age(number - computed, seconds)}


def test_the_graph_that_runs_is_cut_to_what_is_due(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model, model.stream(every={"race": 2, "age": 4}, drop="wait") as stream:
        for image in IMAGES[:5]:
            stream.submit(image)
        stream.finish()
        assert [sorted(result.fresh) for result in stream] == [
            ["age", "gender", "race"],
            ["gender"],
            ["gender", "race"],
            ["gender"],
            ["age", "gender", "race"],
        ]
        assert isinstance(model.backend, OnnxRuntimeBackend)
        assert set(model.backend._sessions) == {frozenset(ALL), frozenset(("gender",)), frozenset(("gender", "race"))}


def test_the_usual_graphs_are_there_before_the_first_frame(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model, model.stream(every={"race": 10}):
        assert isinstance(model.backend, OnnxRuntimeBackend)
        assert set(model.backend._sessions) == {frozenset(ALL), frozenset(("age", "gender"))}


def test_an_engine_computes_all_tasks_and_gives_what_is_due(trt: object, engine_bundle: MakeBundle) -> None:
    with load_model(engine_bundle()) as model:
        assert model.backend.name == "tensorrt"
        expected = model.predict(IMAGES[:4])
        with model.stream(every={"race": 3}, drop="wait") as stream:
            for image in IMAGES[:4]:
                stream.submit(image)
            stream.finish()
            results = list(stream)
    assert ["race" in result.fresh for result in results] == [True, False, False, True]
    assert [result["race"] for result in results] == [expected[number]["race"] for number in (0, 0, 0, 3)]
    assert [result["age"] for result in results] == [row["age"] for row in expected]


def test_a_frame_for_which_nothing_is_due_does_not_run(make_bundle: MakeBundle) -> None:
    with gated(make_bundle()) as (model, gate), model.stream(every=dict.fromkeys(ALL, 2), drop="wait") as stream:
        for image in IMAGES[:4]:
            stream.submit(image)
        stream.finish()
        results = list(stream)
    assert len(gate.calls) == 2
    assert [bool(result.fresh) for result in results] == [True, False, True, False]
    assert results[1].predictions == results[0].predictions
    assert results[1].ages["age"].frames == 1


@pytest.mark.parametrize("fails", ["preparing", "running"])
def test_what_was_due_for_a_frame_that_failed_is_due_for_the_next(make_bundle: MakeBundle, fails: str) -> None:
    with gated(make_bundle()) as (model, gate):
        frames = list(IMAGES[:5])
        if fails == "preparing":
            frames[2] = np.zeros((8, 8, 3))
        else:
            gate.failing = lambda call: RunError("busy") if call == 2 else None
        with model.stream(every={"race": 2}, drop="wait") as stream:
            for frame in frames:
                stream.submit(frame)
            stream.finish()
            results = list(stream)
    assert [result.error is None for result in results] == [True, True, False, True, True]
    assert ["race" in result.fresh for result in results] == [True, False, False, True, False]


def test_a_task_without_any_value_yet_is_missing(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model, model.stream(tasks=["race", "age"], drop="wait") as stream:
        stream.submit(np.zeros((8, 8, 3)))
        stream.submit(IMAGES[0])
        stream.finish()
        bad, good = stream
    assert dict(bad.predictions) == {}
    assert list(good.predictions) == ["age", "race"]


def test_sources_have_rates_of_their_own_and_a_batch_falls_into_step() -> None:
    rates = Rates(ALL, {"race": 3})

    def ran(*sources: str) -> bool:
        due = rates.due(sources)
        for source in sources:
            rates.ran(source, due)
        return "race" in due

    assert [ran("a"), ran("a")] == [True, False]
    assert ran("b")  # its first
    assert [ran("a", "b"), ran("a", "b")] == [False, True]  # due for a alone
    assert [ran("b", "a"), ran("a", "b"), ran("a", "b")] == [False, False, True]
    assert [ran("a"), ran("a"), ran("b")] == [False, False, False]
    assert ran("a")
    assert rates.due([]) == []
