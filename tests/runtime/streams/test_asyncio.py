from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_deploy.runtime import OptionError, RunError
from mtl_deploy.runtime import load as load_model
from tests.runtime.streams.gated import IMAGES, WAIT, gated

MakeBundle = Callable[..., Path]


def test_frames_and_results_flow_in_one_event_loop(make_bundle: MakeBundle) -> None:
    """There is room for far fewer frames than are submitted: whoever submits must let the other task collect."""

    async def main() -> list[int]:
        async with model.stream(drop="wait", queue=1, results=1) as stream:

            async def produce() -> None:
                for number, image in enumerate(IMAGES):
                    assert await stream.submit_async(image, tag=number)
                stream.finish()

            task = asyncio.create_task(produce())
            found = [result.tag async for result in stream]
            await task
            return found

    with load_model(make_bundle()) as model:
        assert asyncio.run(asyncio.wait_for(main(), WAIT)) == list(range(len(IMAGES)))


def test_the_loop_goes_on_while_a_result_is_awaited_and_a_cancelled_task_takes_none(make_bundle: MakeBundle) -> None:
    async def main() -> list[int]:
        async with model.stream() as stream:
            gate.open.clear()
            stream.submit(IMAGES[0], tag=0)

            async def first() -> int:
                async for result in stream:
                    return int(result.tag)
                return -1

            task = asyncio.create_task(first())
            for _ in range(100):
                await asyncio.sleep(0)  # the loop turns while the task waits
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open.set()
            stream.finish()
            return [result.tag async for result in stream]

    with gated(make_bundle()) as (model, gate):
        assert asyncio.run(asyncio.wait_for(main(), WAIT)) == [0]


def test_a_stream_that_breaks_down_wakes_the_loop(make_bundle: MakeBundle) -> None:
    async def main() -> None:
        stream = model.stream()
        gate.failing = lambda call: SystemExit()
        stream.submit(IMAGES[0])
        async for _ in stream:
            pass

    with gated(make_bundle()) as (model, gate), pytest.raises(RunError, match="broke down"):
        asyncio.run(asyncio.wait_for(main(), WAIT))


def test_results_of_a_callback_are_not_iterated(make_bundle: MakeBundle) -> None:
    async def main() -> None:
        async with model.stream(callback=print) as stream:
            async for _ in stream:
                pass

    with load_model(make_bundle()) as model, pytest.raises(OptionError, match="callback"):
        asyncio.run(asyncio.wait_for(main(), WAIT))


def test_a_loop_that_was_closed_while_it_waited_holds_up_nobody(make_bundle: MakeBundle) -> None:
    async def wait_for_ever() -> None:
        async for _ in stream:
            pass

    with load_model(make_bundle()) as model, model.stream() as stream:
        loop = asyncio.new_event_loop()
        task = loop.create_task(wait_for_ever())
        loop.run_until_complete(asyncio.sleep(0))
        assert stream._results._signal._wakers  # it waits
        loop.close()
        stream.submit(IMAGES[0], tag=1)
        stream.finish()
        assert [result.tag for result in stream] == [1]
        assert not task.done()
