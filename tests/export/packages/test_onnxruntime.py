"""ONNX Runtime's model package, opened and run by ONNX Runtime itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.export.cli import main
from mtl_deploy.export.packages.onnxruntime import VARIANTS
from mtl_deploy.runtime import load
from tests.conformance.modules import fetched

_OPENED = """
import json, sys
import numpy as np
import onnxruntime as ort

package = ort.ModelPackage.open(sys.argv[1], strict_unknown_fields=True)
info = package.get_info()
assets = [ort.ModelPackage.compute_directory_hash(package.resolve_asset_uri(asset["uri"])) for asset in info["shared_assets"]]
context = ort.ModelPackageContext(sys.argv[1])
chosen = context.select_component("shared", ort.ModelPackageOptions(ort.SessionOptions()))
session = chosen.create_session(None)
names = [output.name for output in session.get_outputs()]
found = session.run(names, {"image": np.load(sys.argv[2])})
np.savez(sys.argv[3], **dict(zip(names, found)))
print(json.dumps({
    "version": ort.__version__, "chosen": chosen.get_selected_variant_name(), "assets": assets,
    "listed": [asset["uri"] for asset in info["shared_assets"]], "name": info["package_name"],
    "metadata": json.loads(info["additional_metadata_json"]),
    "variants": {variant["name"]: variant["ep"] for variant in info["components"][0]["variants"]},
}))
"""


def packed(bundle: Path, folder: Path, *options: str) -> dict[str, Any]:
    assert main([str(bundle), "--package", "ort", str(folder), *options]) == 0
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return document


def precisions(document: dict[str, Any]) -> dict[str, str]:
    variants = document["components"]["shared"]["variants"]
    return {name: variant["additional_metadata"]["precision"] for name, variant in variants.items()}


def test_each_provider_has_a_variant_and_graphs_are_stored_once(article_bundle: Path, tmp_path: Path) -> None:
    document = packed(article_bundle, tmp_path / "packed")
    assert precisions(document) == {
        "cpu": "fp32",
        "openvino": "fp32",
        "cuda": "fp16",
        "tensorrt": "fp16",
        "tensorrt-rtx": "fp16",
    }
    files = sorted(path.name for path in (tmp_path / "packed").rglob("*.onnx"))
    assert files == ["fp16.onnx", "fp32.onnx"]
    original = json.loads((article_bundle / "manifest.json").read_text(encoding="utf-8"))
    assert document["additional_metadata"]["mtl_deploy"]["signature"] == original["signature"]


def test_precisions_can_be_chosen_and_what_is_missing_is_said(
    article_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(precisions(packed(article_bundle, tmp_path / "a", "--precision", "fp32")).values()) == {"fp32"}
    document = packed(
        article_bundle, tmp_path / "b", "--precision", "fp16"
    )  # a processor's provider gains nothing by it
    assert set(precisions(document)) == {"cuda", "tensorrt", "tensorrt-rtx"}
    assert main([str(article_bundle), "--package", "ort", str(tmp_path / "c"), "--precision", "int8"]) == 2
    assert "has no int8 graph" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_package_is_replaced_only_when_forced_and_never_its_own_source(
    article_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(article_bundle, tmp_path / "packed")
    assert main([str(article_bundle), "--package", "ort", str(tmp_path / "packed")]) == 2
    advice = "pass --force to replace it, or choose another place with --package ort"
    assert advice in capsys.readouterr().err  # --output does not name this folder
    packed(article_bundle, tmp_path / "packed", "--force")
    assert main([str(article_bundle), "--package", "ort", str(article_bundle), "--force"]) == 2
    assert "would be replaced: move it, or choose another place with --package ort" in capsys.readouterr().err
    with load(article_bundle) as model:
        assert model.tasks


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["BUNDLE", "--package", "zip", "OUT"], "the formats are: ort"),
        (["BUNDLE", "--package", "ort", "OUT", "-o", "OTHER"], "leave --output out"),
        (["weights.pt", "--package", "ort", "OUT"], "export it first"),
    ],
)
def test_misuse_is_said(
    arguments: list[str], said: str, article_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"BUNDLE": article_bundle, "OUT": tmp_path / "out", "OTHER": tmp_path / "other"}
    assert main([str(places.get(word, word)) for word in arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.extended
def test_onnx_runtime_opens_the_package_and_computes_what_the_runtime_does(
    article_bundle: Path, tmp_path: Path
) -> None:
    folder = fetched("onnxruntime==1.32.0")
    packed(article_bundle, tmp_path / "packed")
    with load(article_bundle, precision="fp32") as model:
        size = model.signature.preprocessing
        shape = (2, size.height, size.width, 3)
        images = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
        expected = model(images)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", _OPENED, *(str(tmp_path / name) for name in ("packed", "images.npy", "found.npz"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["version"] == "1.32.0"
    assert said["chosen"] == "cpu"
    assert said["variants"] == {variant.name: variant.provider for variant in VARIANTS}
    assert said["assets"] == said["listed"]
    assert len(said["assets"]) == 2
    assert said["metadata"]["mtl_deploy"]["name"] == said["name"]
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
