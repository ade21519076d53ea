from __future__ import annotations

import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mtl_deploy.runtime import load
from mtl_deploy.runtime.backends.tensorrt.log import Messages, clean, logger_for
from tests.fakes.gpu import IMAGES, EngineBundle, Simulation, check


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
    logger = logger_for(machine.install(), messages)
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
    runtime = trt.Runtime(logger_for(trt, messages))
    assert runtime.deserialize_cuda_engine(b"no plan at all" * 30) is None
    assert messages.reason().startswith("Serialization (Serialization assertion header.magicTag")


def test_a_logger_outlives_the_model_that_was_loaded_first(machine: Simulation, engine_bundle: EngineBundle) -> None:
    """TensorRT speaks through the first logger, whichever model it works for: here B, after A has been closed."""
    machine.install()
    bundle = engine_bundle()
    first, second = load(bundle), load(bundle)
    first.close()
    del first
    gc.collect()
    execution = second.backend._free[0]._execution  # type: ignore[attr-defined]
    assert not execution.set_input_shape("image", (2, 9, 9, 3))  # it complains
    del execution
    assert second.backend.loaded.messages.errors  # type: ignore[attr-defined]
    check(second(IMAGES[:3]), IMAGES[:3])
    second.close()
    with load(bundle) as third:
        check(third(IMAGES[:2]), IMAGES[:2])


def test_a_models_errors_are_its_own(machine: Simulation) -> None:
    """One logger serves all models; what one did wrong must not be the reason that another gives, nor fill its memory."""
    module = machine.install()
    mine, other = Messages(), Messages()
    logger = logger_for(module, mine)
    assert logger_for(module, other) is logger
    mine.clear()
    logger.log(SimpleInt(1), "mine")
    other.clear()
    logger.log(SimpleInt(1), "Cuda Runtime (out of memory)")
    assert (mine.errors, other.errors) == (["mine"], ["Cuda Runtime (out of memory)"])
    assert not mine.out_of_memory
    assert other.out_of_memory


def test_threads_of_one_model_give_their_own_reasons(machine: Simulation) -> None:
    messages = Messages()
    logger = logger_for(machine.install(), messages)
    messages.clear()
    logger.log(SimpleInt(1), "here")

    def elsewhere() -> str:
        messages.clear()
        logger.log(SimpleInt(1), "there")
        return messages.reason()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == "there"
    assert messages.reason() == "here"


def test_what_the_librarys_own_threads_say_is_heard_by_all_that_listen(machine: Simulation) -> None:
    module = machine.install()
    mine, gone = Messages(), Messages()
    logger = logger_for(module, mine)
    logger_for(module, gone)
    del gone
    mine.clear()
    thread = threading.Thread(target=logger.log, args=(SimpleInt(1), "from inside"))
    thread.start()
    thread.join()
    assert mine.reason() == "from inside"


def test_a_cuda_failure_counts_as_an_error_where_it_is_said_as_a_warning() -> None:
    messages = Messages()
    messages.add(2, "CUDA initialization failure with error: 35. Please check your CUDA installation")  # TensorRT 8.6
    assert messages.cuda_failed
    assert messages.reason().startswith("CUDA initialization failure with error: 35")
    messages.clear()
    assert not messages.cuda_failed
