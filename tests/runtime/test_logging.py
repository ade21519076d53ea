"""What the runtime logs, under ``mtl_deploy``; nothing where the application has not set logging up."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.runtime import FallbackWarning
from mtl_deploy.runtime import load as load_model
from mtl_deploy.runtime.streams.result import StreamResult
from mtl_deploy.runtime.streams.waiting import Waiting

MakeBundle = Callable[..., Path]


def messages(caplog: pytest.LogCaptureFixture, logger: str) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == logger]


def test_loading_is_logged(make_bundle: MakeBundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mtl_deploy")
    with load_model(make_bundle(), providers=["CPU"]):
        pass
    ((level, text),) = messages(caplog, "mtl_deploy.loading")
    assert level == "INFO"
    assert "fp32.onnx" in text
    assert "ONNX Runtime" in text


def test_a_fall_back_is_logged_as_well_as_warned_of(
    trt: object, engine_bundle: MakeBundle, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.warns(FallbackWarning) as warned, load_model(engine_bundle(plans=lambda graph: b"NOPLAN")):
        pass
    ((level, text),) = messages(caplog, "mtl_deploy.loading")
    assert level == "WARNING"
    assert text == str(warned[0].message)


def test_the_first_second_fourth_and_eighth_drop_of_a_source_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting(1, "newest")
    for _ in range(12):
        waiting.submit(None, "front", None, None)
    waiting.submit(None, "back", None, None)
    assert [text.split(" frames")[0] for _, text in messages(caplog, "mtl_deploy.stream")] == [
        f"source 'front': {count}" for count in (1, 2, 4, 8)
    ]
    assert {level for level, _ in messages(caplog, "mtl_deploy.stream")} == {"WARNING"}


def test_errors_of_frames_and_callbacks_are_logged(make_bundle: MakeBundle, caplog: pytest.LogCaptureFixture) -> None:
    def fail(result: StreamResult) -> None:
        raise ValueError("full disk")

    caplog.set_level(logging.INFO, "mtl_deploy.stream")
    with load_model(make_bundle()) as model:
        stream = model.stream(callback=fail)
        stream.submit(np.zeros((8, 8, 3)), source="front")
        stream.finish()
        with pytest.raises(ValueError, match="full disk"):
            stream.join()
    (info, (level, text)) = messages(caplog, "mtl_deploy.stream")
    assert info[0] == "INFO"
    assert "frame 0 of source 'front': got float64" in info[1]
    assert (level, text) == ("ERROR", "the callback failed for frame 0 of source 'front'")


def test_nothing_is_printed_by_default(make_bundle: MakeBundle) -> None:
    code = """
import sys, numpy
from mtl_deploy.runtime import load
from mtl_deploy.runtime.streams.waiting import Waiting
waiting = Waiting(1, "oldest")
for _ in range(9):
    waiting.submit(None, None, None, None)
def fail(result):
    raise ValueError
with load(sys.argv[1]) as model:
    try:
        with model.stream(callback=fail) as stream:
            stream.submit(numpy.zeros((8, 8, 3), numpy.uint8))
    except ValueError:
        print("raised")
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(make_bundle())], capture_output=True, text=True, timeout=100, check=True
    )
    assert (result.stdout, result.stderr) == ("raised\n", "")
