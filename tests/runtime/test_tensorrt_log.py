from __future__ import annotations

import logging
from typing import Any

import pytest

from mtl_deploy.runtime.tensorrt_log import Messages, clean, make_logger

from .simulated_gpu import Simulation


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (  # TensorRT 8.6
            "1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization (Serialization assertion "
            "magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
            "Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
        ),
        (  # TensorRT 10
            "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is not compatible with this "
            "version of TensorRT, expecting library version 10.3.0.26 got 10.0.1.6, please rebuild.)",
            "API Usage Error (The engine plan file is not compatible with this version of TensorRT, expecting library version "
            "10.3.0.26 got 10.0.1.6, please rebuild.)",
        ),
        ("ModelImporter.cpp:151: While parsing node number 3:\n  Conv", "While parsing node number 3: Conv"),
        ("[executionContext.cpp::enqueueInternal::795] Error Code 3: it failed.", "it failed"),
        (
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (out of memory)",
            "Cuda Runtime (out of memory)",
        ),
        ("ERROR: In function importConv: [8] Assertion failed", "Assertion failed"),
        ("nothing  to\nclean", "nothing to clean"),
        ("", ""),
    ],
)
def test_messages_lose_source_positions_and_codes(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_errors_and_warnings_are_kept_apart_and_once_each() -> None:
    messages = Messages()
    for severity, text in [(1, "a."), (1, "a"), (0, "b"), (2, "c"), (2, "c"), (3, "d"), (4, "e"), (1, "Node name: x")]:
        messages.add(severity, text)
    assert (messages.errors, messages.warnings) == (["a", "b"], ["c"])
    assert messages.reason() == "a"
    messages.clear()
    assert (messages.errors, messages.warnings) == ([], [])
    assert messages.reason() == "the library gave no reason"


def test_noise_is_no_error() -> None:
    messages = Messages()
    messages.add(1, "CUDA lazy loading is not enabled. Enabling it can reduce memory.")
    assert messages.errors == []


@pytest.mark.parametrize("text", ["Error Code 2: OutOfMemory (Requested size was 1)", "Cuda Runtime (out of memory)"])
def test_full_memory_is_recognised(text: str) -> None:
    messages = Messages()
    messages.add(2, text)
    assert not messages.out_of_memory  # a warning: the library goes on with less
    messages.add(1, text)
    assert messages.out_of_memory


def test_a_logger_passes_messages_on_and_to_the_programs_log(
    machine: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    messages = Messages()
    logger = make_logger(machine.install(), messages)
    with caplog.at_level(logging.DEBUG, "mtl_deploy.tensorrt"):
        logger.log(SimpleInt(1), "[x.cpp::f::1] Error Code 1: no")
    assert messages.errors == ["no"]
    assert caplog.messages == ["no"]


class SimpleInt:
    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


def test_the_real_libraries_messages_are_cleaned_too() -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    messages = Messages()
    runtime = trt.Runtime(make_logger(trt, messages))
    assert runtime.deserialize_cuda_engine(b"no plan at all" * 30) is None
    assert messages.reason().startswith("Serialization (Serialization assertion header.magicTag")
