"""Asks a server of the Open Inference Protocol, over HTTP (base64) and gRPC (bytes), and prints what it says as JSON."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http


def main(http: str, grpc: str, model: str, files: list[str]) -> None:
    """Ask for all, for one task's tensor, for one task's predictions, and for what cannot be answered."""
    contents = [Path(file).read_bytes() for file in files]
    said: dict[str, Any] = {}
    for name, client, module in (
        ("http", tritonclient.http.InferenceServerClient(http), tritonclient.http),
        ("grpc", tritonclient.grpc.InferenceServerClient(grpc), tritonclient.grpc),
    ):

        def ask(
            given: Any, outputs: tuple[str, ...] = (), client: Any = client, module: Any = module, **more: Any
        ) -> Any:
            tensor = module.InferInput("image", given.shape, "BYTES")
            tensor.set_data_from_numpy(given)
            wanted = [module.InferRequestedOutput(output) for output in outputs] or None
            try:
                found = client.infer(model, [tensor], outputs=wanted, **more)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the server says
                return f"{type(error).__name__}: {error}"
            names = ("predictions", "age", "gender", "race")
            arrays = {output: found.as_numpy(output) for output in names}
            texts = arrays.pop("predictions")
            return {
                "predictions": None if texts is None else [json.loads(text) for text in texts.ravel()],
                **{output: None if values is None else values.tolist() for output, values in arrays.items()},
            }

        given = [base64.b64encode(content) for content in contents] if name == "http" else contents
        images = np.array([[content] for content in given], dtype=np.object_)
        said[name] = {
            "all": ask(images),
            "one tensor": ask(images, ("age",)),
            "one prediction": ask(images, ("predictions",), parameters={"tasks": "race, age"}),
            "unknown task": ask(images, parameters={"tasks": "nose"}),
            "damaged image": ask(np.array([[images[0, 0]], [b"no image"]], dtype=np.object_)),
        }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
