"""Several cameras: whose frames run together, whose turn it is, and that each result goes to its source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_deploy.runtime.streams.waiting import Waiting
from tests.runtime.streams.gated import IMAGES, WAIT, Watched, gated

MakeBundle = Callable[..., Path]


def picture(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(IMAGES[0]).save(folder / "frame.png")
    return folder / "frame.png"


@pytest.mark.parametrize(
    ("bundle", "batch", "calls"),
    [
        ({}, None, [1, 1, 3]),
        ({"batch_max": 2}, None, [1, 1, 2, 1]),
        ({"batch": 4}, None, [4, 4, 4]),  # padded
        ({}, 2, [1, 1, 2, 1]),
        ({"batch_max": 2}, 100, [1, 1, 2, 1]),
    ],
    ids=str,
)
def test_frames_that_wait_at_the_same_time_become_one_batch(
    make_bundle: MakeBundle, tmp_path: Path, bundle: dict[str, int], batch: int | None, calls: list[int]
) -> None:
    with gated(make_bundle(**bundle)) as (model, gate):
        expected = model.predict(IMAGES[:5])
        gate.calls.clear()
        while gate.begun.acquire(blocking=False):
            pass
        gate.open.clear()
        with model.stream(batch=batch) as stream:
            stream.submit(IMAGES[0], source="a", tag=0)
            assert gate.begun.acquire(timeout=WAIT)
            second = Watched(picture(tmp_path))
            stream.submit(second, source="b", tag=0)  # the same image
            assert second.seen.wait(WAIT)
            for number, source in ((2, "a"), (3, "b"), (4, "c")):
                stream.submit(IMAGES[number], source=source, tag=number)
            gate.open.set()
            stream.finish()
            results = list(stream)
    assert [count for count, _ in gate.calls] == calls
    assert [(result.source, result.tag) for result in results] == [("a", 0), ("b", 0), ("a", 2), ("b", 3), ("c", 4)]
    for result in results:
        assert result["age"].value == pytest.approx(expected[result.tag]["age"].value, rel=1e-5)
        assert result["race"].label == expected[result.tag]["race"].label


def test_one_bad_frame_does_not_spoil_the_batch_of_the_others(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with gated(make_bundle()) as (model, gate):
        gate.open.clear()
        with model.stream() as stream:
            stream.submit(IMAGES[0], source="a")
            assert gate.begun.acquire(timeout=WAIT)
            second = Watched(picture(tmp_path))
            stream.submit(second, source="a")
            assert second.seen.wait(WAIT)
            for source, frame in (("a", IMAGES[1]), ("b", "absent.png"), ("c", IMAGES[2])):
                stream.submit(frame, source=source)
            gate.open.set()
            stream.finish()
            results = list(stream)
    assert [result.error is None for result in results] == [True, True, True, False, True]
    assert [count for count, _ in gate.calls] == [1, 1, 2]


def sources(waiting: Waiting, most: int) -> list[object]:
    return [frame.source for frame in waiting.take(most) or ()]


def test_sources_take_turns_however_much_one_of_them_sends() -> None:
    waiting = Waiting(100, "oldest")
    for number in range(50):
        waiting.submit(number, "busy", None, None)
    for source in ("b", "c"):
        waiting.submit(0, source, None, None)
        waiting.submit(1, source, None, None)
    assert [sources(waiting, 2) for _ in range(5)] == [["busy", "b"], ["c", "busy"], ["b", "c"], ["busy"], ["busy"]]


def test_each_source_has_a_queue_of_its_own_and_drops_for_itself() -> None:
    waiting = Waiting(2, "oldest")
    for number in range(5):
        waiting.submit(number, "a", None, None)
    waiting.submit(0, "b", None, None)
    assert waiting.dropped == {"a": 3}
    taken = [[(frame.source, frame.image) for frame in waiting.take(10) or ()] for _ in range(2)]
    assert taken == [[("a", 3), ("b", 0)], [("a", 4)]]


def test_frames_of_a_source_keep_their_order_and_numbers_grow() -> None:
    waiting = Waiting(10, "newest")
    for number in range(9):
        waiting.submit(number, number % 3, None, None)
    waiting.finish()
    taken = []
    while (frames := waiting.take(2)) is not None:
        assert len({frame.source for frame in frames}) == len(frames)
        taken += frames
    for source in range(3):
        own = [frame.image for frame in taken if frame.source == source]
        assert own == [source, source + 3, source + 6]
    assert sorted(frame.number for frame in taken) == list(range(9))
