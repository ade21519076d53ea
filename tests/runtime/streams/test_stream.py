from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import ImageError, OptionError, RunError, TaskError
from mtl_deploy.runtime import load as load_model
from mtl_deploy.runtime.streams.result import StreamResult
from tests.runtime.streams.gated import IMAGES, WAIT, Watched, gated

MakeBundle = Callable[..., Path]


def picture(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(IMAGES[0]).save(folder / "frame.png")
    return folder / "frame.png"


def test_results_come_in_order_with_tags_times_and_predictions(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model:
        expected = model.predict(IMAGES)
        with model.stream(drop="wait", results=len(IMAGES)) as stream:
            for number, image in enumerate(IMAGES):
                assert stream.submit(image, tag={"frame": number})
            stream.finish()
            results = list(stream)
    assert [result.number for result in results] == list(range(len(IMAGES)))
    assert [result.tag["frame"] for result in results] == list(range(len(IMAGES)))
    for result, row in zip(results, expected, strict=True):
        assert result.error is None
        assert list(result.predictions) == ["age", "gender", "race"] == [task.name for task in model.tasks]
        assert result.fresh == {"age", "gender", "race"}
        assert result.ages == {}
        assert result["age"].value == pytest.approx(row["age"].value, rel=1e-5)
        assert result["race"].label == row["race"].label
        assert result.submitted <= result.started <= result.done
        assert result.latency == result.done - result.submitted
    assert [result.started for result in results] == sorted(result.started for result in results)


def test_a_callback_gets_each_result_before_the_block_ends(make_bundle: MakeBundle) -> None:
    found: list[StreamResult] = []
    with load_model(make_bundle()) as model, model.stream(drop="wait", callback=found.append) as stream:
        for image in IMAGES:
            stream.submit(image)
        with pytest.raises(OptionError, match="go to its callback"):
            next(iter(stream))
    assert [result.number for result in found] == list(range(len(IMAGES)))
    assert stream.counts.delivered == len(IMAGES)


def test_preparing_running_and_decoding_overlap(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """Three frames are held at once: one in a hook, one in the backend, one in its preparation."""
    decoding, go_on = threading.Event(), threading.Event()

    def hold(result: StreamResult) -> StreamResult:
        decoding.set()
        assert go_on.wait(WAIT)
        return result

    last = Watched(picture(tmp_path))
    with gated(make_bundle()) as (model, gate), model.stream(hooks=[hold], queue=3) as stream:
        stream.submit(IMAGES[0])
        assert decoding.wait(WAIT)
        assert gate.begun.acquire(timeout=WAIT)
        gate.open.clear()
        stream.submit(IMAGES[1])
        assert gate.begun.acquire(timeout=WAIT)
        stream.submit(last)
        assert last.seen.wait(WAIT)
        assert not go_on.is_set()
        gate.open.set()
        go_on.set()
        stream.finish()
        assert [result.error for result in stream] == [None] * 3


def held_with_two_waiting(stream: Any, gate: Any, folder: Path) -> None:
    """Submit frames 0 to 3: the first runs, the second is prepared, two wait."""
    gate.open.clear()
    stream.submit(IMAGES[0], tag=0)
    assert gate.begun.acquire(timeout=WAIT)
    second = Watched(picture(folder))
    stream.submit(second, tag=1)
    assert second.seen.wait(WAIT)
    assert stream.submit(IMAGES[2], tag=2)
    assert stream.submit(IMAGES[3], tag=3)


@pytest.mark.parametrize(("drop", "taken", "tags"), [("oldest", True, [0, 1, 3, 4]), ("newest", False, [0, 1, 2, 3])])
def test_what_is_dropped_when_too_many_wait(
    make_bundle: MakeBundle, tmp_path: Path, drop: Any, taken: bool, tags: list[int]
) -> None:
    with gated(make_bundle()) as (model, gate), model.stream(drop=drop, queue=2) as stream:
        held_with_two_waiting(stream, gate, tmp_path)
        assert stream.submit(IMAGES[4], tag=4) is taken
        gate.open.set()
        stream.finish()
        assert [result.tag for result in stream] == tags
        counts = stream.counts
    assert (counts.submitted, counts.delivered, counts.failed, counts.dropped) == (5, 4, 0, {None: 1})


def test_whoever_submits_can_wait_for_room(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with gated(make_bundle()) as (model, gate), model.stream(drop="wait", queue=2) as stream:
        held_with_two_waiting(stream, gate, tmp_path)
        assert stream.submit(IMAGES[4], tag="too late", timeout=0) is False
        assert stream.counts.dropped == {None: 1}
        taken: list[bool] = []
        thread = threading.Thread(target=lambda: taken.append(stream.submit(IMAGES[4], tag=4)))
        thread.start()
        assert taken == []  # there is no room before the gate opens, however long this takes
        gate.open.set()
        thread.join(WAIT)
        stream.finish()
        results = list(stream)
        counts = stream.counts
    assert [result.tag for result in results] == [0, 1, 2, 3, 4]
    assert [result.number for result in results] == [0, 1, 2, 3, 5]
    assert (counts.submitted, counts.delivered, counts.dropped) == (6, 5, {None: 1})
    assert taken == [True]


def test_an_error_is_the_result_of_its_frame_alone(make_bundle: MakeBundle, tmp_path: Path) -> None:
    frames = [IMAGES[0], np.zeros((8, 8, 3)), tmp_path / "absent.png", IMAGES[:2], "nonsense", None, IMAGES[1]]
    with load_model(make_bundle()) as model:
        with model.stream(drop="wait", results=len(frames)) as stream:
            for frame in frames:
                stream.submit(frame)
            stream.finish()
            results = list(stream)
        assert results[-1]["age"] == model.predict(IMAGES[1])["age"]
    assert [result.error is None for result in results] == [True, *[False] * 5, True]
    for result, words in zip(
        results[1:-1], ["float64", "absent.png", "batch of 2", "nonsense", "NoneType"], strict=True
    ):
        assert isinstance(result.error, ImageError)
        assert words in str(result.error)
        assert (dict(result.predictions), result.fresh) == ({}, frozenset())
        assert result.submitted <= result.started <= result.done
        with pytest.raises(ImageError, match=words):
            result["age"]
    assert stream.counts.failed == 5


def test_a_call_that_fails_is_the_error_of_its_frames(make_bundle: MakeBundle) -> None:
    with gated(make_bundle()) as (model, gate):
        gate.failing = lambda call: RunError("the device is busy") if call == 1 else None
        with model.stream(drop="wait") as stream:
            for image in IMAGES[:3]:
                stream.submit(image)
            stream.finish()
            errors = [str(result.error) for result in stream]
    assert errors == ["None", "the device is busy", "None"]


def test_a_hook_that_fails_or_returns_nothing_is_the_error_of_its_frame(make_bundle: MakeBundle) -> None:
    def hook(result: StreamResult) -> Any:
        if result.number == 1:
            raise ValueError("tracking lost")
        return None if result.number == 2 else result

    with load_model(make_bundle()) as model, model.stream(drop="wait", hooks=[hook]) as stream:
        for image in IMAGES[:4]:
            stream.submit(image, tag="x")
        stream.finish()
        results = list(stream)
    assert [type(result.error) for result in results] == [type(None), ValueError, TypeError, type(None)]
    assert {result.tag for result in results} == {"x"}
    assert "return a StreamResult" in str(results[2].error)


def test_a_callbacks_error_is_raised_at_the_end_and_the_others_are_delivered(make_bundle: MakeBundle) -> None:
    seen: list[int] = []

    def callback(result: StreamResult) -> None:
        seen.append(result.number)
        if result.number in (1, 2):
            raise ValueError(f"no room for {result.number}")

    with load_model(make_bundle()) as model:
        stream = model.stream(drop="wait", callback=callback)
        for image in IMAGES[:4]:
            stream.submit(image)
        with pytest.raises(ValueError, match="no room for 1"):
            stream.__exit__(None, None, None)
    assert seen == [0, 1, 2, 3]


def test_results_that_nobody_collects_pause_the_stream_and_closing_ends_it(make_bundle: MakeBundle) -> None:
    with gated(make_bundle()) as (model, gate):
        with model.stream(results=1) as stream:
            for image in IMAGES:
                stream.submit(image)
            assert stream.result(WAIT) is not None
        assert len(gate.calls) < len(IMAGES)
        assert list(stream) == []
        with pytest.raises(RunError, match="finished or closed"):
            stream.submit(IMAGES[0])
        stream.close()


def test_closing_from_a_callback_and_twice(make_bundle: MakeBundle) -> None:
    seen: list[int] = []

    def callback(result: StreamResult) -> None:
        seen.append(result.number)
        stream.close()

    with load_model(make_bundle()) as model:
        stream = model.stream(callback=callback)
        stream.submit(IMAGES[0])
        stream.finish()
        stream.join()
        stream.close()
    assert seen == [0]


def test_a_closed_stream_delivers_nothing_more_of_a_batch_either(make_bundle: MakeBundle, tmp_path: Path) -> None:
    seen: list[Any] = []

    def callback(result: StreamResult) -> None:
        seen.append(result.tag)
        if result.tag == 2:
            stream.close()

    with gated(make_bundle()) as (model, gate):
        stream = model.stream(callback=callback, queue=1)
        gate.open.clear()
        stream.submit(IMAGES[0], tag=0)
        assert gate.begun.acquire(timeout=WAIT)
        second = Watched(picture(tmp_path))
        stream.submit(second, tag=1)
        assert second.seen.wait(WAIT)
        for tag, source in ((2, "a"), (3, "b"), (4, "c")):
            stream.submit(IMAGES[tag], source=source, tag=tag)
        stream.finish()
        gate.open.set()
        stream.join()
        assert [count for count, _ in gate.calls] == [1, 1, 3]
    assert seen == [0, 1, 2]
    assert stream.counts.delivered == 3


def test_what_no_frame_can_be_blamed_for_ends_the_stream_with_an_error(make_bundle: MakeBundle) -> None:
    with gated(make_bundle()) as (model, gate):
        gate.failing = lambda call: SystemExit("stop")
        stream = model.stream()
        stream.submit(IMAGES[0])
        for _ in range(2):
            with pytest.raises(RunError, match="broke down"):
                list(stream)
        with pytest.raises(RunError, match="broke down"):
            stream.submit(IMAGES[0])
        with pytest.raises(RunError, match="broke down"):
            stream.close()


def test_an_error_in_the_block_is_the_one_that_is_raised(make_bundle: MakeBundle) -> None:
    def fail(result: StreamResult) -> None:
        raise ValueError("the callback's")

    with load_model(make_bundle()) as model:
        with pytest.raises(KeyError, match="mine"), model.stream(callback=fail) as stream:  # noqa: PT012 - the block is tested
            stream.submit(IMAGES[0])
            raise KeyError("mine")
        assert list(threading.enumerate()) == [
            thread for thread in threading.enumerate() if "mtl-stream" not in thread.name
        ]


def test_a_loop_can_submit_and_collect_in_turn(make_bundle: MakeBundle) -> None:
    found: list[int] = []
    with load_model(make_bundle()) as model, model.stream(drop="wait") as stream:
        for image in IMAGES:
            stream.submit(image)
            found += [result.number for result in stream.ready()]
        stream.finish()
        found += [result.number for result in stream]
        assert stream.result(0) is None
    assert found == list(range(len(IMAGES)))


def test_images_of_several_channels_files_and_tuples_are_frames_too(make_bundle: MakeBundle, tmp_path: Path) -> None:
    from PIL import Image

    with load_model(make_bundle()) as model, model.stream(drop="wait") as stream:
        file = picture(tmp_path)
        for frame in (IMAGES[0], file, Image.open(file)):
            stream.submit(frame)
        stream.finish()
        assert [result["age"].value for result in stream] == [model.predict(IMAGES[0])["age"].value] * 3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"queue": 0}, OptionError, "queue=0"),
        ({"results": 0}, OptionError, "results=0"),
        ({"batch": 0}, OptionError, "batch=0"),
        ({"queue": 1.5}, OptionError, "whole number"),
        ({"drop": "all"}, OptionError, "'oldest', 'newest', 'wait'"),
        ({"every": {"shoe": 2}}, TaskError, "'shoe'; this stream computes age, gender, race"),
        ({"every": {"race": 2}, "tasks": ["age"]}, TaskError, "computes age"),
        ({"every": {"race": 0}}, OptionError, "'race': 0"),
        ({"every": {"race": 2.5}}, OptionError, "whole number of frames"),
        ({"tasks": "age"}, TaskError, "one string"),
        ({"hooks": print}, OptionError, "list of callables"),
        ({"hooks": [3]}, OptionError, "list of callables"),
        ({"hooks": {"a": print}}, OptionError, "list of callables"),
        ({"hooks": 3}, OptionError, "list of callables"),
        ({"every": 10}, OptionError, "every=10: name the tasks, as in {'age': 10}"),
        ({"batch": "all"}, OptionError, "batch='all'"),
        ({"callback": 3}, OptionError, "cannot be called"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be_met(
    make_bundle: MakeBundle, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = threading.active_count()
    with load_model(make_bundle()) as model, pytest.raises(error, match=words):
        model.stream(**options)
    assert threading.active_count() == before


def test_a_source_must_be_a_key(make_bundle: MakeBundle) -> None:
    with (
        load_model(make_bundle()) as model,
        model.stream() as stream,
        pytest.raises(OptionError, match="use a name or a number"),
    ):
        stream.submit(IMAGES[0], source=["front"])


def test_a_process_that_leaves_a_stream_open_ends(make_bundle: MakeBundle) -> None:
    code = """
import sys, numpy
from mtl_deploy.runtime import load
stream = load(sys.argv[1]).stream(results=1)
for _ in range(30):
    stream.submit(numpy.zeros((8, 8, 3), numpy.uint8))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(make_bundle())], capture_output=True, text=True, timeout=100, check=True
    )
    assert (result.stdout, result.stderr) == ("", "")
