"""Whole exports, from a file to a bundle that the runtime runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_networks
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from PIL import Image

from mtl_deploy.export.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import digest, open_bundle
from mtl_deploy.runtime.cli import main as predict
from mtl_deploy.runtime.errors import IntegrityError

NETWORKS = Path(__file__).parents[1] / "networks"  # modules that a user has in the current folder

Export = Callable[..., Path]
TASKS = ("--task", "age=regression:years", "--task", "gender=binary:male,female", "--task", "race=multiclass")
SMALL = ("--image-size", "24x16", *TASKS)
PIXELS = np.random.default_rng(3).integers(0, 256, (4, 24, 16, 3), dtype=np.uint8)


def pickled(network: torch.nn.Module, folder: Path) -> Path:
    path = folder / "network.pt"
    torch.save(network.eval(), path)
    return path


def expected(network: torch.nn.Module) -> dict[str, np.ndarray]:
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        features = network.backbone((torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255 - mean) / std)
        return {
            "age": network.age(features).numpy(),
            "gender": network.gender(features).sigmoid().numpy(),
            "race": network.race(features).softmax(1).numpy(),
        }


@pytest.mark.parametrize(
    "network", [small_networks.ReversedDict, small_networks.Named, small_networks.Flat, small_networks.Repeating]
)
def test_names_follow_values_whatever_the_network_returns(network: Any, tmp_path: Path, export_file: Export) -> None:
    module = network()
    bundle = export_file(pickled(module, tmp_path), "--trust-pickle", *SMALL)
    with load(bundle) as model:
        found = model(PIXELS)
    for task, values in expected(module).items():
        np.testing.assert_allclose(found[task], values, atol=1e-5)


def test_the_bundle_holds_what_the_manifest_says(article_bundle: Path) -> None:
    manifest = json.loads((article_bundle / "manifest.json").read_text())
    files = {str(path.relative_to(article_bundle)) for path in article_bundle.rglob("*.onnx")}

    assert manifest["schema_version"] == 1
    assert {artifact["path"] for artifact in manifest["artifacts"]} == files
    assert files == {
        "fp32.onnx",
        "fp16.onnx",
        *(f"separate/{task}{suffix}.onnx" for task in ("age", "gender", "race") for suffix in ("", ".fp16")),
    }
    for artifact in manifest["artifacts"]:
        file = article_bundle / artifact["path"]
        assert digest(file) == artifact["sha256"]
        assert file.stat().st_size == artifact["size_bytes"]
        assert onnx.load(file).opset_import[0].version == artifact["opset"] == 17
    verified = {(row["artifact"], row["task"]) for row in manifest["verification"]}
    assert verified == {(artifact["path"], task) for artifact in manifest["artifacts"] for task in artifact["tasks"]}
    assert all(row["max_error"] <= row["tolerance"] and row["samples"] >= 32 for row in manifest["verification"])


def test_the_articles_network_is_known_without_a_task_file(article_bundle: Path) -> None:
    manifest = open_bundle(article_bundle).manifest
    assert [(task.name, task.kind) for task in manifest.tasks] == [
        ("age", "regression"),
        ("gender", "binary"),
        ("race", "multiclass"),
    ]
    assert manifest.tasks[0].unit == "years"
    assert manifest.tasks[1].labels == ("male", "female")
    assert manifest.sharing["backbone_copies"] == 3
    work = manifest.sharing["multiply_adds"]
    assert work["network"] == pytest.approx(3 * work["backbone"] + sum(work["heads"].values()))
    assert work["shared"] == work["backbone"] + sum(work["heads"].values())


def test_the_graph_runs_the_backbone_once(article_bundle: Path) -> None:
    operators = [node.op_type for node in onnx.load(article_bundle / "fp32.onnx").graph.node]
    assert operators.count("Conv") == 20  # a ResNet-18 has 20 convolutions
    assert "BatchNormalization" not in operators


def test_separate_models_agree_with_the_shared_one(article_bundle: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with load(article_bundle) as model:
        together = model(image)
    for task, values in together.items():
        with load(article_bundle / "separate" / f"{task}.onnx") as alone:
            found = alone(image)
        assert set(found) == {task}
        np.testing.assert_allclose(found[task], values, atol=1e-5)


def test_a_lone_graph_still_decodes(article_bundle: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.onnx"
    lone.write_bytes((article_bundle / "fp32.onnx").read_bytes())
    with load(lone) as model:
        prediction = model.predict(np.zeros((64, 64, 3), np.uint8))
    assert prediction["gender"].label in ("male", "female")
    assert prediction["age"].unit == "years"


def test_a_program_is_exported_with_its_own_size_and_batch(tmp_path: Path, export_file: Export) -> None:
    module = small_networks.ReversedDict().eval()
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 24, 16),)), path)

    bundle = export_file(path, *TASKS)
    manifest = open_bundle(bundle).manifest
    assert (manifest.signature.preprocessing.height, manifest.signature.preprocessing.width) == (24, 16)
    assert {(artifact.batch_min, artifact.batch_max) for artifact in manifest.artifacts} == {(1, 1)}
    with load(bundle) as model:
        found = model(PIXELS[:1])
    np.testing.assert_allclose(found["race"], expected(module)["race"][:1], atol=1e-5)


def test_a_program_with_a_free_batch_keeps_it(tmp_path: Path, export_file: Export) -> None:
    module = small_networks.ReversedDict().eval()
    path = tmp_path / "program.pt2"
    free = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3, 24, 16),), dynamic_shapes=free), path)

    with load(export_file(path, *TASKS)) as model:
        found = model(PIXELS)
    np.testing.assert_allclose(found["age"], expected(module)["age"], atol=1e-5)


def test_a_bundle_is_signed_on_the_way(tmp_path: Path, export_file: Export) -> None:
    key, path = Ed25519PrivateKey.generate(), tmp_path / "program.pt2"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    torch.export.save(torch.export.export(small_networks.ReversedDict().eval(), (torch.zeros(1, 3, 24, 16),)), path)
    bundle = export_file(path, *TASKS, "--sign", str(tmp_path / "key.pem"))
    load(bundle, verify_key=key.public_key().public_bytes_raw()).close()
    with pytest.raises(IntegrityError, match="not this key's"):
        load(bundle, verify_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw())


def test_a_network_that_fixes_its_batch_is_exported_for_it_and_says_so(tmp_path: Path, export_file: Export) -> None:
    bundle = export_file(pickled(small_networks.FixedBatch(), tmp_path), "--trust-pickle", *SMALL)
    manifest = open_bundle(bundle).manifest
    assert manifest.artifacts[0].batch_max == 1
    assert "one image at a time" in manifest.provenance["notes"][0]


def test_weights_for_a_factory_of_the_users(
    tmp_path: Path, export_file: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(NETWORKS)
    torch.save({"epoch": 3, "model_state_dict": small_networks.make().state_dict()}, tmp_path / "weights.pt")
    bundle = export_file(tmp_path / "weights.pt", "--model", "small_networks:make", *SMALL)
    assert [task.output for task in open_bundle(bundle).manifest.tasks] == ["age", "gender", "race"]


def test_heads_that_share_nothing_are_reported_as_such(
    tmp_path: Path, export_file: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export_file(pickled(small_networks.Unshared(), tmp_path), "--trust-pickle", *SMALL)
    sharing = open_bundle(bundle).manifest.sharing
    assert sharing["shares_backbone"] is False
    assert sharing["ideal_ratio"] == 1.0
    assert "The heads share nothing" in capsys.readouterr().out


def test_values_that_overflow_fp16_are_kept_in_fp32_and_named(
    tmp_path: Path, export_file: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export_file(pickled(small_networks.Overflowing(), tmp_path), "--trust-pickle", *SMALL)
    (half,) = (a for a in open_bundle(bundle).manifest.artifacts if a.path == "fp16.onnx")
    overflows = half.details["overflows"]
    assert overflows
    assert all(each["absmax"] > 65504 / 2 for each in overflows)
    assert f"{overflows[0]['tensor']} overflows" in capsys.readouterr().out
    rows = [row for row in open_bundle(bundle).manifest.verification if row["artifact"] == "fp16.onnx"]
    assert all(row["max_error"] <= row["tolerance"] for row in rows)


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_the_opset_is_the_one_asked_for(opset: int, tmp_path: Path, export_file: Export) -> None:
    checkpoint = pickled(small_networks.Shared(), tmp_path)
    bundle = export_file(checkpoint, "--trust-pickle", "--opset", str(opset), "--precision", "fp32", *SMALL)
    assert {onnx.load(path).opset_import[0].version for path in bundle.rglob("*.onnx")} == {opset}


def test_float_input_and_logits(tmp_path: Path, export_file: Export) -> None:
    module = small_networks.Shared()
    arguments = ("--trust-pickle", "--input", "float", "--outputs", "logits", *SMALL)
    bundle = export_file(pickled(module, tmp_path), *arguments)
    with load(bundle) as model:
        found = model(PIXELS)
        assert model.predict(PIXELS)[0]["gender"].label in ("male", "female")
    probability = 1 / (1 + np.exp(-found["gender"]))
    np.testing.assert_allclose(probability, expected(module)["gender"], atol=1e-5)


def test_the_same_input_gives_the_same_graphs(tmp_path: Path, export_file: Export) -> None:
    checkpoint = pickled(small_networks.Shared(), tmp_path)
    digests = []
    for _ in range(2):
        bundle = export_file(checkpoint, "--trust-pickle", "--force", *SMALL)
        digests.append([artifact.sha256 for artifact in open_bundle(bundle).manifest.artifacts])
    assert digests[0] == digests[1]


def test_without_separate_models_and_fp16_there_is_one_graph(tmp_path: Path, export_file: Export) -> None:
    checkpoint = pickled(small_networks.Shared(), tmp_path)
    bundle = export_file(checkpoint, "--trust-pickle", "--no-separate", "--precision", "fp32", *SMALL)
    assert [path.name for path in bundle.rglob("*.onnx")] == ["fp32.onnx"]


def test_json_prints_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = pickled(small_networks.Shared(), tmp_path)
    target = tmp_path / "out.mtl"
    assert main([str(checkpoint), "--trust-pickle", "--json", "-o", str(target), *SMALL]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bundle"] == str(target)
    assert result["manifest"] == json.loads((target / "manifest.json").read_text())


def test_the_report_shows_every_graph_and_task(
    article_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    for number in range(32):
        Image.fromarray(np.roll(PIXELS[number % 4] // (1 + number // 8), number)).save(photos / f"{number}.png")
    arguments = [str(article_checkpoint), "--image-size", "64", "--precision", "fp32", "-o", str(tmp_path)]
    code = main([*arguments, "--images", str(photos)])
    out, err = capsys.readouterr()
    assert code == 0, err
    infer, calibrate, bench = (shlex.split(line) for line in out[out.index("\nNext:\n") :].splitlines()[2:])
    assert calibrate[:4] == ["mtl-calibrate", str(tmp_path / "model.mtl"), "--calibration-data", str(photos)]
    assert bench == ["mtl-bench", str(tmp_path / "model.mtl")]
    assert predict(infer[1:]) == 0
    assert str(photos / "3.png") in capsys.readouterr().out
    assert (tmp_path / "model.mtl" / "fp32.onnx").is_file()
    assert "The network runs its backbone 3 times" in out
    for path in ("fp32.onnx", "separate/age.onnx", "separate/gender.onnx", "separate/race.onnx"):
        assert path in out
