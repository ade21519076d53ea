"""The reference that a bundle carries, and what engines are measured against it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_networks
import torch
from PIL import Image

from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.engines import check as engine_check
from mtl_deploy.export.steps import truth
from mtl_deploy.export.verification.expected import Expected
from mtl_deploy.export.verification.images import REFERENCES as COUNT
from mtl_deploy.export.verification.images import reference_images
from mtl_deploy.runtime import BundleError, IntegrityError, load
from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.reference import pack, read
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.writing import write_manifest


def test_a_bundles_graph_gives_what_its_reference_holds(article_bundle: Path) -> None:
    found = read(open_bundle(article_bundle))
    assert found is not None
    images, outputs = found.images, found.outputs
    assert images.shape == (COUNT, 64, 64, 3)
    with load(article_bundle, backend="onnxruntime") as model:
        given = model(images)
    for task in ("age", "gender", "race"):
        np.testing.assert_allclose(given[task], outputs[task], rtol=1e-3, atol=1e-5)
        assert len(np.unique(outputs[task][:, 0])) > COUNT // 2  # images that tell networks apart


def test_a_changed_reference_is_not_used(article_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "model.mtl"
    shutil.copytree(article_bundle, bundle)
    file = bundle / "reference.npz"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match=r"reference\.npz: SHA-256 is"):
        read(open_bundle(bundle))


def test_a_malformed_reference_is_an_error_and_a_missing_one_is_none(article_bundle: Path, tmp_path: Path) -> None:
    manifest = open_bundle(article_bundle).manifest
    stream = io.BytesIO()
    np.savez(stream, images=np.zeros(3))
    (tmp_path / "reference.npz").write_bytes(stream.getvalue())
    content, record = pack(np.zeros((1, 2, 2, 3), np.uint8), {})
    (tmp_path / "reference.npz").write_bytes(content)
    with pytest.raises(BundleError, match="malformed"):
        read(Bundle(tmp_path, type(manifest)(manifest.name, manifest.signature, (), reference=record)))
    assert read(Bundle(tmp_path, type(manifest)(manifest.name, manifest.signature, ()))) is None


def test_a_reference_that_leaves_the_bundle_is_refused(article_bundle: Path, tmp_path: Path) -> None:
    manifest = open_bundle(article_bundle).manifest
    evil = type(manifest)(manifest.name, manifest.signature, (), reference={"path": "../../etc/passwd", "sha256": ""})
    write_manifest(tmp_path, evil)
    with pytest.raises(BundleError, match="leaves the bundle"):
        open_bundle(tmp_path)


SMALL = Signature((Task("age", "regression", size=1), Task("race", "multiclass", size=5)), Preprocessing(16, 16))


def test_images_fill_a_fixed_batch() -> None:
    assert len(reference_images(SMALL, None)) == COUNT
    assert len(reference_images(SMALL, 3)) == 9


@pytest.mark.parametrize(("low", "high"), [(1, 8), (1, 1), (3, 5), (8, 8), (16, 32), (1, None)])
def test_the_check_runs_batches_that_the_engine_takes(low: int, high: int | None) -> None:
    from types import SimpleNamespace

    images = reference_images(SMALL, None)
    pieces = engine_check._pieces(images, SimpleNamespace(batch_min=low, batch_max=high))  # type: ignore[arg-type]
    assert all(low <= len(piece) <= (high or COUNT) for piece in pieces)
    joined = np.concatenate(pieces)[:COUNT]
    np.testing.assert_array_equal(joined, images)


@pytest.mark.parametrize(("own", "runs"), [(False, [32]), (True, [32, COUNT])])
def test_the_network_answers_once_for_pictures_that_serve_twice(
    own: bool, runs: list[int], tmp_path: Path, export_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    run_network = truth.run_network

    def noting(*arguments: Any, **named: Any) -> Expected:
        expected = run_network(*arguments, **named)
        asked.append(len(expected))
        return expected

    monkeypatch.setattr(truth, "run_network", noting)
    torch.save(small_networks.Shared().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "own").mkdir()
    for number, image in enumerate(natural_images(32, 32, 32, seed=7)):
        Image.fromarray(image).save(tmp_path / "own" / f"{number}.png")
    path = export_file(
        tmp_path / "weights.pt",
        *("--model", "small_networks:Shared", "--image-size", "32", "--precision", "fp32", "--no-separate"),
        *("--task", "age=regression:years", "--task", "gender=binary", "--task", "race=multiclass"),
        *(("--images", str(tmp_path / "own")) if own else ()),
    )
    assert asked == runs
    found = read(open_bundle(path))
    assert found is not None
    np.testing.assert_array_equal(found.images, natural_images(COUNT, 32, 32, seed=0))  # never the user's
    with load(path, backend="onnxruntime") as model:
        given = model(found.images)
    for task in ("age", "gender", "race"):
        np.testing.assert_allclose(given[task], found.outputs[task], rtol=1e-3, atol=1e-5)
        assert 0 < found.floors[task].max() < 1e-4
