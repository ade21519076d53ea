"""Frames that come with boxes: a result for each box, and values that follow an object by its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import ImageError, OptionError, Prediction
from mtl_deploy.runtime import load as load_model
from mtl_deploy.runtime.streams import ExponentialSmoother, MajorityVote, StreamResult
from mtl_deploy.runtime.streams.rates import LastValues, Rates
from mtl_deploy.runtime.streams.tracks import KEPT_SECONDS, Track
from tests.runtime.streams.gated import IMAGES, gated

MakeBundle = Callable[..., Path]
FRAME = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
BOXES = [(0, 0, 8, 8), (10, 4, 12, 9), (20, 10, 12, 14), (1, 12, 5, 5), (16, 0, 16, 24)]


@pytest.mark.parametrize("bundle", [{}, {"batch_max": 2}, {"batch": 4}], ids=str)
def test_each_box_has_the_result_that_predict_gives(make_bundle: MakeBundle, bundle: dict[str, int]) -> None:
    with gated(make_bundle(**bundle)) as (model, gate):
        expected = model.predict(FRAME, boxes=BOXES, margin=0.1)
        whole = model.predict(FRAME)
        gate.calls.clear()
        with model.stream(drop="wait") as stream:
            stream.submit(FRAME, tag="boxes", boxes=iter(BOXES), margin=0.1, keys="abcde")  # type: ignore[arg-type]
            stream.submit(FRAME, tag="none", boxes=[])
            stream.submit(FRAME, tag="whole")
            stream.finish()
            boxed, none, plain = stream
    assert [count for count, _ in gate.calls] == {2: [2, 2, 1, 1], 4: [4, 4, 4]}.get(
        bundle.get("batch_max", bundle.get("batch", 0)), [5, 1]
    )
    assert boxed.boxes is not None
    assert [(one.box, one.key) for one in boxed.boxes] == list(zip(BOXES, "abcde", strict=True))
    for one, other in zip(boxed.boxes, expected, strict=True):
        assert one["age"].value == pytest.approx(other["age"].value, rel=1e-5)
        assert one["race"].label == other["race"].label
        assert (one.number, one.tag, one.fresh) == (0, "boxes", {"age", "gender", "race"})
    assert dict(boxed.predictions) == {}
    assert (none.boxes, dict(none.predictions), none.error) == ((), {}, None)
    assert (plain.boxes, plain.box) == (None, None)
    assert plain["age"].value == pytest.approx(whole["age"].value, rel=1e-5)


def test_boxes_of_several_cameras_run_together(make_bundle: MakeBundle) -> None:
    with gated(make_bundle()) as (model, gate):
        expected = [model.predict(image, boxes=boxes) for image, boxes in ((FRAME, BOXES[:3]), (IMAGES[0], BOXES[:1]))]
        gate.open.clear()
        with model.stream() as stream:
            stream.submit(FRAME, source="first", boxes=BOXES[:1])
            stream.submit(FRAME, source="a", boxes=BOXES[:3])
            stream.submit(IMAGES[0], source="b", boxes=BOXES[:1])
            gate.open.set()
            stream.finish()
            found = {result.source: result.boxes for result in stream}
    for source, rows in zip("ab", expected, strict=True):
        assert [one["age"].value for one in found[source] or ()] == pytest.approx([row["age"].value for row in rows])


def test_hooks_follow_an_object_by_its_key(make_bundle: MakeBundle) -> None:
    seen: list[tuple[Any, Any]] = []

    def note(result: StreamResult) -> StreamResult:
        seen.append((result.key, result.box))
        return result

    with load_model(make_bundle()) as model:
        one, two = (row["age"].value for row in model.predict(FRAME, boxes=BOXES[:2]))
        hooks = {None: [note, ExponentialSmoother(0.5)], (None, "plain"): [note]}
        with model.stream(hooks=hooks, drop="wait") as stream:
            for first, second in (("a", "b"), ("b", "a"), ("a", "plain")):
                stream.submit(FRAME, boxes=BOXES[:2], keys=[first, second])
            for _ in range(2):
                stream.submit(FRAME, boxes=BOXES[1::-1])  # without keys they are nobody's
            stream.finish()
            found = [[box["age"].value for box in result.boxes or ()] for result in stream]
    half = (one + two) / 2
    assert found[0] == pytest.approx([one, two], rel=1e-5)
    assert found[1] == pytest.approx([half, half], rel=1e-5)
    assert found[2] == pytest.approx([(half + one) / 2, two], rel=1e-5)
    assert found[3] == pytest.approx([two, one], rel=1e-5)
    assert found[3] == found[4]
    assert seen[:2] == [("a", BOXES[0]), ("b", BOXES[1])]
    assert len(seen) == 10


def test_a_hook_that_fails_for_one_box_spoils_no_other(make_bundle: MakeBundle) -> None:
    def fail(result: StreamResult) -> StreamResult:
        if result.key == 1:
            raise ValueError("no such track")
        return replace(result, tag="seen")

    with load_model(make_bundle()) as model, model.stream(hooks=[fail], drop="wait") as stream:
        stream.submit(FRAME, boxes=BOXES[:3], keys=range(3))
        stream.finish()
        (result,) = stream
        assert stream.counts.failed == 1
    assert result.error is None
    assert [str(one.error) for one in result.boxes or ()] == ["None", "no such track", "None"]
    assert [one.tag for one in result.boxes or ()] == ["seen", None, "seen"]


def test_a_slow_task_follows_an_object_and_is_computed_for_a_new_one(make_bundle: MakeBundle) -> None:
    with gated(make_bundle()) as (model, gate), model.stream(every={"race": 4}, drop="wait") as stream:
        gate.calls.clear()
        expected = [row["race"].label for row in model.predict(FRAME, boxes=BOXES[:2])]
        gate.calls.clear()
        for keys in ("ab", "ba", "ac", "ca"):
            stream.submit(FRAME, boxes=BOXES[:2], keys=keys)
        for _ in range(2):
            stream.submit(FRAME, boxes=BOXES[:2])
        stream.finish()
        _, second, third, fourth, *nobody = (result.boxes or () for result in stream)
    assert ["race" in tasks for _, tasks in gate.calls] == [True, False, True, False, True, False]
    assert [one["race"].label for one in second] == expected[::-1]  # of b and a, wherever they are
    assert [one.ages["race"].frames for one in second] == [1, 1]
    assert ["race" in one.fresh for one in third] == [True, True]
    assert [one.ages["race"].frames for one in fourth] == [1, 1]
    assert ["race" in one.predictions for boxes in nobody for one in boxes] == [True, True, False, False]


def test_a_box_outside_is_the_frames_error(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model, model.stream(every={"race": 2}, drop="wait") as stream:
        stream.submit(FRAME, boxes=[BOXES[0], (100, 100, 5, 5)], keys=[1, 2])
        stream.submit(FRAME, boxes=BOXES[:2], keys=[1, 2])
        stream.finish()
        bad, good = stream
    assert isinstance(bad.error, ImageError)
    assert "boxes[1]" in str(bad.error)
    assert bad.boxes == ()
    assert [one.fresh for one in good.boxes or ()] == [{"age", "gender", "race"}] * 2


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"margin": 0.2}, "margin= belongs to boxes"),
        ({"keys": [1]}, "keys= belongs to boxes"),
        ({"boxes": BOXES[:2], "keys": [1]}, "1 keys for 2 boxes"),
        ({"boxes": BOXES[:2], "keys": [1, 1]}, "a key of its own"),
        ({"boxes": BOXES[:1], "keys": [[1]]}, "unhashable"),
        ({"layout": "hsv"}, "choose rgb, bgr, gray"),
    ],
)
def test_what_does_not_fit_together_is_refused_at_once(make_bundle: MakeBundle, how: Any, words: str) -> None:
    with load_model(make_bundle()) as model, model.stream() as stream:
        with pytest.raises(OptionError, match=words):
            stream.submit(FRAME, **how)
        assert stream.counts.submitted == 0


def test_a_frame_may_have_a_layout_of_its_own(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle(), layout="bgr") as model, model.stream(drop="wait") as stream:
        expected = model.predict(FRAME, layout="rgb")["age"].value
        stream.submit(FRAME, layout="rgb")
        stream.submit(np.ascontiguousarray(FRAME[..., ::-1]))
        stream.submit(FRAME, layout="rgb", boxes=[(0, 0, 32, 24)])
        stream.finish()
        first, second, third = stream
    assert first["age"].value == second["age"].value == pytest.approx(expected, rel=1e-5)
    assert (third.boxes or ())[0]["age"].value == pytest.approx(expected, rel=1e-5)


def test_objects_that_have_gone_are_forgotten_and_sources_are_not() -> None:
    rates, last = Rates(["age"], {"age": 100}), LastValues(["age"])
    smooth, vote = ExponentialSmoother(0.5), MajorityVote(3)
    age = Prediction("age", "regression", 1.0)
    race = Prediction("race", "multiclass", 1, "b", np.float32([0.2, 0.8]))
    for number in range(5000):
        now = number / 10  # seconds
        for key in (None, "stays", number):
            identity = Track("camera", key)
            rates.ran(identity, ["age"], now)
            last.completed(identity, {"age": age}, now)
            result = StreamResult(number, "camera", None, {"age": age, "race": race}, frozenset(("age", "race")))
            vote(smooth(replace(result, submitted=now, box=(0, 0, 1, 1) if key else None, key=key)))
    most = 10 * 1.25 * KEPT_SECONDS + 3
    for held in (rates._last, rates._frames, last._values, last._frames, smooth._state, vote._votes):
        assert len(held) <= most
        assert {Track("camera", None), Track("camera", "stays")} <= set(held)
    smooth.forget("camera", "stays")
    assert Track("camera", "stays") not in smooth._state
    assert Track("camera", None) in smooth._state
    vote.forget("camera")
    assert not vote._votes
