"""What a graph takes that resizes by itself: frames of a camera, in a record that is read back and checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.source import Source
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import BundleError, OptionError

NV12 = Source(720, 1280, "nv12", "bt709-full")


def record(source: Source = NV12, **changes: Any) -> dict[str, Any]:
    signature = Signature((Task("age", "regression"),), Preprocessing(source=source))
    found: dict[str, Any] = json.loads(signature.to_json())
    found["preprocessing"] |= changes
    return found


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("rgb", (6, 8, 3)),
        ("bgr", (6, 8, 3)),
        ("gray", (6, 8, 1)),
        ("nv12", (9, 8)),
        ("yuyv", (6, 8, 2)),
    ],
)
def test_each_layout_has_a_shape_and_is_read_back(layout: Any, shape: tuple[int, ...]) -> None:
    source = Source(6, 8, layout)
    assert source.shape == shape
    preprocessing = Signature.from_dict(record(source), "x").preprocessing
    assert preprocessing.source == source
    assert preprocessing.image_shape == preprocessing.input_shape == shape
    assert preprocessing.seen == Preprocessing()
    assert source.colour == ("bt601" if layout in ("nv12", "yuyv") else None)


def test_a_graph_without_frames_has_no_record_of_them() -> None:
    plain = Preprocessing()
    assert "source" not in plain.to_dict()
    assert plain.seen is plain
    assert plain.image_shape == (224, 224, 3)
    assert Preprocessing(input="float").input_shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "nv21"}, "layout 'nv21' of the source: choose rgb, bgr, gray, nv12, yuyv"),
        ({"layout": "bgr"}, "source colour bt709-full with layout bgr: only nv12 and yuyv have a matrix"),
        ({"colour": "bt2020"}, "source colour 'bt2020': choose bt601"),
        ({"colour": None}, "source of layout nv12 without its colour"),
        ({"height": 721}, "source 721x1280 with layout nv12: pixels share their chroma, so both sides must be even"),
        ({"width": 1281, "layout": "yuyv"}, "so the width must be even"),
        ({"height": 0}, "preprocessing.source.height"),
        ({"width": "1280"}, "preprocessing.source.width"),
        ({"height": 16384, "width": 16384}, "frames have 67108864 pixels at most"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    document = record(source=NV12)
    document["preprocessing"]["source"] |= change
    with pytest.raises(BundleError) as caught:
        Signature.from_dict(document, "manifest.json")
    assert message in str(caught.value)
    assert "export again" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multiple": 32}, "a source with free sizes"),
        ({"input": "float"}, "a source with input 'float'"),
        ({"mean": [0.5] * 4, "std": [0.5] * 4, "channels": 4}, "a source for a network of 4 channels"),
    ],
)
def test_a_record_that_contradicts_the_network_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Signature.from_dict(record(**change), "manifest.json")


def test_sizes_are_bounded() -> None:
    with pytest.raises(OptionError, match="both sides must be 1 to 16384"):
        Source(1, 1 << 15)
