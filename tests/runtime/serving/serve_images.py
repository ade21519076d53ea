"""Serves a bundle with Ray Serve on a local cluster and asks it over HTTP and by its handle; run by the environment in ``.ray``."""

from __future__ import annotations

import base64
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve

from mtl_deploy.runtime.serving.ray_serve import app


def main(bundle: str, port: str, files: list[str]) -> None:
    """Print what the deployment says as JSON."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    handle: Any = serve.run(app({"bundle": bundle, "replicas": "2", "max_batch_size": "4", "threads": "1"}))
    images = [Path(file).read_bytes() for file in files]
    url = f"http://127.0.0.1:{port}/"

    def posted(content: bytes, **query: str) -> list[Any]:
        found = httpx.post(url, content=content, params=query, timeout=60)
        return [found.status_code, found.json()]

    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(posted, images * 8))
    status = serve.status().applications["default"]
    said = {
        "http": [posted(image) for image in images],
        "at once": at_once,
        "one task": posted(images[0], tasks="age"),
        "unknown task": posted(images[0], tasks="nose"),
        "damaged image": posted(b"no image"),
        "json": httpx.post(
            url, json={"images": [base64.b64encode(image).decode() for image in images], "tasks": ["race"]}
        ).json(),
        "malformed": [(found := httpx.post(url, json={"image": 1})).status_code, found.json()],
        "handle": handle.predict.remote(images[0], ["race"]).result(),
        "many": handle.predict_many.remote([*images, b"no image"]).result(),
        "status": str(status.status),
        "replicas": dict(status.deployments["Predictor"].replica_states),
    }
    serve.shutdown()
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:3], sys.argv[3:])
