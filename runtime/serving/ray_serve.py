"""A Ray Serve deployment: encoded images in, predictions as JSON out.

``serve run mtl_deploy.runtime.serving.ray_serve:app bundle=model.mtl`` serves it over HTTP; applications bind :data:`Predictor`
themselves. It needs Ray (``pip install 'mtl-deploy[ray]'``), and the bundle at the same path on every node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mtl_deploy.runtime.errors import DeviceLostError, ImageError, MtlError, OptionError, RunError, TaskError
from mtl_deploy.runtime.files.json_schema import check
from mtl_deploy.runtime.files.reading import DocumentError, parse_json
from mtl_deploy.runtime.loading import load

from .answers import Answer, answers, chosen, image_bytes

_BATCH = 8
_WAIT_S = 0.005
_MOST_FAILURES = 3  # in a row, before a replica is replaced


@serve.deployment(max_ongoing_requests=4 * _BATCH)
class Predictor:
    """One replica: a model, whose batches are made of the requests that wait.

    Args:
        bundle: its path, the same on every node.
        precision: as for :func:`~mtl_deploy.runtime.load`; so are the others.
        backend: likewise.
        threads: likewise.
        warm: whether to run once before the first request.
    """

    def __init__(
        self,
        bundle: str,
        *,
        precision: str | None = None,
        backend: str | None = None,
        threads: int | None = None,
        warm: bool = True,
    ) -> None:
        self._model = load(bundle, precision=precision, backend=backend, threads=threads, spinning=False)
        self._names = tuple(task.name for task in self._model.tasks)
        self._failures = 0
        self._lost: str | None = None
        if warm:
            of = self._model.signature.preprocessing
            shape = (of.height, of.width) if of.channel_count == 1 else (of.height, of.width, of.channel_count)
            self._model.predict(np.zeros(shape, np.uint8))

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Take ``user_config``: ``max_batch_size`` (images) and ``batch_wait_timeout_s`` (seconds)."""
        batch: Any = self._answered
        batch.set_max_batch_size(int(config.get("max_batch_size", _BATCH)))
        batch.set_batch_wait_timeout_s(float(config.get("batch_wait_timeout_s", _WAIT_S)))

    def check_health(self) -> None:
        """Tell Ray whether this replica works; where the GPU is lost, or several batches in a row failed, it is replaced.

        Raises:
            RunError: it does not.
        """
        if self._lost is not None or self._failures >= _MOST_FAILURES:
            raise RunError(self._lost or f"the last {self._failures} batches failed")

    async def __call__(self, request: Request) -> Response:
        """Answer HTTP: the body is an image file, or JSON: ``{"images": [base64, ...], "tasks": ["age"]}``.

        ``?tasks=age,gender`` names the tasks of an image file. JSON is answered with a list, where an image that cannot be read has
        ``{"error": "..."}``: several images in a request save Ray's own work for each. 400 where a request cannot be answered.
        """
        content = await request.body()
        try:
            if request.headers.get("content-type", "").partition(";")[0] != "application/json":
                return JSONResponse(await self.predict(content, request.query_params.get("tasks")))
            images, tasks = _asked(content)
            return JSONResponse(await self.predict_many(images, tasks))
        except (ImageError, TaskError, OptionError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except MtlError as error:
            return JSONResponse({"error": str(error)}, status_code=500)

    async def predict(self, image: bytes, tasks: str | Sequence[str] | None = None) -> dict[str, Any]:
        """Return the predictions of one image, JSON-ready, by task; for handles.

        Args:
            image: the bytes of an image file.
            tasks: which to compute; None: all.

        Raises:
            ImageError: the image cannot be read.
            TaskError: there is no such task.
            RunError: the backend failed.
        """
        answer: Answer = await self._answered((image, chosen(self._names, tasks)))
        if answer.error is not None:
            raise answer.error
        return {name: value.to_dict() for name, value in answer.predictions.items()}

    async def predict_many(
        self, images: Sequence[bytes], tasks: str | Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the predictions of several images: one that cannot be read has ``{"error": "..."}``."""
        names = chosen(self._names, tasks)
        found = await asyncio.to_thread(self._run, images, names)
        return [
            {"error": str(answer.error)}
            if answer.error is not None
            else {name: value.to_dict() for name, value in answer.predictions.items()}
            for answer in found
        ]

    @serve.batch(max_batch_size=_BATCH, batch_wait_timeout_s=_WAIT_S)  # type: ignore[untyped-decorator]
    async def _answered(self, requests: list[tuple[bytes, tuple[str, ...]]]) -> list[Answer]:
        found: list[Answer | None] = [None] * len(requests)
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, (_, tasks) in enumerate(requests):
            groups.setdefault(tasks, []).append(position)
        for tasks, positions in groups.items():
            images = [requests[position][0] for position in positions]
            for position, answer in zip(positions, await asyncio.to_thread(self._run, images, tasks), strict=True):
                found[position] = answer
        return [answer for answer in found if answer is not None]

    def _run(self, images: Sequence[bytes], tasks: Sequence[str]) -> list[Answer]:
        try:
            found = answers(self._model, images, tasks)
        except DeviceLostError as error:
            self._lost = str(error)
            raise
        except RunError:
            self._failures += 1
            raise
        self._failures = 0
        return found


def _asked(content: bytes) -> tuple[list[bytes], list[str] | None]:
    """Return the images and tasks of a request in JSON."""
    try:
        given = parse_json(content)
        check(given, _REQUEST)
    except DocumentError as error:
        raise OptionError(f"the request: {error}") from error
    return [image_bytes(image) for image in given["images"]], given.get("tasks")


_TEXTS = {"type": "array", "items": {"type": "string"}}
_REQUEST = {"type": "object", "required": ["images"], "properties": {"images": _TEXTS, "tasks": _TEXTS}}
_MODEL = ("precision", "backend")
_NUMBERS = {"threads": int, "max_batch_size": int, "batch_wait_timeout_s": float}


def app(arguments: Mapping[str, str]) -> serve.Application:
    """Build the application for ``serve run`` and ``serve deploy``.

    Args:
        arguments: ``bundle``, and as text ``precision``, ``backend``, ``threads``, ``max_batch_size``, ``batch_wait_timeout_s``,
            and ``replicas``: a number, or ``1-4`` for as many as the load needs.

    Raises:
        OptionError: one is missing, unknown, or no number.
    """
    known = ("bundle", "replicas", *_MODEL, *_NUMBERS)
    if unknown := [name for name in arguments if name not in known]:
        raise OptionError(f"{unknown[0]}: the arguments are {', '.join(f'{name}=' for name in known)}")
    if "bundle" not in arguments:
        raise OptionError("bundle=PATH is missing")
    numbers = {name: _number(name, read, arguments[name]) for name, read in _NUMBERS.items() if name in arguments}
    options: dict[str, Any] = {"user_config": {name: value for name, value in numbers.items() if name != "threads"}}
    if replicas := arguments.get("replicas"):
        low, _, high = replicas.partition("-")
        counts = [_number("replicas", int, text) for text in (low, high) if text]
        if len(counts) == 2:
            options["autoscaling_config"] = {"min_replicas": counts[0], "max_replicas": counts[1]}
        else:
            options["num_replicas"] = counts[0]
    given: dict[str, Any] = {name: arguments[name] for name in _MODEL if name in arguments}
    if "threads" in numbers:
        given["threads"] = numbers["threads"]
        options["ray_actor_options"] = {"num_cpus": numbers["threads"]}
    deployment: Any = Predictor
    bound: serve.Application = deployment.options(**options).bind(arguments["bundle"], **given)
    return bound


def _number(name: str, read: type, text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        raise OptionError(f"{name}={text}: write a number") from None
