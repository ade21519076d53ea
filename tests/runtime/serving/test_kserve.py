"""The example for KServe, served for real and asked by the client that asks Triton."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import load
from tests.runtime.serving import environments
from tests.runtime.serving.environments import ROOT, CannotBeMadeError
from tests.runtime.serving.triton_place import free_ports

HERE = Path(__file__).parent
_NEEDED = ("kserve==0.21.0", "onnxruntime>=1.20", "pillow>=10.1", "tritonclient[grpc,http]==2.73.0")

pytestmark = pytest.mark.extended


def test_the_client_of_triton_asks_kserve(make_bundle: Any, tmp_path: Path) -> None:
    try:
        python = environments.make(ROOT / ".kserve", _NEEDED)
    except CannotBeMadeError as error:
        pytest.skip(f"no KServe: {error}")
    bundle = make_bundle()
    files = []
    for number, (height, width) in enumerate([(8, 8), (30, 20)]):
        files.append(tmp_path / f"{number}.png")
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(files[-1])
    with load(bundle) as model:
        expected = [{name: value.to_dict() for name, value in one.items()} for one in model.predict(files)]
    http, grpc = free_ports(2)
    options = ("--bundle", str(bundle), "--model_name", "tiny", "--http_port", str(http), "--grpc_port", str(grpc))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (tmp_path / "log").open("w") as log:
        command = [str(python), str(ROOT / "examples" / "kserve_model.py"), *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            _await(server, f"http://127.0.0.1:{http}/v2/models/tiny/ready", tmp_path / "log")
            addresses = (f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
            asked = [str(python), str(HERE / "client.py"), *addresses, "tiny", *map(str, files)]
            ended = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=120)
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        finally:
            server.kill()
            server.wait()
    assert ended.returncode == 0, ended.stderr
    for found in json.loads(ended.stdout).values():
        assert [set(one) for one in found["all"]["predictions"]] == [{"age", "gender", "race"}] * 2
        for one, wanted in zip(found["all"]["predictions"], expected, strict=True):
            assert one["age"]["value"] == pytest.approx(wanted["age"]["value"], rel=1e-5)
            assert one["race"]["label"] == wanted["race"]["label"]
        assert found["one tensor"]["age"] == found["all"]["age"]
        assert found["one tensor"]["predictions"] is None
        assert [set(one) for one in found["one prediction"]["predictions"]] == [{"age", "race"}] * 2
        assert "no task is called 'nose'" in found["unknown task"]
        assert "not an image" in found["damaged image"]


def _await(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as found:
                if found.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"not ready:\n{log.read_text()}")
