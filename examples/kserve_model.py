"""Serve a bundle by the Open Inference Protocol with KServe: the same client code as for Triton, over HTTP and gRPC.

``pip install 'mtl-deploy[runtime]' kserve``, then ``python examples/kserve_model.py --bundle model.mtl --model_name model``, with
KServe's own options behind it (``--http_port`` and others). The input ``image`` holds image files, ``(N, 1)``: over HTTP in
base64, as KServe 0.21 takes text alone there. The output ``predictions`` is JSON text for each, and there is one tensor per task.
The request's parameter ``tasks`` (``age,gender``) names what to compute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any
from uuid import uuid4

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.errors import InvalidInput

from mtl_deploy.runtime import load
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.serving.answers import answers, chosen, image_bytes

_TYPES = {"float32": "FP32", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}


class BundleModel(Model):
    """A bundle behind KServe.

    Args:
        name: of the model.
        bundle: its path.
        precision: None: the fastest here.
    """

    def __init__(self, name: str, bundle: str, precision: str | None) -> None:
        super().__init__(name)
        self._bundle = bundle
        self._precision = precision

    def load(self) -> bool:
        """Load the bundle."""
        self._model = load(self._bundle, precision=self._precision)
        self._names = [task.name for task in self._model.tasks]
        self.ready = True
        return self.ready

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:  # noqa: ARG002
        """Answer a request of the Open Inference Protocol."""
        given = next((tensor for tensor in payload.inputs if tensor.name == "image"), None)
        if given is None:
            raise InvalidInput("the input is called image, of type BYTES and shape (N, 1)")
        images = [image_bytes(item) for item in np.ravel(given.as_numpy())]
        asked = [output.name for output in payload.request_outputs or []]
        try:
            if asked and "predictions" not in asked:
                tasks = chosen(self._names, asked)
            else:
                tasks = chosen(self._names, _text((payload.parameters or {}).get("tasks", "")))
        except TaskError as error:
            raise InvalidInput(str(error)) from error
        found = await asyncio.to_thread(answers, self._model, images, tasks)
        for number, answer in enumerate(found):
            if answer.error is not None:
                raise InvalidInput(f"image {number}: {answer.error}")
        texts = [
            json.dumps({name: value.to_dict() for name, value in answer.predictions.items()}, ensure_ascii=False)
            for answer in found
        ]
        outputs = [InferOutput("predictions", [len(texts), 1], "BYTES")] if "predictions" in asked or not asked else []
        for output in outputs:
            output.set_data_from_numpy(np.array([[text.encode()] for text in texts], np.object_), binary_data=True)
        for name in tasks:
            if asked and name not in asked:
                continue
            values = np.stack([answer.outputs[name] for answer in found])
            outputs.append(InferOutput(name, list(values.shape), _TYPES[values.dtype.name]))
            outputs[-1].set_data_from_numpy(values, binary_data=True)
        return InferResponse(payload.id or str(uuid4()), self.name, outputs)


def _text(parameter: Any) -> str:
    """Return a parameter's text, which gRPC wraps."""
    return str(getattr(parameter, "string_param", parameter))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--bundle", required=True, help="a bundle that mtl-export made")
    parser.add_argument("--precision", help="fp32, fp16 or int8 (default: the fastest here)")
    arguments, _ = parser.parse_known_args()
    model = BundleModel(arguments.model_name, arguments.bundle, arguments.precision)
    model.load()
    ModelServer().start([model])
