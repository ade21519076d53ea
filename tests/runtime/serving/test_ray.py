"""Ray on a local cluster of two workers, for real: Serve answers, and Data labels a folder while a worker is killed."""

from __future__ import annotations

import ast
import io
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import load
from tests.runtime.serving import environments
from tests.runtime.serving.environments import ROOT, CannotBeMadeError

HERE = Path(__file__).parent
NEEDED = ("ray[data,serve]==2.60.0", "pyarrow>=15", "onnxruntime>=1.20", "pillow>=10.1", "psutil>=5.9", "httpx>=0.27")
COUNT = 120

pytestmark = pytest.mark.extended


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return environments.make(ROOT / ".ray", NEEDED)
    except CannotBeMadeError as error:
        pytest.skip(f"no Ray: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes, one of them damaged."""
    made = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (20 + number % 7, 30, 3), dtype=np.uint8)
        (made / f"{number % 3}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(made / f"{number % 3}" / f"{number:03d}.png")
    (made / "1" / "031.png").write_bytes(b"no image")
    return made


def ran(python: Path, script: str, *arguments: object) -> str:
    command = [str(python), str(HERE / script), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout.strip().splitlines()[-1]


def labelled(python: Path, bundle: Path, source: Path, output: Path, kill: str = "none") -> dict[str, int]:
    found: dict[str, int] = ast.literal_eval(ran(python, "label_images.py", bundle, source, output, 4, kill))
    return found


def rows(python: Path, output: Path) -> list[dict[str, Any]]:
    """Return all rows, in the order of the files."""
    code = """
import json, sys
from pathlib import Path
import pyarrow, pyarrow.parquet
tables = [pyarrow.parquet.read_table(file) for file in sorted(Path(sys.argv[1]).glob("part-*.parquet"))]
print(json.dumps(pyarrow.concat_tables(tables).to_pylist()))
"""
    command = [str(python), "-c", code, str(output)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    return found


def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    python: Path, folder: Path, make_bundle: Any, tmp_path: Path
) -> None:
    bundle = make_bundle()
    done = labelled(python, bundle, folder, tmp_path / "out", "kill")
    assert done == {"images": COUNT, "broken": 1, "parts": COUNT // 4, "resumed": 0, "killed": 1}
    found = rows(python, tmp_path / "out")
    expected = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert [row["path"] for row in found] == expected
    broken = [json.loads(line) for line in (tmp_path / "out" / "_broken.jsonl").read_text().splitlines()]
    assert [row["path"] for row in broken] == ["1/031.png"]
    assert not list((tmp_path / "out").glob(".*"))
    with load(bundle) as model:
        for row in found:
            if row["path"] == "1/031.png":
                assert row["age"] is row["race"] is None
                assert "not an image" in row["error"]
                continue
            predictions = model.predict(folder / row["path"])
            assert row["age"] == pytest.approx(predictions["age"].value, rel=1e-5)
            assert row["race"] == predictions["race"].label
            assert row["race.probability"] == pytest.approx(predictions["race"].probability, rel=1e-4)
            assert row["error"] is None


def test_a_run_goes_on_where_it_was_and_another_is_refused(
    python: Path, folder: Path, make_bundle: Any, tmp_path: Path
) -> None:
    bundle = make_bundle()
    labelled(python, bundle, folder, tmp_path / "out")
    first = rows(python, tmp_path / "out")
    for number in (3, 4, 29):
        (tmp_path / "out" / f"part-{number:06d}.parquet").unlink()
    done = labelled(python, bundle, folder, tmp_path / "out")
    assert done["resumed"] == COUNT // 4 - 3
    assert rows(python, tmp_path / "out") == first
    with pytest.raises(AssertionError, match="holds results of other images"):
        labelled(python, make_bundle(tmp_path / "other.mtl", outputs="logits"), folder, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(AssertionError, match="is not empty"):
        labelled(python, bundle, folder, tmp_path / "mine")


def test_images_in_parquet_are_labelled_too(python: Path, folder: Path, make_bundle: Any, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import pyarrow, pyarrow.parquet
files = sorted(Path(sys.argv[1]).rglob("*.png"))[:10]
table = pyarrow.table({"path": [file.name for file in files], "bytes": [file.read_bytes() for file in files]})
pyarrow.parquet.write_table(table, sys.argv[2], row_group_size=4)
"""
    table = tmp_path / "images.parquet"
    subprocess.run([str(python), "-c", code, str(folder), str(table)], check=True, timeout=120)
    done = labelled(python, make_bundle(), table, tmp_path / "out")
    assert (done["images"], done["parts"]) == (10, 3)
    names = [path.name for path in sorted(folder.rglob("*.png"))[:10]]
    assert [row["path"] for row in rows(python, tmp_path / "out")] == names


def test_a_deployment_answers_as_the_runtime_does(python: Path, folder: Path, make_bundle: Any, tmp_path: Path) -> None:
    bundle = make_bundle()
    files = [folder / "0" / "000.png", folder / "1" / "001.png"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = json.loads(ran(python, "serve_images.py", bundle, port, *files))
    with load(bundle) as model:
        expected = [{name: value.to_dict() for name, value in one.items()} for one in model.predict(files)]

    def close(found: Any, wanted: Any) -> None:
        assert found["race"]["label"] == wanted["race"]["label"]
        assert found["age"]["value"] == pytest.approx(wanted["age"]["value"], rel=1e-5)

    for (code, found), wanted in zip(said["http"], expected, strict=True):
        assert code == 200
        close(found, wanted)
    assert len(said["at once"]) == 16
    for number, (code, found) in enumerate(said["at once"]):
        assert code == 200
        close(found, expected[number % 2])
    code, found = said["one task"]
    assert (code, set(found)) == (200, {"age"})
    code, found = said["unknown task"]
    assert code == 400
    assert "no task is called 'nose'" in found["error"]
    code, found = said["damaged image"]
    assert code == 400
    assert "not an image" in found["error"]
    assert [set(one) for one in said["json"]] == [{"race"}] * 2
    assert said["malformed"][0] == 400
    assert "images" in said["malformed"][1]["error"]
    assert set(said["handle"]) == {"race"}
    assert ["error" in one for one in said["many"]] == [False, False, True]
    assert said["replicas"] == {"RUNNING": 2}


def test_maps_become_encoded_arrays() -> None:
    from mtl_deploy.runtime.serving.columns import encoded

    classes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded(classes)))), classes)
    depth = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(np.load(io.BytesIO(encoded(depth))), depth)
