"""Preprocessing from torchvision's weights and timm's records: what the runtime makes of an image is what they make of it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_networks
import torch
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from mtl_deploy.export.cli import main
from mtl_deploy.export.network.network import load_network
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.options.images import Stated
from mtl_deploy.export.preprocessing.cli import add_preprocessing_arguments, stated
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.export.preprocessing.preset_timm import find_config, timm_preset
from mtl_deploy.export.preprocessing.preset_torchvision import torchvision_preset
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.errors import CheckpointError, OptionError
from mtl_deploy.runtime.images.loading import load_pixels, prepare

NETWORKS = Path(__file__).parents[2] / "networks"  # modules that a user has in the current folder

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (333, 500, 3), dtype=np.uint8))
TASKS = ["--task", "age=regression", "--task", "gender=binary", "--task", "race=multiclass"]
FAST = ["--precision", "fp32", "--no-separate", "--engine", "none"]
RESNET = "torchvision:ResNet50_Weights.IMAGENET1K_V2"
CONFIG = {
    "input_size": (3, 64, 64),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}


def weights_of(kind: str) -> list[Any]:
    """Return a member of torchvision's weights for each different transform of a kind."""
    found = {}
    for model in torchvision.models.list_models():
        for weights in torchvision.models.get_model_weights(model):
            transform = weights.transforms()
            if type(transform).__name__ == kind:
                found.setdefault(repr(transform), weights)
    return list(found.values())


def test_every_classifiers_transform_is_expressed_to_the_bit() -> None:
    different = weights_of("ImageClassification")
    assert len(different) > 20
    assert {weights.transforms().interpolation for weights in different} >= {
        InterpolationMode.BILINEAR,
        InterpolationMode.BICUBIC,
    }
    for weights in different:
        transform = weights.transforms()
        preprocessing, notes = combine(Stated(input="float"), torchvision_preset(f"torchvision:{weights}"))
        resized = Resize(transform.resize_size, interpolation=transform.interpolation)(PHOTO)
        pixels = np.asarray(CenterCrop(transform.crop_size)(resized))
        np.testing.assert_array_equal(load_pixels(PHOTO, preprocessing)[0], pixels, err_msg=str(weights))
        np.testing.assert_allclose(prepare(PHOTO, preprocessing)[0][0], transform(PHOTO).numpy(), atol=1e-5, rtol=1e-5)
        assert len(notes) == 1
        assert f"preprocessing from --transform torchvision:{weights}: image size " in notes[0]


def test_a_segmentations_transform_is_expressed_as_far_as_one_size_goes() -> None:
    (weights,) = weights_of("SemanticSegmentation")
    expected = weights.transforms()(PHOTO).numpy()
    preset = torchvision_preset(f"torchvision:{weights}")
    whole, notes = combine(Stated(input="float", size=expected.shape[1:]), preset)
    np.testing.assert_allclose(prepare(PHOTO, whole)[0][0], expected, atol=1e-5)
    assert len(notes) == 1
    assert "it does not crop" in notes[0]
    square, _ = combine(Stated(input="float"), preset)
    left = round((expected.shape[2] - 520) / 2)
    np.testing.assert_allclose(prepare(PHOTO, square)[0][0], expected[:, :, left : left + 520], atol=1e-5)


def test_a_detectors_transform_leaves_the_size_to_the_user() -> None:
    for weights in weights_of("ObjectDetection"):
        preprocessing, notes = combine(
            Stated(input="float", size=(333, 500)), torchvision_preset(f"torchvision:{weights}")
        )
        np.testing.assert_allclose(prepare(PHOTO, preprocessing)[0][0], weights.transforms()(PHOTO).numpy(), atol=1e-6)
        assert "does not resize" in notes[0]


@pytest.mark.parametrize("kind", ["VideoClassification", "OpticalFlow"])
def test_what_cannot_be_expressed_is_refused_by_name(kind: str) -> None:
    for weights in weights_of(kind):
        with pytest.raises(
            OptionError, match=rf"{weights}: its transform {kind} does not resize and crop single images"
        ):
            torchvision_preset(f"torchvision:{weights}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ResNet50_Weights.IMAGENET1K_V2", "write torchvision:NAME_Weights.MEMBER"),
        ("torchvision:", "write torchvision:NAME"),
        ("timm:resnet50", "write torchvision:NAME"),
        ("torchvision:ResNet50_Weights.IMAGENET21K", "has no 'IMAGENET21K'; it has IMAGENET1K_V1, IMAGENET1K_V2"),
        ("torchvision:ResNet5_Weights.DEFAULT", "no weights of this name"),
        ("torchvision:resnet50.DEFAULT", "no weights of this name"),
        ("torchvision:a.b.c", "no weights of this name"),
    ],
)
def test_names_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        torchvision_preset(text)


def test_weights_without_a_member_are_the_default_ones_by_name() -> None:
    assert torchvision_preset("torchvision:ResNet50_Weights").source == f"--transform {RESNET}"


# timm


def timms(image: Image.Image, config: dict[str, Any]) -> np.ndarray:
    """Return the pixels that timm's ``transforms_imagenet_eval`` makes (``timm/data/transforms_factory.py``)."""
    size, share = config["input_size"][1:], config["crop_pct"]
    before = tuple(math.floor(side / share) for side in size)
    mode = InterpolationMode(config["interpolation"])
    if config["crop_mode"] == "squash":
        return np.asarray(CenterCrop(size)(Resize(before, interpolation=mode)(image)))
    if config["crop_mode"] == "center":
        assert before[0] == before[1]
        return np.asarray(CenterCrop(size)(Resize(before[0], interpolation=mode)(image)))
    # ResizeKeepRatio(longest=1.0), then CenterCropOrPad with the mean colour
    ratio = max(image.height / before[0], image.width / before[1])
    height, width = round(image.height / ratio), round(image.width / ratio)
    resized = image.resize((width, height), Image.Resampling[config["interpolation"].upper()])
    fill = tuple(round(255 * value) for value in config["mean"])
    canvas = Image.new("RGB", (size[1], size[0]), fill)
    canvas.paste(resized, ((size[1] - width) // 2, (size[0] - height) // 2))
    return np.asarray(canvas)


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
        ({"input_size": (1, 64, 64)}, {"size": (64, 64)}, "1 channels.*--image-size"),
    ],
)
def test_what_a_record_says_and_cannot_be_expressed_is_the_users_choice(
    changes: dict[str, Any], own: dict[str, Any], message: str
) -> None:
    preset = timm_preset(CONFIG | changes)
    with pytest.raises(OptionError, match=message):
        combine(Stated(), preset)
    preprocessing, _ = combine(Stated(**own), preset)
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    assert (preprocessing.fit, preprocessing.interpolation) == (own.get("fit", "crop"), "bicubic")


@pytest.mark.parametrize(
    "changes",
    [{"crop_pct": "most"}, {"input_size": (3, 64)}, {"mean": (0.5,)}, {"crop_pct": float("nan")}, {"std": 0.5}],
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


# What the user says wins


def test_options_go_before_a_preset_and_what_they_contradict_is_said() -> None:
    own = Stated(size=(96, 96), fit="letterbox", mean=(0.5, 0.5, 0.5), std=(0.229, 0.224, 0.225))
    preprocessing, notes = combine(own, torchvision_preset(RESNET))
    assert (preprocessing.height, preprocessing.fit, preprocessing.resize_to) == (96, "letterbox", ())
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    assert notes == (
        f"preprocessing from --transform {RESNET}: interpolation bilinear",
        f"--image-size 96x96 overrides --transform {RESNET}, which says 224x224",
        f"--fit letterbox overrides --transform {RESNET}, which says crop",
        f"--mean 0.5,0.5,0.5 overrides --transform {RESNET}, which says 0.485,0.456,0.406",
    )
    _, notes = combine(Stated(resize_to=(256,)), torchvision_preset(RESNET))
    assert notes[1:] == (f"--resize-to 256 overrides --transform {RESNET}, which says 232",)
    with pytest.raises(OptionError, match="a crop has one size"):
        combine(Stated(size=(224, 224), multiple=32), torchvision_preset(RESNET))


@pytest.mark.parametrize("transform", [None, "torchvision:ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"])
def test_an_export_answers_as_the_network_behind_its_own_transform(
    transform: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command to a prediction of a PIL image; the checkpoint's record where no transform is named."""
    monkeypatch.chdir(NETWORKS)
    network = small_networks.make()
    torch.save({"state_dict": network.state_dict(), "pretrained_cfg": CONFIG}, tmp_path / "weights.pt")
    options = [] if transform is None else ["--transform", transform]
    target = tmp_path / "a.mtl"
    assert (
        main(
            [
                str(tmp_path / "weights.pt"),
                "--model",
                "small_networks:make",
                *TASKS,
                *options,
                *FAST,
                "--json",
                "-o",
                str(target),
            ]
        )
        == 0
    )
    note, *others = json.loads(capsys.readouterr().out)["manifest"]["provenance"]["notes"]
    if transform is None:
        tensor = torch.from_numpy(timms(PHOTO, CONFIG).copy()).permute(2, 0, 1)[None] / 255
        tensor = (tensor - 0.5) / 0.25
        assert note.startswith("preprocessing from the checkpoint's pretrained_cfg (timm): image size 64x64, fit crop")
    else:
        tensor = torchvision.models.get_weight(transform.partition(":")[2]).transforms()(PHOTO)[None]
        assert note.startswith(
            f"preprocessing from --transform {transform}: image size 384x384, fit crop, resized to 384 ("
        )
    assert not any("preprocessing" in other or "before" in other for other in others)
    with torch.inference_mode():
        age = float(network.eval()(tensor)["age"])
    with load(target) as model:
        assert model.predict(PHOTO)["age"].value == pytest.approx(age, rel=1e-4, abs=1e-5)


def test_a_programs_size_goes_before_a_presets(tmp_path: Path) -> None:
    network = small_networks.make().eval()
    program = torch.export.export(
        network, (torch.zeros(2, 3, 24, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, tmp_path / "a.pt2")
    tasks = tuple(parse_task(text) for text in TASKS[1::2])
    loaded = load_network(Options(tmp_path / "a.pt2", tasks=tasks, stated=Stated(transform=RESNET)))
    assert (loaded.preprocessing.height, loaded.preprocessing.width) == (24, 16)
    assert loaded.notes[1] == "the program is for images of 24x16, which wins"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--mean", "123,117,104"],
            "error: --mean 123,117,104 is for pixel values from 0 to 255, and these options are for 0 to 1: "
            "write --mean 0.482353,0.458824,0.407843 --std 0.229,0.224,0.225, or give both for 0 to 255 with --pixel-range 255",
        ),
        (
            ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"],
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        ),
        (["--std", "58.395,57.12,57.375"], "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
        (["--pixel-range", "255"], "give both"),
        (["--pixel-range", "255", "--mean", "123,117,104"], "give both"),
        (["--pixel-range", "255", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"], "leave --pixel-range out"),
        (["--mean", "1,2"], "three numbers"),
        (["--fit", "crop"], "--fit crop needs --resize-to"),
        (["--resize-to", "256"], "only --fit crop"),
        (["--fit", "crop", "--resize-to", "big"], "--resize-to 'big'"),
        (["--fit", "crop", "--resize-to", "0"], "--resize-to '0'"),
        (["--fit", "crop", "--resize-to", "256", "--dynamic-size"], "leave --dynamic-size out"),
        (["--transform", RESNET, "--dynamic-size"], "a crop has one size"),
        (["--transform", "torchvision:Nothing"], "no weights of this name"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(NETWORKS)
    torch.save(small_networks.make().state_dict(), tmp_path / "a.pt")
    assert (
        main([str(tmp_path / "a.pt"), "--model", "small_networks:make", *TASKS, *options, "-o", str(tmp_path / "out")])
        == 2
    )
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("123.675,116.28,103.53", "58.395,57.12,57.375", ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ("123.68,116.779,103.939", "1,1,1", ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3)),
        ("0,0,0", "1,1,1", ((0, 0, 0), (1 / 255,) * 3)),
        ("127.5,127.5,127.5", "127.5,127.5,127.5", ((0.5,) * 3, (0.5,) * 3)),
    ],
)
def test_pixel_range_says_what_mean_and_std_are_of(
    mean: str, std: str, expected: tuple[tuple[float, ...], ...]
) -> None:
    parser = argparse.ArgumentParser()
    add_preprocessing_arguments(parser)
    said = stated(parser.parse_args(["--pixel-range", "255", "--mean", mean, "--std", std]))
    preprocessing, _ = combine(said)
    assert preprocessing.mean == pytest.approx(expected[0])
    assert preprocessing.std == pytest.approx(expected[1])


def test_a_network_of_pixels_from_0_to_255_is_deployed_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(NETWORKS)
    network = small_networks.make().eval()
    torch.save(network.state_dict(), tmp_path / "a.pt")
    target, photo = tmp_path / "a.mtl", PHOTO.resize((48, 32))
    values = ["--pixel-range", "255", "--mean", "123.68,116.779,103.939", "--std", "1,1,1", "--image-size", "32x48"]
    assert (
        main([str(tmp_path / "a.pt"), "--model", "small_networks:make", *TASKS, *values, *FAST, "-o", str(target)]) == 0
    )
    tensor = np.asarray(photo, np.float32) - np.array([123.68, 116.779, 103.939], np.float32)
    with torch.inference_mode():
        age = float(network(torch.from_numpy(tensor).permute(2, 0, 1)[None])["age"])
    with load(target) as model:
        assert model.predict(photo)["age"].value == pytest.approx(age, rel=1e-3)


def test_a_bundle_has_no_use_for_a_transform(
    make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    for option in (["--transform", RESNET], ["--resize-to", "256"], ["--fit", "crop"], ["--pixel-range", "255"]):
        assert main([str(bundle), *option]) == 2
        assert f"so {option[0]} has no use" in capsys.readouterr().err
