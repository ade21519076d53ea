from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import OptionError, Prediction
from mtl_deploy.runtime import load as load_model
from mtl_deploy.runtime.streams.hooks import ExponentialSmoother, MajorityVote
from mtl_deploy.runtime.streams.result import StreamResult
from tests.runtime.streams.gated import IMAGES

MakeBundle = Callable[..., Path]


def age(value: Any, *, finite: bool = True) -> Prediction:
    return Prediction("age", "regression", value, unit="years", finite=finite)


def race(index: int) -> Prediction:
    if index < 0:
        return Prediction("race", "multiclass", -1, None, np.full(3, np.nan, np.float32), finite=False)
    return Prediction("race", "multiclass", index, "abc"[index], np.float32([0.2, 0.3, 0.5]))


def result(*predictions: Prediction, source: object = None, at: float = 0.0, fresh: bool = True) -> StreamResult:
    named = {prediction.task: prediction for prediction in predictions}
    return StreamResult(0, source, None, named, frozenset(named if fresh else ()), submitted=at)


def test_a_smoother_follows_with_its_weight() -> None:
    smooth = ExponentialSmoother(0.25)
    found = [smooth(result(age(value)))["age"] for value in (10.0, 20.0, 20.0, 0.0)]
    assert [one.value for one in found] == pytest.approx([10, 12.5, 14.375, 10.78125])
    assert {one.unit for one in found} == {"years"}


def test_a_time_constant_does_not_depend_on_how_many_frames_there_are() -> None:
    rare, often = ExponentialSmoother(seconds=2.0), ExponentialSmoother(seconds=2.0)
    for smooth in (rare, often):
        smooth(result(age(0.0), at=0))
    for at in (0.1, 0.35, 0.9):
        often(result(age(8.0), at=at))
    found = [smooth(result(age(8.0), at=1.0))["age"].value for smooth in (rare, often)]
    assert found == pytest.approx([8 * (1 - math.exp(-0.5))] * 2)


def test_arrays_keep_their_type_and_one_of_another_shape_begins_anew() -> None:
    smooth = ExponentialSmoother(0.5)
    first = np.float32([1, 2])
    smooth(result(age(first)))
    found = smooth(result(age(np.float32([3, 6]))))["age"].value
    np.testing.assert_array_equal(found, np.float32([2, 4]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(first, [1, 2])  # the application's own array
    assert smooth(result(age(5.0)))["age"].value == 5.0


def test_a_stale_value_counts_once_and_sources_do_not_mix() -> None:
    smooth = ExponentialSmoother(0.5)
    smooth(result(age(0.0), source="a"))
    assert smooth(result(age(8.0), source="a"))["age"].value == 4
    for _ in range(3):
        assert smooth(result(age(8.0), source="a", fresh=False))["age"].value == 4
    assert smooth(result(age(100.0), source="b"))["age"].value == 100
    assert smooth(result(age(8.0), source="a"))["age"].value == 6
    smooth.forget("a")
    assert smooth(result(age(1.0), source="a"))["age"].value == 1
    assert smooth(result(age(200.0), source="b"))["age"].value == 150


def test_what_is_not_finite_is_passed_on_and_forgotten() -> None:
    smooth = ExponentialSmoother(0.5)
    smooth(result(age(0.0)))
    found = smooth(result(age(math.nan, finite=False)))["age"]
    assert math.isnan(found.value)
    assert not found.finite
    assert smooth(result(age(2.0)))["age"].value == 1


def test_only_what_can_be_averaged_is_smoothed_and_only_classes_vote() -> None:
    both = result(age(3.0), race(1), Prediction("box", "raw", np.float32([1, 2])))
    for hook in (ExponentialSmoother(0.5), MajorityVote(3)):
        hook(result(age(1.0), race(1), Prediction("box", "raw", np.float32([9, 9]))))
        found = hook(both)
        assert found["box"] == both["box"]
        assert found["race"].value == 1
        assert found["age"].value == (2 if isinstance(hook, ExponentialSmoother) else 3)


def votes(hook: MajorityVote, *indices: int, **options: Any) -> list[tuple[int, str | None]]:
    found = [hook(result(race(index), **options))["race"] for index in indices]
    return [(one.value, one.label) for one in found]


def test_the_class_that_most_of_the_last_frames_chose_wins() -> None:
    assert [label for _, label in votes(MajorityVote(3), 0, 0, 1, 0, 1, 1, 2, 2)] == list("aaaabbbc")
    assert votes(MajorityVote(1), 0, 1, 2) == [(0, "a"), (1, "b"), (2, "c")]


def test_of_two_classes_that_are_level_the_later_one_wins() -> None:
    assert [label for _, label in votes(MajorityVote(4), 0, 1, 0, 1)] == ["a", "b", "a", "b"]


def test_a_stale_class_votes_once_and_an_unknown_one_not_at_all() -> None:
    hook = MajorityVote(5)
    votes(hook, 0, 0)
    assert votes(hook, -1) == [(-1, None)]
    assert votes(hook, 1) == [(0, "a")]
    assert votes(hook, 1, 1, 1, fresh=False) == [(0, "a")] * 3
    assert votes(hook, 1, 1, source="other") == [(1, "b")] * 2
    hook.forget(None)
    assert votes(hook, 2) == [(2, "c")]


def test_the_probability_is_that_of_the_winner_in_this_frame() -> None:
    hook = MajorityVote(3)
    votes(hook, 0, 0)
    found = hook(result(race(2)))["race"]
    assert found.label == "a"
    assert found.probability == pytest.approx(0.2)


def test_tasks_can_be_chosen() -> None:
    smooth = ExponentialSmoother(0.5, tasks=["other"])
    smooth(result(age(0.0)))
    assert smooth(result(age(8.0)))["age"].value == 8


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (ExponentialSmoother(0.5, tasks=["race"]), "'race' is multiclass, with values that cannot be averaged"),
        (MajorityVote(3, tasks=["race", "age"]), "'age' is regression, with no single class to vote for"),
    ],
)
def test_a_task_that_is_named_and_does_not_fit_is_an_error(hook: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        hook(result(age(1.0), race(1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExponentialSmoother(),
        lambda: ExponentialSmoother(0.5, seconds=1),
        lambda: ExponentialSmoother(0),
        lambda: ExponentialSmoother(1.5),
        lambda: ExponentialSmoother(math.nan),
        lambda: ExponentialSmoother(seconds=0),
        lambda: ExponentialSmoother(seconds=math.inf),
        lambda: ExponentialSmoother(0.5, tasks="age"),
        lambda: MajorityVote(0),
        lambda: MajorityVote(2.5),  # type: ignore[arg-type]
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(OptionError):
        make()


def test_a_stream_passes_results_through_its_hooks_in_order(make_bundle: MakeBundle) -> None:
    order: list[tuple[str, int]] = []

    def note(name: str) -> Callable[[StreamResult], StreamResult]:
        def hook(found: StreamResult) -> StreamResult:
            order.append((name, found.number))
            return found

        return hook

    with load_model(make_bundle()) as model:
        raw = [row["age"].value for row in model.predict(IMAGES[:3])]
        hooks = [note("first"), ExponentialSmoother(0.5), MajorityVote(3), note("last")]
        with model.stream(hooks=hooks, drop="wait") as stream:
            for image in IMAGES[:3]:
                stream.submit(image)
            stream.finish()
            found = [one["age"].value for one in stream]
    assert found == pytest.approx([raw[0], (raw[0] + raw[1]) / 2, (raw[0] + raw[1]) / 4 + raw[2] / 2], rel=1e-5)
    assert order == [(name, number) for number in range(3) for name in ("first", "last")]


def test_a_source_can_have_hooks_of_its_own(make_bundle: MakeBundle) -> None:
    hooks: Mapping[Any, Any] = {"smooth": [ExponentialSmoother(0.5)]}
    with load_model(make_bundle()) as model, model.stream(hooks=hooks, drop="wait") as stream:
        raw = [row["age"].value for row in model.predict(IMAGES[:2])]
        for source in ("smooth", "plain"):
            for image in IMAGES[:2]:
                stream.submit(image, source=source)
        stream.finish()
        found = {(one.source, one.number): one["age"].value for one in stream}
    assert found["smooth", 1] == pytest.approx(sum(raw) / 2, rel=1e-5)
    assert found["plain", 3] == pytest.approx(raw[1], rel=1e-5)


def test_stale_values_are_smoothed_from_what_was_computed_not_from_what_was_smoothed(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model:
        raw = [row["age"].value for row in model.predict(IMAGES[:5])]
        with model.stream(every={"age": 2}, hooks=[ExponentialSmoother(0.5)], drop="wait") as stream:
            for image in IMAGES[:5]:
                stream.submit(image)
            stream.finish()
            found = [one["age"].value for one in stream]
    second = (raw[0] + raw[2]) / 2
    assert found == pytest.approx([raw[0], raw[0], second, second, (second + raw[4]) / 2], rel=1e-5)
