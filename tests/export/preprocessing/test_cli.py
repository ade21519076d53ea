"""The options for preprocessing."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch

from mtl_deploy.export.cli import main
from mtl_deploy.export.preprocessing.cli import add_preprocessing_arguments, stated
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.export.preprocessing.preset_torchvision import torchvision_preset
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from tests.export.preprocessing.presets import FAST, NETWORKS, PHOTO, RESNET, TASKS


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
        (["--mean", "1,2"], "--mean has 2 numbers: give --std too, 2 numbers"),
        (["--mean", "1,b"], "--mean '1,b': write one number per channel"),
        (["--channels", "6", "--mean", "1,b"], "--mean '1,b': write 6 numbers, such as 0.5,0.5,0.5,0.5,0.5,0.5"),
        (
            ["--channels", "4", "--mean", "0,0,0", "--std", "1,1,1,1"],
            "--mean 0,0,0 has 3 numbers, and --channels 4: write 4",
        ),
        (["--mean", "0,0,0", "--std", "1"], "--std 1 has 1 number, and --mean has 3 numbers: write 3"),
        (["--channels", "gray"], "--channels gray: give --mean, 1 number such as 0.5; the default is ImageNet's"),
        (["--channels", "gray", "--std", "1"], "--channels gray: give --mean too, 1 number"),
        (["--channels", "gray", "--transform", RESNET], "--channels gray: give --mean, 1 number"),
        (["--channels", "gbr"], "--channels 'gbr': write rgb, bgr, gray, or a number from 1 to 1024"),
        (["--channels", "0"], "--channels '0': write rgb"),
        (["--channels", "bgr", "--mean", "104,117,123"], "--mean 0.407843,0.458824,0.482353 --std 0.225,0.224,0.229"),
        (["--fit", "crop"], "--fit crop needs --resize-to"),
        (["--resize-to", "256"], "only --fit crop"),
        (["--fit", "crop", "--resize-to", "big"], "--resize-to 'big'"),
        (["--fit", "crop", "--resize-to", "0"], "--resize-to '0'"),
        (["--fit", "crop", "--resize-to", "256", "--dynamic-size"], "leave --dynamic-size out"),
        (["--transform", RESNET, "--dynamic-size"], "a crop has one size"),
        (["--transform", "torchvision:Nothing"], "no weights of this name"),
        (
            ["--layout", "nv12"],
            "--layout nv12 is of the frames that a graph takes and resizes itself: give their size with",
        ),
        (["--source-colour", "bt709"], "--source-colour bt709 is of the frames that a graph takes"),
        (["--source", "720"], "--source '720': write HEIGHTxWIDTH of the camera's frames, such as 720x1280"),
        (["--source", "0x1280"], "--source 0x1280: source 0x1280: both sides must be 1 to 16384"),
        (
            ["--source", "721x1280", "--layout", "nv12"],
            "--source 721x1280: source 721x1280 with layout nv12: pixels share",
        ),
        (
            ["--source", "72x128", "--source-colour", "bt709"],
            "source colour bt709 with layout bgr: only nv12 and yuyv have",
        ),
        (
            ["--source", "72x128", "--input", "float"],
            "--source with --input float: frames are uint8; leave --input out",
        ),
        (
            ["--source", "72x128", "--dynamic-size"],
            "--source with --dynamic-size: the graph resizes frames to one size",
        ),
        (["--source", "72x128", "--mean", "0,0,0,0", "--std", "1,1,1,1"], "--source for a network of 4 channels"),
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
        assert f"so {option[0]} has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "channels", "mean"),
    [
        ([], "rgb", (0.485, 0.456, 0.406)),
        (["--channels", "RGB"], "rgb", (0.485, 0.456, 0.406)),
        (["--channels", "bgr"], "bgr", (0.406, 0.456, 0.485)),
        (["--channels", "bgr", "--mean", "0.1,0.2,0.3"], "bgr", (0.1, 0.2, 0.3)),
        (["--channels", "bgr", "--transform", RESNET], "bgr", (0.406, 0.456, 0.485)),
        (["--mean", "0.5", "--std", "0.25"], "gray", (0.5,)),
        (["--channels", "1", "--mean", "0.5", "--std", "0.25"], "gray", (0.5,)),
        (["--channels", "3"], "rgb", (0.485, 0.456, 0.406)),
        (["--mean", "0,0,0,0", "--std", "1,1,1,1"], 4, (0, 0, 0, 0)),
        (["--pixel-range", "255", "--mean", "51,51", "--std", "255,255"], 2, (0.2, 0.2)),
    ],
    ids=str,
)
def test_mean_and_std_are_in_the_networks_order_and_the_presets_in_rgb(
    options: list[str], channels: str | int, mean: tuple[float, ...]
) -> None:
    parser = argparse.ArgumentParser()
    add_preprocessing_arguments(parser)
    said = stated(parser.parse_args(options))
    preset = torchvision_preset(said.transform) if said.transform else None
    found, _ = combine(said, preset)
    assert found.channels == channels
    assert found.mean == pytest.approx(mean)
    assert Preprocessing.from_dict(found.to_dict()) == found
