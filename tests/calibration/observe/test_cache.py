from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mtl_deploy.calibration.observe.cache import PATH, CacheKey, FoundRanges, pack, read
from mtl_deploy.calibration.observe.ranges import Range
from mtl_deploy.calibration.observe.statistics import TensorStatistics
from mtl_deploy.runtime.bundle.manifest import Bundle, Manifest
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

KEY = CacheKey("graph", "data")
FOUND = FoundRanges(
    {
        "tensorrt": {"minmax": {"x": Range(-1.5, 2.25)}, "mse": {"x": Range(0.0, 2.0)}},
        "cpu": {"minmax": {"x": Range(-1.5, 2.25)}, "mse": {"x": Range(-0.5, 2.0)}},
    },
    {"x": TensorStatistics(-1.5, 2.25), "y": TensorStatistics(0.0, 0.0, finite=False)},
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    content, record = pack(KEY, FOUND)
    (tmp_path / PATH).write_bytes(content)
    signature = Signature((Task("age", "regression", size=1),), Preprocessing(8, 8))
    return Bundle(tmp_path, Manifest("tiny", signature, (), calibration=record))


def test_what_was_found_comes_back_to_the_bit(bundle: Bundle) -> None:
    found, state = read(bundle, KEY)
    assert found == FOUND
    assert state == "cached ranges reused"


def test_another_graph_or_other_images_make_it_stale(bundle: Bundle) -> None:
    assert read(bundle, CacheKey("other", "data")) == (None, "cached ranges are stale (another graph)")
    assert read(bundle, CacheKey("graph", "other")) == (None, "cached ranges are stale (other images)")


def test_a_changed_or_missing_file_is_damaged(bundle: Bundle) -> None:
    file = bundle.path / PATH
    file.write_bytes(file.read_bytes().replace(b"2.25", b"9.25"))
    assert read(bundle, KEY) == (None, "cached ranges are damaged")
    file.unlink()
    assert read(bundle, KEY) == (None, "cached ranges are damaged")


def test_ranges_of_before_there_were_some_a_style_are_not_misread(bundle: Bundle) -> None:
    old = json.loads((bundle.path / PATH).read_bytes())
    old |= {"version": 1, "ranges": old["ranges"]["tensorrt"]}
    content = json.dumps(old).encode()
    (bundle.path / PATH).write_bytes(content)
    record = {"path": PATH, "sha256": hashlib.sha256(content).hexdigest()}
    older = Bundle(bundle.path, replace(bundle.manifest, calibration=record))
    assert read(older, KEY) == (None, "cached ranges are another release's")


def test_a_bundle_without_one_has_none(bundle: Bundle) -> None:
    assert read(Bundle(bundle.path, replace(bundle.manifest, calibration={})), KEY) == (None, "")


START = '{"version": 3, "graph_sha256": "graph", "data_digest": "data", '


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 3}',
        "[]",
        "[" * 50_000,
        START + '"ranges": {"cpu": {"mse": {"x": [1, 2, 3]}}}, "observed": {}}',
        START + '"ranges": {"cpu": {"mse": {"x": [1, 2]}}}, "observed": {}}',
        START + '"ranges": {"cpu": {"mse": {"x": [-1, 1e300]}}}, "observed": {}}',
        START + '"ranges": {"cpu": {"mse": {"x": [NaN, 1]}}}, "observed": {}}',
        START + '"ranges": {"mse": 3}, "observed": {"x": [1]}}',
        START + '"ranges": {}, "observed": {"x": [-1e999, 0]}}',
    ],
    ids=lambda text: text[-40:],
)
def test_what_no_calibration_wrote_is_damaged_though_the_manifest_knows_it(bundle: Bundle, text: str) -> None:
    (bundle.path / PATH).write_text(text)
    record = bundle.manifest.calibration | {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert read(Bundle(bundle.path, replace(bundle.manifest, calibration=record)), KEY) == (
        None,
        "cached ranges are damaged",
    )
