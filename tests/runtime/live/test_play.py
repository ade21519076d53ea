"""The loop over videos and live sources."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import OptionError, RunError, load
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.live import play as player
from mtl_deploy.runtime.live.play import PlayOptions, Shot, play
from mtl_deploy.runtime.live.raw import raw_format
from mtl_deploy.runtime.streams import StreamResult
from tests.clips import clip, frames_of, source
from tests.runtime.live.servers import Camera
from tests.runtime.streams.gated import gated

pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")

MakeBundle = Callable[..., Path]


class Told:
    """Keeps what it is told, and ends the loop by an exception of its own."""

    class EnoughError(Exception):
        pass

    def __init__(self, until: Callable[[list[StreamResult]], bool] = lambda _: False) -> None:
        self.results: list[StreamResult] = []
        self.shots: list[Shot] = []
        self.rates: list[float] = []
        self._until = until

    def __call__(self, result: StreamResult, shot: Shot, rate: float) -> None:
        self.results.append(result)
        self.shots.append(shot)
        self.rates.append(rate)
        if self._until(self.results):
            raise self.EnoughError


def test_frames_are_predicted_drawn_and_written(tmp_path: Path, make_bundle: MakeBundle) -> None:
    clip(tmp_path / "in.mp4")
    told = Told()
    with load(make_bundle()) as model:
        count = play(model, [source(tmp_path / "in.mp4")], told, PlayOptions(show=tmp_path / "out.mp4"))
        expected = [model.predict(frame)["age"].value for frame in frames_of(tmp_path / "in.mp4")]
    assert count == 7
    assert [shot.number for shot in told.shots] == list(range(1, 8))
    assert [result["age"].value for result in told.results] == pytest.approx(expected, rel=1e-4)
    assert told.rates[0] == 0.0
    assert told.rates[-1] > 0.0
    shown = frames_of(tmp_path / "out.mp4")
    assert len(shown) == 7
    assert shown[0].shape[0] > 320  # enlarged, with the text below
    corner = [frame[:40, :200].astype(int) for frame in shown]
    assert np.abs(corner[3] - corner[0]).mean() > 5  # the second frame on has the frame rate on it
    assert shown[0][100, 100, 0] > 150  # red stays red


def test_without_a_picture_frames_are_only_predicted(tmp_path: Path, make_bundle: MakeBundle) -> None:
    clip(tmp_path / "in.avi", count=3)
    with load(make_bundle()) as model:
        assert play(model, [source(tmp_path / "in.avi")], Told(), PlayOptions(every={"race": 2})) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.avi", "tiny.mtl"]


def test_a_camera_that_drops_the_connection_is_opened_again(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mtl_deploy.live")
    with load(make_bundle()) as model, Camera(frames=5) as camera:
        front = source(camera.url.replace("http://", "http://me:secret@"))
        told = Told(lambda results: len(results) > 11)
        with pytest.raises(Told.EnoughError):
            play(model, [front], told, PlayOptions(reconnect=0.1, drop="wait"))
        assert camera.connections == 3
    assert [shot.number for shot in told.shots] == list(range(1, 13))
    ages = [result["age"].value for result in told.results]
    assert ages[:5] == pytest.approx(ages[5:10])
    logged = [record.getMessage() for record in caplog.records if record.name == "mtl_deploy.live"]
    assert logged == capsys.readouterr().err.splitlines()
    assert [line.split(": ", 1)[1].split(";")[0] for line in logged] == [
        "lost after 5 frames",
        "frames come again",
        "lost after 10 frames",
        "frames come again",
    ]
    assert all(line.startswith("http://***@127.0.0.1:") for line in logged)


def test_a_camera_that_goes_away_and_comes_back_is_found_again(make_bundle: MakeBundle) -> None:
    """The port is closed in between: connections are refused."""
    closed = threading.Event()
    with Camera(frames=4) as camera:
        port = int(camera.host.rpartition(":")[2])
        front = source(camera.url)
    bundle = make_bundle()
    with pytest.raises(ImageError, match="connection refused"), load(bundle) as model:
        play(model, [front], Told(), PlayOptions(reconnect=0.1))

    def later() -> None:
        time.sleep(0.7)
        with Camera(frames=4, port=port):
            closed.wait(60)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        with load(bundle) as model, pytest.raises(Told.EnoughError):
            play(model, [front], Told(lambda results: len(results) > 5), PlayOptions(reconnect=0.1, patient=True))
    finally:
        closed.set()
        thread.join()


def test_a_camera_that_is_lost_ends_the_loop_where_nothing_else_was_asked_for(make_bundle: MakeBundle) -> None:
    words = "lost after 4 frames; --reconnect"
    with (
        load(make_bundle()) as model,
        Camera(frames=4) as camera,
        Camera() as other,
        pytest.raises(RunError, match=words),
    ):
        play(model, [source(camera.url), source(other.url)], Told(), PlayOptions(reconnect=None))


def test_several_cameras_have_results_of_their_own(make_bundle: MakeBundle) -> None:
    def enough(results: list[StreamResult]) -> bool:
        return {len([one for one in results if one.source == label]) > 4 for label in labels} == {True}

    with load(make_bundle()) as model, Camera() as front, Camera() as back:
        sources = [source(front.url), source(back.url)]
        labels = [one.label for one in sources]
        told = Told(enough)
        with pytest.raises(Told.EnoughError):
            play(model, sources, told, PlayOptions(drop="wait"))
    for label in labels:
        numbers = [shot.number for one, shot in zip(told.results, told.shots, strict=True) if one.source == label]
        assert numbers == sorted(numbers)
        assert numbers[0] == 1


def test_the_watchdog_is_not_fed_while_the_model_hangs(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "_HANGS", 0.3)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    def heard(manager: socket.socket, seconds: float) -> list[str]:
        until, found = time.monotonic() + seconds, []
        while (left := until - time.monotonic()) > 0:
            manager.settimeout(left)
            with suppress(TimeoutError):
                found.append(manager.recv(4096).decode())
        return found

    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        gated(make_bundle()) as (model, gate),
        Camera() as camera,
    ):
        manager.bind(str(tmp_path / "notify"))
        told = Told(lambda results: len(results) > 40)
        gate.open.clear()

        def work() -> None:
            with pytest.raises(Told.EnoughError):
                play(model, [source(camera.url)], told)

        thread = threading.Thread(target=work)
        thread.start()
        assert gate.begun.acquire(timeout=60)
        heard(manager, 1.0)  # until it is taken to hang
        assert heard(manager, 0.5) == []
        gate.open.set()
        manager.settimeout(60)
        found = [manager.recv(4096).decode()]
        while found[-1] != "STOPPING=1":
            found.append(manager.recv(4096).decode())
        thread.join()
        assert heard(manager, 0.1) == []  # nothing behind the end
    assert "WATCHDOG=1" in found


def test_boxes_are_cut_out_of_each_frame(tmp_path: Path, make_bundle: MakeBundle) -> None:
    clip(tmp_path / "in.avi", count=2)
    boxes = [(0.0, 0.0, 20.0, 20.0), (40.0, 8.0, 16.0, 30.0)]
    told = Told()
    with load(make_bundle()) as model:
        play(model, [source(tmp_path / "in.avi")], told, PlayOptions(boxes=boxes, margin=0.1))
        for result, frame in zip(told.results, frames_of(tmp_path / "in.avi"), strict=True):
            expected = [row["age"].value for row in model.predict(frame, boxes=boxes, margin=0.1)]
            assert [one["age"].value for one in result.boxes or ()] == pytest.approx(expected, rel=1e-4)
            assert [one.key for one in result.boxes or ()] == [0, 1]


def test_a_frame_that_fails_ends_a_video_and_is_told_of_a_camera(tmp_path: Path, make_bundle: MakeBundle) -> None:
    clip(tmp_path / "in.avi", count=2)
    outside = PlayOptions(boxes=[(100.0, 100.0, 5.0, 5.0)])
    with load(make_bundle()) as model:
        with pytest.raises(ImageError, match="outside"):
            play(model, [source(tmp_path / "in.avi")], Told(), outside)
        with Camera() as camera, pytest.raises(ImageError, match="outside"):  # the first: nothing will go well
            play(model, [source(camera.url)], Told(), outside)
        broken = iter([None, ValueError("once"), None])
        gate = model.backend.run

        def run(*given: Any) -> Any:
            if (error := next(broken, None)) is not None:
                raise error
            return gate(*given)

        model.backend.run = run  # type: ignore[method-assign]
        told = Told(lambda results: len(results) == 3)
        with Camera() as camera, pytest.raises(Told.EnoughError):
            play(model, [source(camera.url)], told)
    assert [str(result.error) for result in told.results] == ["None", "once", "None"]


@pytest.mark.parametrize(
    ("named", "options", "words"),
    [
        (["-"], {}, "--raw WIDTHxHEIGHT:FORMAT"),
        (["camera:0"], {"raw": "8x8:bgr"}, "name - as the source"),
        (["camera:0"], {"show": Path("window"), "boxes": [(0, 0, 1, 1)]}, "leave the boxes out"),
        (["camera:0", "camera:1"], {"show": Path("out.mp4")}, "--show window"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    make_bundle: MakeBundle, named: list[str], options: dict[str, Any], words: str
) -> None:
    given = {key: raw_format(value) if key == "raw" else value for key, value in options.items()}
    with load(make_bundle()) as model, pytest.raises(OptionError, match=words):
        play(model, [source(one) for one in named], Told(), PlayOptions(**given))


def test_an_idle_thread_is_not_left_behind(make_bundle: MakeBundle) -> None:
    with load(make_bundle()) as model, Camera() as camera:
        before = set(threading.enumerate())
        with pytest.raises(Told.EnoughError):
            play(model, [source(camera.url)], Told(lambda results: len(results) > 2), PlayOptions(stats=60.0))
        left = {thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("mtl-")}
    assert not left
