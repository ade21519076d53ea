"""Bundles of earlier releases: real ones, that those releases wrote, are read, run, and brought into today's form."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from measured_bundles import run_of, write_measured

from mtl_deploy.calibration.report import report as int8_report
from mtl_deploy.export.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import MANIFEST, MEASURED_FILE, SIGNATURE_FILE, digest, open_bundle
from mtl_deploy.runtime.bundle.upgrade import upgraded
from mtl_deploy.runtime.bundle.writing import write_manifest

EARLIER = sorted((Path(__file__).parents[1] / "runtime" / "bundle").glob("earlier_*.zip"))
PIXELS = np.random.default_rng(3).integers(0, 256, (2, 24, 16, 3), dtype=np.uint8)
releases = pytest.mark.parametrize("archive", EARLIER, ids=lambda path: path.stem)


@pytest.fixture
def old(archive: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "old.mtl"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def document(folder: Path) -> dict[str, object]:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def files(folder: Path) -> dict[str, str]:
    return {path.name: digest(path) for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST}


def answers(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for artifact in open_bundle(folder).manifest.artifacts:
        with load(folder / artifact.path, threads=1, providers=["CPU"]) as model:
            found |= {(artifact.path, name): values for name, values in model(PIXELS).items()}
    return found


def test_there_is_a_bundle_of_each_form() -> None:
    assert [path.stem for path in EARLIER] == ["earlier_graphs", "earlier_int8", "earlier_spread"]


@releases
def test_an_earlier_bundle_is_upgraded_in_place_and_says_the_same(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, contents, said = document(old), files(old), answers(old)
    assert main([str(old), "--upgrade"]) == 0
    capsys.readouterr()
    after = document(old)
    assert files(old) == contents
    assert set(after) == {
        *("schema_version", "name", "signature", "artifacts", "sharing"),
        *("verification", "provenance", "reference", "calibration", "accuracy"),
    }
    for key in ("artifacts", "sharing", "verification", "name"):
        assert after[key] == before[key]
    assert after["provenance"] == {"notes": [], "left_out": {}} | before["provenance"]  # type: ignore[operator]
    assert all(np.array_equal(values, said[key]) for key, values in answers(old).items())
    assert "incomplete" not in int8_report(open_bundle(old))
    assert main([str(old), "--upgrade"]) == 0
    assert document(old) == after  # a second time changes nothing


@releases
def test_an_upgraded_manifest_has_the_form_that_this_release_writes(old: Path, article_bundle: Path) -> None:
    manifest = upgraded(open_bundle(old).manifest).to_dict()
    now = document(article_bundle)
    assert manifest["signature"]["preprocessing"].keys() == now["signature"]["preprocessing"].keys()  # type: ignore[index]
    if manifest["calibration"]:
        assert {"methods", "left_out", "doubts", "budgets", "coverage"} <= manifest["calibration"].keys()
        assert set(manifest["calibration"]["errors"]) <= {"int8", "int8-cpu"}
        assert all(row["style"] in ("tensorrt", "cpu") for row in manifest["calibration"]["coverage"])


@pytest.mark.parametrize(
    "archive", [path for path in EARLIER if path.stem == "earlier_int8"], ids=lambda path: path.stem
)
def test_measurements_of_the_same_graphs_stay(old: Path, tmp_path: Path) -> None:
    content = write_measured(old, run_of(old)).read_bytes()
    assert main([str(old), "--upgrade"]) == 0
    assert (old / MEASURED_FILE).read_bytes() == content
    assert main([str(old), "--upgrade", "-o", str(tmp_path / "new.mtl")]) == 0
    assert (tmp_path / "new.mtl" / MEASURED_FILE).read_bytes() == content
    with load(tmp_path / "new.mtl", backend="onnxruntime") as model:
        assert "measured here: " in model.why


def test_a_bundle_of_this_release_is_left_as_it_is(article_bundle: Path, tmp_path: Path) -> None:
    assert main([str(article_bundle), "--upgrade", "-o", str(tmp_path / "new.mtl")]) == 0
    assert document(tmp_path / "new.mtl") == document(article_bundle)
    assert files(tmp_path / "new.mtl") == files(article_bundle)


@pytest.mark.parametrize("archive", EARLIER[:1], ids=lambda path: path.stem)
def test_another_place_a_signature_and_what_is_refused(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    new = tmp_path / "new.mtl"
    before = document(old)
    assert main([str(old), "--upgrade", "-o", str(new), "--sign", str(tmp_path / "key.pem")]) == 0
    assert document(old) == before
    assert (new / SIGNATURE_FILE).is_file()
    load(new, verify_key=key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).close()

    assert main([str(old), "--upgrade", "-o", str(new)]) == 2  # it exists
    (tmp_path / "model.pt").write_bytes(b"PK")
    assert main([str(tmp_path / "model.pt"), "--upgrade"]) == 2
    assert "--upgrade is for bundles" in capsys.readouterr().err
    (old / "fp32.onnx").write_bytes(b"damaged")
    assert main([str(old), "--upgrade"]) == 2
    assert "the file was changed" in capsys.readouterr().err
    assert document(old) == before


@pytest.mark.parametrize("archive", EARLIER[:1], ids=lambda path: path.stem)
def test_a_bundle_of_a_later_version_is_refused(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = open_bundle(old).manifest
    write_manifest(old, manifest)
    (old / MANIFEST).write_text(json.dumps(document(old) | {"schema_version": 2}), encoding="utf-8")
    assert main([str(old), "--upgrade"]) == 2
    assert "schema version 2, this release reads 1" in capsys.readouterr().err
