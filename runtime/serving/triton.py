"""The Python-backend model of a Triton repository: encoded images in, predictions as JSON and tensors out.

Triton's Python backend (https://github.com/triton-inference-server/python_backend) imports the repository's ``model.py``,
which takes the class from here, so that the code comes with the package that is installed beside the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.bundle.manifest import SUFFIX
from mtl_deploy.runtime.errors import RunError, TaskError
from mtl_deploy.runtime.loading import load

from .answers import Answer, answers, chosen, image_bytes

IMAGE = "image"
PREDICTIONS = "predictions"
BUNDLE = f"model{SUFFIX}"


class TritonPythonModel:
    """What Triton's Python backend calls.

    A request holds images ``(N, 1)`` of type ``TYPE_STRING``, each the bytes of an image file, or their base64. The outputs are
    ``predictions``, JSON text for each image, and one tensor per task as the graph returns it. Only tasks whose output is asked
    for are computed; where ``predictions`` is asked for, those that the request's parameter ``tasks`` names (``age,gender``), or
    all. An image that cannot be read fails its request and no other.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle that lies beside ``model.py``, and run it once."""
        parameters = {
            key: value["string_value"] for key, value in json.loads(args["model_config"]).get("parameters", {}).items()
        }
        folder = Path(args["model_repository"]) / args["model_version"]
        options: dict[str, Any] = {"precision": parameters.get("precision"), "backend": parameters.get("backend")}
        if threads := parameters.get("threads"):
            options["threads"] = int(threads)
        if args.get("model_instance_kind") == "GPU" and options["backend"] != "openvino":
            options["device"] = int(args["model_instance_device_id"])
        self._model = load(folder / BUNDLE, spinning=False, **options)
        self._names = [task.name for task in self._model.tasks]
        self._model.predict(np.zeros(self._model.signature.preprocessing.image_shape, np.uint8))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests: the images of all that ask for the same tasks run together."""
        import triton_python_backend_utils as triton

        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, request in enumerate(requests):
            tasks = self._tasks(request)
            if isinstance(tasks, TaskError):
                responses[position] = _refused(triton, tasks)
            else:
                groups.setdefault(tasks, []).append(position)
        for tasks, positions in groups.items():
            images = [_images(triton, requests[position]) for position in positions]
            try:
                found = iter(answers(self._model, [image for own in images for image in own], tasks))
            except RunError as error:
                for position in positions:
                    responses[position] = triton.InferenceResponse(error=triton.TritonError(str(error)))
                continue
            for position, own in zip(positions, images, strict=True):
                answered = [next(found) for _ in own]
                responses[position] = self._response(triton, requests[position], answered, tasks)
        return responses

    def finalize(self) -> None:
        """Free the model."""
        self._model.close()

    def _tasks(self, request: Any) -> tuple[str, ...] | TaskError:
        """Return the tasks to compute, or why there are none."""
        asked = request.requested_output_names()
        if PREDICTIONS not in asked:
            return tuple(name for name in self._names if name in asked)
        parameters = json.loads(request.parameters() or "{}")
        try:
            return chosen(self._names, str(parameters.get("tasks", "")))
        except TaskError as error:
            return error

    def _response(self, triton: Any, request: Any, answered: Sequence[Answer], tasks: Sequence[str]) -> Any:
        for number, answer in enumerate(answered):
            if answer.error is not None:
                return _refused(triton, f"image {number}: {answer.error}")
        asked = request.requested_output_names()
        tensors = []
        if PREDICTIONS in asked:
            rows = [{name: value.to_dict() for name, value in answer.predictions.items()} for answer in answered]
            texts = [[json.dumps(row, ensure_ascii=False, allow_nan=False).encode()] for row in rows]
            tensors.append(triton.Tensor(PREDICTIONS, np.array(texts, np.object_).reshape(-1, 1)))
        for name in tasks:
            if name in asked:
                shapes = {answer.outputs[name].shape for answer in answered}
                if len(shapes) > 1:
                    return _refused(
                        triton,
                        f"task {name!r}: images of several sizes have no common tensor; ask for {PREDICTIONS} alone, or send "
                        "them one by one",
                    )
                tensors.append(triton.Tensor(name, np.stack([answer.outputs[name] for answer in answered])))
        return triton.InferenceResponse(output_tensors=tensors)


def _images(triton: Any, request: Any) -> list[bytes]:
    given = triton.get_input_tensor_by_name(request, IMAGE).as_numpy().ravel().tolist()
    return [image_bytes(item) for item in given]


def _refused(triton: Any, error: object) -> Any:
    """Return the answer to a request that cannot be served as it is: HTTP's 400."""
    return triton.InferenceResponse(error=triton.TritonError(str(error), triton.TritonError.INVALID_ARG))
