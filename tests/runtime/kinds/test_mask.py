"""Masks in the runtime: decoding of each form, the image's own frame, words and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mask_networks import ACTIVATIONS, CHANNELS, THRESHOLDS
from torch.nn.functional import interpolate

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement, place
from mtl_deploy.runtime.kinds.mask.kind import share
from mtl_deploy.runtime.predictions.decoding import decode
from mtl_deploy.runtime.show.picture import show

RANDOM = np.random.default_rng(6)
GRID, STRIDE = (9, 13), 4


def task(name: str, **fields: Any) -> Task:
    given = {"size": CHANNELS[name], "stride": STRIDE, "activation": ACTIVATIONS[name], "threshold": THRESHOLDS[name]}
    return Task(name, "mask", **(given | fields))


def raw_map(name: str, spread: float = 3.0) -> torch.Tensor:
    logits = spread * torch.from_numpy(RANDOM.standard_normal((2, CHANNELS[name], *GRID)).astype(np.float32))
    applied = {"sigmoid": torch.sigmoid, "softmax": lambda x: x.softmax(1), "log_softmax": lambda x: x.log_softmax(1)}
    return applied.get(ACTIVATIONS[name], lambda x: x)(logits)


def meant(name: str, raw: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """What the network's authors do: resize what it returns, then ask for the probability of the mask."""
    values = interpolate(raw, size=size, mode="bilinear", align_corners=False).double()
    if name == "two":
        return values.argmax(1).numpy()
    if name in ("area", "logs"):
        return (values.softmax(1)[:, 1] >= THRESHOLDS[name]).numpy()
    probability = values[:, -1].sigmoid() if name == "lane" else values[:, -1]
    return (probability >= THRESHOLDS[name]).numpy()


@pytest.mark.parametrize("name", CHANNELS)
def test_each_form_means_what_its_network_means(name: str) -> None:
    raw = raw_map(name)
    height, width = (STRIDE * side for side in GRID)
    wanted = meant(name, raw, (height, width))
    found = decode(task(name), raw.numpy(), "logits")
    assert 0.02 < wanted.mean() < 0.98, "the threshold is not put to the test"
    for one, other in zip(found, wanted, strict=True):
        assert one.value.dtype == np.uint8
        assert (one.value == other).mean() > 0.999  # ties of float32 may fall the other way
        assert one.unseen is None
    other = decode(task(name, threshold=0.5), raw.numpy(), "logits")
    assert (other[0] == found[0]) == (THRESHOLDS[name] == 0.5)


def test_the_map_is_in_the_images_frame_and_a_crop_leaves_pixels_unseen() -> None:
    decoded = np.zeros((1, 32, 32), np.uint8)
    decoded[:, 8:24, 16:] = 1  # 32x64 in a letterbox of 32x32 fills rows 8 to 24
    letterbox = place(32, 64, Preprocessing(32, 32, fit="letterbox"))
    boxed = decode(task("lane"), decoded, "decoded", [letterbox])[0]
    assert boxed.value.shape == (32, 64)
    np.testing.assert_array_equal(boxed.value, np.arange(64)[None].repeat(32, 0) >= 32)
    cropped = place(32, 64, Preprocessing(32, 32, fit="crop", resize_to=(32,)))
    assert cropped.cropped
    cut = decode(task("lane"), decoded, "decoded", [cropped])[0]
    assert cut.unseen == 255
    assert (cut.value[:, :16] == 255).all()
    assert (cut.value[:, 48:] == 255).all()
    np.testing.assert_array_equal(cut.value[:, 16:48], decoded[0])
    assert share(cut.value) == pytest.approx(decoded.mean())  # of what was seen
    logits = np.where(decoded[:, None, ::4, ::4] == 1, 9.0, -9.0).astype(np.float32)
    for spot in (letterbox, cropped):
        outside = decode(task("lane", threshold=0.5), logits, "logits", [spot])[0]
        inside = decode(task("lane"), decoded, "decoded", [spot])[0]
        assert (outside.value == inside.value).mean() > 0.9  # edges of a quarter's grid
        assert ((outside.value == 255) == (inside.value == 255)).all()


def test_words_and_summaries() -> None:
    decoded = np.array([[[1, 0, 0, 0]]], np.uint8)
    spot = ImagePlacement((1, 4), (1, 4), (0, 0, 1, 4))
    bare = decode(Task("lane", "mask", size=1), decoded, "decoded", [spot])[0]
    two = decode(Task("lane", "mask", size=2, labels=("other", "lane 2")), decoded, "decoded", [spot])[0]
    assert (str(bare), str(two)) == ("mask 25.0 %", "lane 2: 25.0 %")
    assert bare.to_dict() == {"shape": [1, 4], "label": None, "share": 0.25}
    assert two.to_dict() == {"shape": [1, 4], "label": "lane 2", "share": 0.25}
    assert bare == decode(Task("lane", "mask", size=1), decoded.copy(), "decoded", [spot])[0]
    assert bare != decode(Task("lane", "mask", size=1), 1 - decoded, "decoded", [spot])[0]
    nothing = decode(Task("lane", "mask", size=1, stride=1), np.full((1, 1, 2, 2), np.nan, np.float32), "logits")[0]
    assert not nothing.finite
    assert str(nothing) == "mask 0.0 % (NaN or infinite numbers)"
    assert nothing.to_dict()["finite"] is False


def test_a_picture_has_a_panel_with_the_mask_over_the_image() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    decoded = np.zeros((1, 40, 60), np.uint8)
    decoded[:, :, 30:] = 1
    of = Task("road", "mask", size=1, labels=("road",))
    prediction = decode(of, decoded, "decoded")[0]
    panel = of.of.panel(of, prediction, image)  # type: ignore[attr-defined]
    assert (panel.pixels[:, :30] == 100).all()
    orange = np.array([230, 159, 0])
    assert np.abs(panel.pixels[:, 30:].astype(int) - (0.6 * orange + 40)).max() <= 1
    assert panel.key.entries[0][0] == "road 50 %"
    sheet = np.asarray(show(image, {"road": prediction}, [of]))
    assert (np.abs(sheet.astype(int) - panel.pixels[0, 59]).max(axis=-1) <= 2).sum() > 1000


def test_tasks_as_text_and_in_a_manifest() -> None:
    found = parse_task("lane=mask:lane;threshold=0.3;output=seg.1;columns=1,2;activation=sigmoid;upsample=false")
    assert found == Task(
        "lane",
        "mask",
        labels=("lane",),
        threshold=0.3,
        output="seg.1",
        columns=(1, 2),
        activation="sigmoid",
        upsample=False,
    )
    sized = found.with_size(1, stride=4)
    assert Task.from_dict(sized.to_dict()) == sized
    assert {"threshold": 0.3, "stride": 4, "upsample": False}.items() <= sized.to_dict().items()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ("a", "b", "c")}, "has one label, of what it marks, or two"),
        ({"size": 3}, "returns 3 channels; a mask has 1 .* or 2; declare it segmentation"),
        ({"size": 1, "activation": "softmax"}, "softmax of one channel is always the same"),
        ({"size": 1, "activation": "log_softmax"}, "log_softmax of one channel is always the same"),
        ({"size": 2, "activation": "sigmoid", "threshold": 0.3}, "a threshold of 0.3 means nothing"),
        ({"threshold": 1.0}, "threshold 1.0 is not between 0 and 1"),
        ({"unit": "m"}, "has a unit, this is mask"),
        ({"argmax": False}, "a mask has no argmax"),
        ({"valid_range": (0.0, 1.0)}, "a mask has no valid_range"),
    ],
)
def test_what_does_not_fit_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task("m", "mask", **fields)
