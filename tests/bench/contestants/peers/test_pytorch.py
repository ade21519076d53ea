from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.peers.pytorch import baseline_specs, checkpoint_warning
from mtl_deploy.runtime.bundle.manifest import digest, open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.errors import OptionError
from tests.conftest import MakeBundle

CPU = Settings(providers=("CPU",))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    return file


def test_both_forms_name_their_starter_and_can_be_sent(make_bundle: MakeBundle, checkpoint: Path) -> None:
    specs = baseline_specs(open_bundle(make_bundle()), checkpoint, "small_networks:make", False, CPU)
    assert [spec.name for spec in specs] == ["pytorch", "pytorch_compile"]
    assert [spec.options["compile"] for spec in specs] == [False, True]
    assert {spec.starter for spec in specs} == {"mtl_deploy.export.baselines.pytorch:start"}
    assert {spec.tasks for spec in specs} == {("age", "gender", "race")}
    assert specs[0].options["model"] == "small_networks:make"
    assert specs[0].total("size_bytes") is None
    assert pickle.loads(pickle.dumps(specs)) == specs


def test_the_name_tells_a_precision_that_is_not_the_runs(make_bundle: MakeBundle, checkpoint: Path) -> None:
    spec, _ = baseline_specs(open_bundle(make_bundle()), checkpoint, None, False, CPU, precision="fp16")
    assert (spec.name, spec.title, spec.precision) == ("pytorch@fp32", "PyTorch's forward, eager, fp32", "fp32")


@pytest.mark.parametrize(
    ("providers", "engines", "device"),
    [
        (("CPU",), False, "cpu"),
        (("CUDA", "CPU"), False, "cuda"),
        (("CUDAExecutionProvider",), False, "cuda"),
        (None, True, "cuda"),
    ],
)
def test_the_device_is_the_runs(
    make_bundle: MakeBundle, checkpoint: Path, providers: tuple[str, ...] | None, engines: bool, device: str
) -> None:
    spec, _ = baseline_specs(open_bundle(make_bundle()), checkpoint, None, False, Settings(providers), engines=engines)
    assert spec.options["device"] == device


def test_a_missing_checkpoint_is_named(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--checkpoint .*none\.pt: no such file"):
        baseline_specs(open_bundle(make_bundle()), tmp_path / "none.pt", None, False, CPU)


def test_another_checkpoint_than_the_bundles_is_told(make_bundle: MakeBundle, checkpoint: Path) -> None:
    bundle = open_bundle(make_bundle())
    assert checkpoint_warning(bundle, checkpoint) is None  # the bundle does not say where it comes from
    for recorded, expected in {digest(checkpoint): False, "0" * 64: True}.items():
        bundle.manifest.provenance["checkpoint"] = {"file": "first.pt", "sha256": recorded}
        write_manifest(bundle.path, bundle.manifest)
        warning = checkpoint_warning(open_bundle(bundle.path), checkpoint)
        assert (warning is not None) == expected
    assert "exported from (first.pt): its SHA-256 differs" in str(warning)
