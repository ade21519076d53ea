"""INT8 graphs in parts: cut where the FP32 graph is, and left whole, with the reason, where their parts do not agree."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.calibration.int8_files import with_parts
from mtl_deploy.calibration.split import measured
from mtl_deploy.runtime.bundle.manifest import Manifest, open_bundle
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import VerificationError
from tests.networks.split_bundle import PARTS, SIZE, uneven_graph, write_uneven_bundle

IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
QUIET = Progress(quiet=True)


def with_int8(bundle: Path) -> Manifest:
    """Add a shared graph that counts as INT8."""
    manifest = open_bundle(bundle).manifest
    content = uneven_graph()
    (bundle / "int8-cpu.onnx").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    added = replace(manifest.artifacts[0], path="int8-cpu.onnx", precision="int8-cpu", sha256=sha256)
    return replace(manifest, artifacts=(*manifest.artifacts, added))


def test_int8_graphs_are_cut_where_the_fp32_graph_is(tmp_path: Path) -> None:
    bundle = write_uneven_bundle(tmp_path / "a.mtl")
    found = with_parts(bundle, with_int8(bundle), IMAGES, threads=1, progress=QUIET)
    paths = [part.path for part in found.parts]
    assert sorted(paths) == sorted(f"split/{kind}/{name}.onnx" for kind in ("fp32", "int8-cpu") for name in PARTS)
    assert found.sharing["cut"]["int8-cpu"]["exact"] is True
    assert all((bundle / path).is_file() for path in paths)
    again = with_parts(bundle, found, IMAGES, threads=1, progress=QUIET)
    assert [part.path for part in again.parts] == paths


def test_a_bundle_without_parts_gets_none(tmp_path: Path) -> None:
    bundle = write_uneven_bundle(tmp_path / "a.mtl")
    manifest = replace(with_int8(bundle), parts=())
    assert with_parts(bundle, manifest, IMAGES, threads=1, progress=QUIET) is manifest


def test_parts_that_do_not_agree_are_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_uneven_bundle(tmp_path / "a.mtl")
    found = with_parts(bundle, with_int8(bundle), IMAGES, threads=1, progress=QUIET)

    def differ(*_: object, **__: object) -> None:
        raise VerificationError("they differ")

    monkeypatch.setattr(measured, "_differences", differ)
    left = with_parts(bundle, found, IMAGES, threads=1, progress=QUIET)
    assert {part.precision for part in left.parts} == {"fp32"}
    assert left.provenance["left_out"] == {"split int8-cpu": "they differ"}
    assert "int8-cpu" not in left.sharing["cut"]
    assert list((bundle / "split/int8-cpu").iterdir()) == []  # nothing stale stays
    monkeypatch.undo()
    mended = with_parts(bundle, left, IMAGES, threads=1, progress=QUIET)
    assert "split int8-cpu" not in mended.provenance.get("left_out", {})
