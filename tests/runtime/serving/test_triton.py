"""A Triton server with the Python backend, for real: it loads a repository, answers over HTTP and gRPC, and ends."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.export.packages.triton import write_repository
from mtl_deploy.runtime import load
from tests.runtime.serving.environments import CannotBeMadeError
from tests.runtime.serving.triton_place import Server, make, serving

HERE = Path(__file__).parent

pytestmark = pytest.mark.extended


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    found = []
    for number, (height, width) in enumerate([(8, 8), (30, 20), (9, 50)]):
        found.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(found[-1])
    return found


@pytest.fixture
def environment() -> Path:
    try:
        return make()
    except CannotBeMadeError as error:
        pytest.skip(f"no Triton server: {error}")


def asked(environment: Path, server: Server, files: list[Path]) -> dict[str, Any]:
    command = [str(environment), str(HERE / "client.py"), server.http, server.grpc, "tiny", *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def test_a_server_answers_as_the_runtime_does(
    make_bundle: Any, environment: Path, files: list[Path], tmp_path: Path
) -> None:
    bundle = make_bundle()
    write_repository(bundle, tmp_path / "written")
    repository = tmp_path / "repository"  # this server has only the Python backend
    repository.mkdir()
    (tmp_path / "written" / "tiny").replace(repository / "tiny")
    with load(bundle) as model:
        expected = [{name: value.to_dict() for name, value in one.items()} for one in model.predict(files)]
        outputs = model(files)
    with serving(repository, tmp_path / "server.log") as server:
        said = asked(environment, server, files)
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=30) as metrics:
            text = metrics.read().decode()
    for way in ("http", "grpc"):
        found = said[way]
        assert found["all"]["predictions"] == expected
        for name, values in outputs.items():
            np.testing.assert_allclose(found["all"][name], values, rtol=1e-5, atol=1e-6)
        assert found["one tensor"]["age"] == found["all"]["age"]
        assert found["one tensor"]["predictions"] is found["one tensor"]["race"] is None
        assert found["one prediction"]["predictions"] == [
            {name: one[name] for name in ("age", "race")} for one in expected
        ]
        assert "no task is called 'nose'" in found["unknown task"]
        assert "image 1" in found["damaged image"]
        assert "not an image" in found["damaged image"]
    assert 'nv_inference_count{model="tiny",version="1"}' in text
    counts = [line for line in text.splitlines() if line.startswith("nv_inference_request_success")]
    assert counts == ['nv_inference_request_success{model="tiny",version="1"} 10']


_PARSED = """
import json, sys
from pathlib import Path
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

print(json.dumps({
    path.parent.name: json_format.MessageToDict(text_format.Parse(path.read_text(), model_config_pb2.ModelConfig()))
    for path in Path(sys.argv[1]).glob("*/config.pbtxt")
}))
"""


def parsed(environment: Path, repository: Path) -> dict[str, Any]:
    command = [str(environment), "-c", _PARSED, str(repository)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_configurations_are_what_triton_defines(make_bundle: Any, environment: Path, tmp_path: Path) -> None:
    write_repository(make_bundle(batch_max=16), tmp_path / "repository")
    found = parsed(environment, tmp_path / "repository")
    assert set(found) == {"tiny", "tiny-fp32", "tiny-fp16"}
    raw = found["tiny-fp32"]
    assert raw["backend"] == "onnxruntime"
    assert raw["maxBatchSize"] == 16
    assert raw["input"] == [{"name": "image", "dataType": "TYPE_UINT8", "dims": ["8", "8", "3"]}]
    outputs = {output["name"]: output for output in raw["output"]}
    assert outputs["age"] == {"name": "age", "dataType": "TYPE_FP32", "dims": ["1"]}
    assert outputs["race"] == {"name": "race", "dataType": "TYPE_FP32", "dims": ["3"], "labelFilename": "race.txt"}
    assert raw["modelWarmup"][0]["inputs"]["image"] == {
        "dataType": "TYPE_UINT8",
        "dims": ["8", "8", "3"],
        "zeroData": True,
    }
    assert raw["versionPolicy"] == {"latest": {"numVersions": 1}}
    assert raw["dynamicBatching"] == {"maxQueueDelayMicroseconds": "1000"}
    encoded = found["tiny"]
    assert encoded["backend"] == "python"
    assert encoded["input"] == [{"name": "image", "dataType": "TYPE_STRING", "dims": ["1"]}]
    assert [output["name"] for output in encoded["output"]] == ["predictions", "age", "gender", "race"]


def test_a_fixed_batch_is_a_dimension_of_its_own(make_bundle: Any, environment: Path, tmp_path: Path) -> None:
    write_repository(make_bundle(batch=4, image_input="float"), tmp_path / "repository", ["fp32"])
    raw = parsed(environment, tmp_path / "repository")["tiny-fp32"]
    assert "maxBatchSize" not in raw  # 0: Triton adds no dimension
    assert raw["input"] == [{"name": "image", "dataType": "TYPE_FP32", "dims": ["4", "3", "8", "8"]}]
    assert [output["dims"] for output in raw["output"]] == [["4", "1"], ["4", "1"], ["4", "3"]]
    assert "dynamicBatching" not in raw
