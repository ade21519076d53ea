"""timm's records: the runtime makes the same pixels of an image as timm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_networks
import torch
from PIL import Image

from mtl_deploy.export.options.images import Stated
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.export.preprocessing.preset_timm import find_config, timm_preset
from mtl_deploy.runtime.errors import CheckpointError, OptionError
from mtl_deploy.runtime.images.loading import load_pixels
from tests.export.preprocessing.presets import CONFIG, RNG, timms


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_pct": 0.875, "interpolation": "bilinear", "input_size": (3, 224, 224)},
        {"crop_pct": 0.96, "input_size": (3, 236, 236)},  # 236 / 0.96 is not whole
        {"crop_pct": 1.0},
        {"crop_mode": "squash", "crop_pct": 1.0, "input_size": (3, 48, 80)},
        {"crop_mode": "squash", "crop_pct": 0.9, "input_size": (3, 48, 80)},
        {"crop_mode": "border", "crop_pct": 1.0, "input_size": (3, 80, 64)},
        {"interpolation": "nearest"},
    ],
)
@pytest.mark.parametrize("shape", [(333, 500), (210, 101), (30, 40)], ids=str)
def test_timms_records_are_expressed_to_the_bit(changes: dict[str, Any], shape: tuple[int, int]) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8))
    config = CONFIG | changes
    preprocessing, notes = combine(Stated(), timm_preset(config))
    np.testing.assert_array_equal(load_pixels(image, preprocessing)[0], timms(image, config))
    assert (preprocessing.mean, preprocessing.std) == (config["mean"], config["std"])
    assert len(notes) == 1
    assert "the checkpoint's pretrained_cfg (timm): image size" in notes[0]


def test_what_a_record_leaves_out_is_what_timm_takes() -> None:
    preprocessing, _ = combine(Stated(), timm_preset({"mean": (0.5, 0.5, 0.5), "crop_pct": None}))
    assert (preprocessing.height, preprocessing.width, preprocessing.resize_to) == (224, 224, (256,))
    assert (preprocessing.interpolation, preprocessing.std) == ("bicubic", (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("changes", "own", "message"),
    [
        (
            {"crop_mode": "border"},
            {"fit": "letterbox"},
            "crop_mode 'border' with crop_pct 0.9 for 64x64 is neither.*--fit",
        ),
        ({"crop_mode": "tiles"}, {"fit": "stretch"}, "crop_mode 'tiles'.*--fit"),
        ({"input_size": (3, 64, 96)}, {"fit": "crop", "resize_to": (72,)}, "for 64x96.*--fit"),
        ({"interpolation": "lanczos"}, {"interpolation": "bicubic"}, "'lanczos' is not one of.*--interpolation"),
        (
            {"input_size": (1, 64, 64)},
            {"mean": (0.5,), "std": (0.5,)},
            "1 channel, its mean 3 numbers; choose with --mean",
        ),
        ({"mean": (0.5,)}, {"mean": (0.5, 0.5, 0.5)}, "3 channels, its mean 1 number; choose with --mean"),
    ],
)
def test_what_a_record_says_and_cannot_be_expressed_is_the_users_choice(
    changes: dict[str, Any], own: dict[str, Any], message: str
) -> None:
    preset = timm_preset(CONFIG | changes)
    with pytest.raises(OptionError, match=message):
        combine(Stated(), preset)
    preprocessing, _ = combine(Stated(**own), preset)
    assert preprocessing.mean == own.get("mean", (0.5, 0.5, 0.5))
    assert (preprocessing.fit, preprocessing.interpolation) == (own.get("fit", "crop"), "bicubic")


@pytest.mark.parametrize(
    "changes",
    [{"crop_pct": "most"}, {"input_size": (3, 64)}, {"mean": "half"}, {"crop_pct": float("nan")}, {"std": 0.5}],
)
def test_records_that_are_none_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"pretrained_cfg \(timm\) cannot be read"):
        timm_preset(CONFIG | changes)


def test_records_are_found_where_checkpoints_have_them() -> None:
    state = small_networks.make().state_dict()
    assert find_config({"state_dict": state}) is None
    assert find_config(state) is None
    assert find_config({"state_dict": state, "pretrained_cfg": CONFIG}) == CONFIG
    assert find_config({"model": state, "args": {"default_cfg": CONFIG}}) == CONFIG
    assert find_config({"state_dict": state, "pretrained_cfg": {"url": "x"}}) is None
    again: dict[str, Any] = {"pretrained_cfg": CONFIG}
    again["self"] = again
    assert find_config(again) == CONFIG
    network = small_networks.make()
    network.pretrained_cfg = CONFIG | {"label_names": ["a"]}  # as timm's models have it
    assert find_config(network) == network.pretrained_cfg
    assert find_config(torch.nn.Sequential(network, torch.nn.ReLU())) == network.pretrained_cfg
    other = {"teacher": {"pretrained_cfg": CONFIG | {"crop_pct": 1.0}}, "pretrained_cfg": CONFIG}
    assert find_config(other) is None  # which one is meant is not told


def test_a_record_of_another_number_of_channels_is_taken_whole() -> None:
    config = {"input_size": (1, 64, 64), "mean": (0.4,), "std": (0.3,), "crop_pct": 1.0}
    preprocessing, notes = combine(Stated(), timm_preset(config))
    assert (preprocessing.channels, preprocessing.mean, preprocessing.std) == ("gray", (0.4,), (0.3,))
    assert "channels gray" in notes[0]
    own = Stated(channels=4, mean=(0.5,) * 4, std=(0.5,) * 4)  # as timm adapts weights with in_chans=4
    preprocessing, notes = combine(own, timm_preset(config))
    assert (preprocessing.channels, preprocessing.mean) == (4, (0.5,) * 4)
    assert "--channels 4 overrides the checkpoint's pretrained_cfg (timm), which says gray" in notes
    with pytest.raises(CheckpointError, match="channels"):
        timm_preset(config | {"input_size": (0, 64, 64)})
