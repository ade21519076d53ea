"""What serving costs: a bundle called directly, by Triton and by Ray Serve, with 1 and 8 clients, in one run, in turn.

``python examples/serving.py --bundle model.mtl`` prints images per second and processor time per image, and each as a ratio to
the direct call of the same round (medians over the rounds). Processor time is that of all processes that serve, clients not
counted; so the decoding of images, the batches and the network count on all sides. ``make triton`` and the tests of Ray make the
two environments.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtl_deploy.export.packages.triton import write_repository  # noqa: E402
from mtl_deploy.runtime import load  # noqa: E402
from mtl_deploy.runtime.bundle.manifest import open_bundle  # noqa: E402
from mtl_deploy.runtime.serving.answers import answers  # noqa: E402
from tests.runtime.serving import environments, triton_place  # noqa: E402
from tests.runtime.serving.test_ray import NEEDED as RAY_NEEDS  # noqa: E402

_CLIENTS = (1, 8)
_TOGETHER = "Ray, 8 each"  # images per request


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        rate: images per second.
        cpu_ms: processor time per image of all that serves, in milliseconds.
        parts: the same by part of the server.
    """

    rate: float
    cpu_ms: float
    parts: dict[str, float] = field(default_factory=dict)


_PARTS = {"ServeReplica": "replica", "ProxyActor": "HTTP proxy", "triton_python_b": "model", "tritonserver": "server"}


def processor_seconds(process: psutil.Process) -> dict[str, float]:
    """Return the processor time of a process and all below it, by part."""
    found: dict[str, float] = {}
    for one in [process, *process.children(recursive=True)]:
        try:
            times, called = one.cpu_times(), " ".join([one.name(), *one.cmdline()[:1]])
        except psutil.NoSuchProcess:
            continue
        part = next((word for name, word in _PARTS.items() if name in called), "the rest")
        found[part] = found.get(part, 0.0) + times.user + times.system
    return found


def driven(
    ask: Callable[[int], Callable[[], None]], clients: int, seconds: float, process: psutil.Process, each: int = 1
) -> Row:
    """Let clients ask one after the other, each without a pause, and measure what serves them."""
    asks = [ask(number) for number in range(clients)]
    for one in asks:
        one()
    counts = [0] * clients
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        while time.monotonic() < until:
            asks[number]()
            counts[number] += each

    before, start = processor_seconds(process), time.monotonic()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken, after = time.monotonic() - start, processor_seconds(process)
    parts = {part: 1000 * (spent - before.get(part, 0.0)) / sum(counts) for part, spent in after.items()}
    return Row(sum(counts) / taken, sum(parts.values()), parts)


def direct(bundle: Path, image: bytes, batch: int, seconds: float) -> Row:
    """Measure calls in this process, with as many images each as there are clients."""
    own = psutil.Process()
    with load(bundle, spinning=False) as model:
        names = [task.name for task in model.tasks]
        answers(model, [image] * batch, names)
        until, count = time.monotonic() + seconds, 0
        before, start = sum(own.cpu_times()[:2]), time.monotonic()
        while time.monotonic() < until:
            answers(model, [image] * batch, names)
            count += batch
        return Row(count / (time.monotonic() - start), 1000 * (sum(own.cpu_times()[:2]) - before) / count)


def posting(address: str, path: str, body: bytes, headers: dict[str, str]) -> Callable[[int], Callable[[], None]]:
    """Return a maker of clients that post the same request again and again, each over one connection."""

    def make(_: int) -> Callable[[], None]:
        connection = HTTPConnection(address, timeout=60)

        def ask() -> None:
            connection.request("POST", path, body, headers)
            with connection.getresponse() as response:
                response.read()
                if response.status != 200:
                    raise SystemExit(f"{path}: {response.status}")

        return ask

    return make


def triton_request(image: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a request for predictions in the binary form of the Open Inference Protocol's HTTP."""
    content = len(image).to_bytes(4, "little") + image
    header = (
        '{"inputs":[{"name":"image","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":'
        f"{len(content)}"
        '}}],"outputs":[{"name":"predictions"}]}'
    ).encode()
    return header + content, {"Inference-Header-Content-Length": str(len(header))}


@contextmanager
def ray_serving(bundle: Path, port: int) -> Iterator[psutil.Process]:
    """Serve by Ray, in its own environment."""
    python = environments.make(ROOT / ".ray", RAY_NEEDS)
    code = f"""
import ray, time
from ray import serve
from mtl_deploy.runtime.serving.ray_serve import app
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={{"host": "127.0.0.1", "port": {port}}})
serve.run(app({{"bundle": {str(bundle)!r}, "max_batch_size": "8"}}))
print("ready", flush=True)
time.sleep(3600)
"""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([str(python), "-c", code], stdout=subprocess.PIPE, stderr=log, text=True)
        assert server.stdout is not None
        for line in server.stdout:
            if "ready" in line:
                break
        try:
            yield psutil.Process(server.pid)
        finally:
            for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
                process.kill()
            server.wait()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    image = stream.getvalue()
    triton_place.make()
    name = open_bundle(arguments.bundle).manifest.name
    found: dict[tuple[str, int], list[Row]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_repository(arguments.bundle, Path(folder) / "all")
        (Path(folder) / "served").mkdir()
        (Path(folder) / "all" / name).replace(Path(folder) / "served" / name)
        (port,) = triton_place.free_ports(1)
        with (
            triton_place.serving(Path(folder) / "served", Path(folder) / "log") as triton,
            ray_serving(arguments.bundle.resolve(), port) as ray,
        ):
            body, headers = triton_request(image)
            listed = json.dumps({"images": [base64.b64encode(image).decode()] * _CLIENTS[-1]}).encode()
            served = psutil.Process(triton.process)
            ways: dict[str, tuple[psutil.Process, Callable[[int], Callable[[], None]]]] = {
                "Triton": (served, posting(triton.http, f"/v2/models/{name}/infer", body, headers)),
                "Ray Serve": (ray, posting(f"127.0.0.1:{port}", "/", image, {})),
                _TOGETHER: (ray, posting(f"127.0.0.1:{port}", "/", listed, {"Content-Type": "application/json"})),
            }
            urllib.request.urlopen(f"http://{triton.http}/v2/health/ready").close()
            for number in range(arguments.rounds):
                for clients in _CLIENTS:
                    row = direct(arguments.bundle, image, clients, arguments.seconds)
                    found.setdefault(("direct", clients), []).append(row)
                    for way, (process, ask) in ways.items():
                        if way == _TOGETHER and clients > 1:
                            continue
                        row = driven(ask, clients, arguments.seconds, process, _CLIENTS[-1] if way == _TOGETHER else 1)
                        found.setdefault((way, clients), []).append(row)
                print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    print(f"{'':12}{'clients':>8}{'images/s':>10}{'ratio':>7}{'CPU ms':>8}{'ratio':>7}")
    for (way, clients), rows in sorted(found.items(), key=lambda item: item[0][1]):
        base = found["direct", _CLIENTS[-1] if way == _TOGETHER else clients]
        rates = statistics.median(row.rate / other.rate for row, other in zip(rows, base, strict=True))
        cpus = statistics.median(row.cpu_ms / other.cpu_ms for row, other in zip(rows, base, strict=True))
        rate, cpu = statistics.median(row.rate for row in rows), statistics.median(row.cpu_ms for row in rows)
        parts = {part: statistics.median(row.parts.get(part, 0.0) for row in rows) for part in rows[0].parts}
        told = ", ".join(f"{part} {spent:.1f}" for part, spent in sorted(parts.items(), key=lambda item: -item[1]))
        print(f"{way:12}{clients:8}{rate:10.1f}{rates:7.2f}{cpu:8.1f}{cpus:7.2f}  {told}")


if __name__ == "__main__":
    main()
