"""``mtl-infer`` as a process of its own on live sources: pipes, signals, and what it tells."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import load
from mtl_deploy.runtime.cli import main
from tests.clips import frames_of
from tests.runtime.live.servers import Camera

cv2 = pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")

MakeBundle = Callable[..., Path]
COMMAND = (sys.executable, "-c", "import sys; from mtl_deploy.runtime.cli import main; sys.exit(main(sys.argv[1:]))")
WAIT = 60.0


def run(*arguments: Any, given: bytes = b"", code: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *map(str, arguments)], input=given, capture_output=True, timeout=WAIT, check=False)
    ended = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert code in (None, ended.returncode), ended.stderr
    return ended


@contextmanager
def started(*arguments: Any, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the command; it is killed at the end, if it still runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with subprocess.Popen([*COMMAND, *map(str, arguments)], **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


FRAMES = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["bgr", "rgb", "gray", "nv12", "yuyv"])
def test_raw_frames_come_from_a_pipe(make_bundle: MakeBundle, name: str) -> None:
    bundle = make_bundle()
    sent = {
        "rgb": FRAMES,
        "bgr": FRAMES[..., ::-1],
        "gray": FRAMES[..., 0],
        "nv12": np.random.default_rng(1).integers(16, 235, (3, 12, 12), dtype=np.uint8),
        "yuyv": np.random.default_rng(2).integers(16, 235, (3, 8, 12, 2), dtype=np.uint8),
    }[name]
    codes = {"nv12": cv2.COLOR_YUV2RGB_NV12, "yuyv": cv2.COLOR_YUV2RGB_YUYV}
    pictures = [cv2.cvtColor(frame, codes[name]) for frame in sent] if name in codes else FRAMES
    if name == "gray":
        pictures = sent
    ended = run(bundle, "-", "--raw", f"12x8:{name}", "--output", "-", "--tasks", "age", given=sent.tobytes())
    found = [json.loads(each) for each in ended.stdout.splitlines()]
    assert ended.stderr == ""
    assert [(each["source"], each["frame"]) for each in found] == [("stdin", 1), ("stdin", 2), ("stdin", 3)]
    with load(bundle) as model:
        expected = [model.predict(np.asarray(each))["age"].value for each in pictures]
    assert [each["tasks"]["age"]["value"] for each in found] == pytest.approx(expected, rel=1e-5)
    assert abs(found[0]["time"] - time.time()) < WAIT
    assert found[0]["latency_ms"] > 0


def test_a_slow_task_says_how_old_its_value_is(make_bundle: MakeBundle) -> None:
    ended = run(make_bundle(), "-", "--raw=12x8:rgb", "--output=-", "--every=race=2", given=FRAMES.tobytes())
    first, second, third = (json.loads(each) for each in ended.stdout.splitlines())
    assert "ages" not in first
    assert second["ages"]["race"]["frames"] == 1
    assert second["ages"]["race"]["seconds"] >= 0
    assert second["tasks"]["race"] == first["tasks"]["race"]
    assert "ages" not in third


def test_a_last_frame_that_is_cut_off_is_said(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    ended = run(bundle, "-", "--raw", "12x8:rgb", given=FRAMES.tobytes()[:-5])
    assert ended.stdout.splitlines()[-1] == "2 frames"
    assert ended.stderr.startswith("warning: stdin: the last frame is cut off after 283 of 288 bytes and left out")
    assert len(ended.stderr.splitlines()) == 1
    ended = run(bundle, "-", "--raw", "12x8:rgb", given=FRAMES.tobytes()[:100], code=2)
    assert ended.stderr == "error: stdin: it ended after 100 bytes, and the first frame has 288 (--raw 12x8:rgb)\n"


def test_each_line_is_there_at_once(make_bundle: MakeBundle) -> None:
    with started(
        make_bundle(), "-", "--raw", "12x8:rgb", "--output", "-", stdin=subprocess.PIPE, text=False
    ) as process:
        for number in (1, 2, 3):
            process.stdin.write(FRAMES.tobytes()[:288])
            process.stdin.flush()
            assert line(process)["frame"] == number  # while the pipe is still open
        process.stdin.close()
        assert process.wait(WAIT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_whole_recording(make_bundle: MakeBundle, tmp_path: Path, number: signal.Signals) -> None:
    bundle = make_bundle()
    (tmp_path / "out").mkdir()
    with Camera() as camera:
        shown, lines = tmp_path / "out/camera.mp4", tmp_path / "out/frames.jsonl"
        with started(bundle, camera.url, "--show", shown, "--output", lines) as process:
            until = time.monotonic() + WAIT
            while not (lines.exists() and lines.read_text().count("\n") > 3) and time.monotonic() < until:
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(WAIT) == 128 + number
            assert process.stderr is not None
            assert process.stderr.read() == "interrupted\n"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["camera.mp4", "frames.jsonl"]
    written = [json.loads(each) for each in lines.read_text().splitlines()]
    frames = frames_of(shown)
    assert len(written) >= len(frames) >= 3


def test_a_camera_that_hangs_does_not_hold_up_the_end(make_bundle: MakeBundle) -> None:
    with Camera(frames=4, hangs=True) as camera, started(make_bundle(), camera.url, "--output", "-") as process:
        line(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 143
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted\n"


def test_waiting_for_a_camera_can_be_ended(make_bundle: MakeBundle) -> None:
    with started(make_bundle(), "http://127.0.0.1:1/", "--reconnect", "60") as process:
        assert process.stderr is not None
        assert "connection refused" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 143


def test_credentials_appear_nowhere(make_bundle: MakeBundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle()
    with Camera(frames=4) as camera:
        url = f"http://me:secret@{camera.host}/locked?token=secret"
        out = tmp_path / "frames.jsonl"
        done = run(bundle, url, url, "--output", out, "--reconnect", "never", "--stats", "0.01", code=1)
        told = [done.stdout, done.stderr, out.read_text()]
        labels = {f"http://***@{camera.host}/locked?token=*** #{number}" for number in (1, 2)}
        assert {json.loads(each)["source"] for each in told[2].splitlines()} & labels
        for wrong in (
            [url.replace("/locked", "/missing")],
            ["http://me:secret@127.0.0.1:1/"],
            ["ftp://me:secret@host/"],
            ["--no-such=http://me:secret@host/"],
            [url, "--show", "http://me:secret@host/out.txt"],
            ["http://me:secret@host/", "--drop", "http://me:secret@host/"],
        ):
            with suppress(SystemExit):  # argparse
                assert main([str(bundle), *wrong]) == 2
            told += capfd.readouterr()
    assert "***" in "".join(told)
    assert "secret" not in "".join(told)


def test_a_full_disk_is_said_in_a_line(make_bundle: MakeBundle, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    for given in (["--output", tmp_path / "full.jsonl", "--force"], ["--show", "/dev/full/a.mp4"]):
        ended = run(
            make_bundle(tmp_path / f"{given[0]}.mtl"),
            "-",
            "--raw",
            "12x8:rgb",
            *given,
            given=FRAMES.tobytes(),
            code=None,
        )
        assert ended.returncode in (1, 2)
        assert len(ended.stderr.splitlines()) == 1
        assert ended.stderr.startswith("error: ")


def test_statistics_are_printed(make_bundle: MakeBundle) -> None:
    with Camera() as camera, started(make_bundle(), camera.url, "--stats", "0.2", stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(4)]
    assert all(each.startswith(f"{camera.url}: ") for each in lines)
    pattern = r"\d+\.\d frames per second, latency \d+\.\d ms \(median\), 95 % below \d+\.\d, 99 % below \d+\.\d, \d+ dropped\n"
    assert [each for each in lines if re.search(pattern, each)]


def test_systemd_is_told(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, Camera() as camera:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        with started(
            make_bundle(), camera.url, "--stats", "0.3", env=environment, stdout=subprocess.DEVNULL
        ) as process:
            ready = manager.recv(4096).decode()
            seen = [manager.recv(4096).decode() for _ in range(12)]
            process.send_signal(signal.SIGTERM)
            while (last := manager.recv(4096).decode()) != "STOPPING=1":
                seen.append(last)
            assert process.wait(WAIT) == 143
    assert ready == f"READY=1\nSTATUS=reading {camera.url}"
    assert seen.count("WATCHDOG=1") >= 3
    status = [each for each in seen if each.startswith("STATUS=")]
    assert status
    assert "frames per second" in status[0]
