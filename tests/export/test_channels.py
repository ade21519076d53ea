"""Networks of one, four and six channels and of BGR images, from checkpoint to predictions, with real exports."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import wild
from PIL import Image
from wild_tasks import OPTIONS, TASKS

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.export.baselines.pytorch import Baseline
from mtl_deploy.export.cli import main
from mtl_deploy.export.forward.channels import channel_advice
from mtl_deploy.export.network.network import load_network
from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.live.play import Shot, play
from mtl_deploy.runtime.show.video import VideoWriter
from mtl_deploy.runtime.streams import StreamResult
from tests.clips import frames_of, source

SIZE = 64
CHANNELS = {"gray": 1, "rgba": 4, "six_channels": 6}
Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """A function that exports a network of ``wild`` with what a newcomer writes for it."""

    def run(name: str, *arguments: str, code: int = 0, options: tuple[str, ...] | None = None) -> Path:
        target, tasks = tmp_path / f"{name}.mtl", tmp_path / "tasks.toml"
        tasks.write_text(TASKS[name])
        given = [str(wild.checkpoint(name, tmp_path)), "--model", f"wild:{name}", "--tasks", str(tasks)]
        given += ["--image-size", f"{SIZE}x{SIZE}", "--engine", "none", "--threads", "1"]
        given += [] if "--separate" in arguments else ["--no-separate"]
        arguments = tuple(argument for argument in arguments if argument != "--separate")
        given += [*(OPTIONS.get(name, ()) if options is None else options), *arguments, "--output", str(target)]
        assert main(given) == code
        return target

    return run


def pictures(count: int, channels: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Random pictures without noise between neighbours, ``(count, height, width, channels) uint8``."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, -(-height // 8), -(-width // 8), channels), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def answers(name: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the network itself answers, in the order and with the normalisation that it was trained on."""
    options = dict(zip(OPTIONS[name][::2], OPTIONS[name][1::2], strict=True))
    mean, std = (
        torch.tensor([float(number) for number in options[f"--{key}"].split(",")]).view(1, -1, 1, 1)
        for key in ("mean", "std")
    )
    with torch.inference_mode():
        planes = torch.from_numpy(images.copy()).permute(0, 3, 1, 2) / 255
        raw = wild.trained(name)((planes - mean) / std)
    age, gender, race = raw
    return {"age": age.numpy(), "gender": torch.sigmoid(gender).numpy(), "race": torch.softmax(race, 1).numpy()}


@pytest.mark.parametrize("name", CHANNELS)
def test_a_network_of_any_number_of_channels_becomes_a_verified_bundle(
    name: str, export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = CHANNELS[name]
    np.save(tmp_path / "verification.npy", pictures(9, channels, 50, 70))
    bundle = export(name, "--images", str(tmp_path / "verification.npy"), "--samples", "8")
    manifest = open_bundle(bundle).manifest
    assert manifest.signature.preprocessing.to_dict()["channels"] == ("gray" if channels == 1 else channels)
    held = reference.read(open_bundle(bundle))
    assert held is not None
    assert held.images.shape[1:] == (SIZE, SIZE, channels)

    images = pictures(3, channels)
    with load(bundle) as model:
        expected = answers(name, images)
        for task, found in model(images).items():
            np.testing.assert_allclose(found, expected[task], atol=2e-5)
        for position, prediction in enumerate(model.predict([*images])):
            np.testing.assert_allclose(prediction["age"].value, expected["age"][position, 0], atol=2e-5)
        np.save(tmp_path / "image.npy", images[0])
        from_file = model.predict(tmp_path / "image.npy")
        np.testing.assert_allclose(from_file["age"].value, expected["age"][0, 0], atol=2e-5)
        if channels == 1:
            np.testing.assert_allclose(model.predict(images[0, ..., 0])["age"].value, expected["age"][0, 0], atol=2e-5)
        if channels == 6:
            (pair,) = model.predict([(images[0, ..., :3], Image.fromarray(images[0, ..., 3:]))])
            np.testing.assert_allclose(pair["age"].value, expected["age"][0, 0], atol=2e-5)
        with pytest.raises(ImageError, match=rf"got uint8 of shape \(8, 8, 3\); expected uint8 .*\(H, W, {channels}\)"):
            model.predict(np.zeros((8, 8, 3), np.uint8))

    capsys.readouterr()
    assert infer([str(bundle), str(tmp_path / "image.npy"), "--json", "--show", str(tmp_path / "shown.png")]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["predictions"]
    np.testing.assert_allclose(shown["tasks"]["age"]["value"], expected["age"][0, 0], atol=2e-5)
    assert Image.open(tmp_path / "shown.png").mode == "RGB"


def test_the_channels_of_a_network_are_calibrated_and_measured_too(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export("six_channels", "--precision", "FP32")
    np.savez(
        tmp_path / "data.npz",
        **{"images": pictures(40, 6, 30, 40), "labels/age": np.linspace(0, 1, 40)},
    )
    assert calibrate([str(bundle), "--calibration-data", str(tmp_path / "data.npz"), "--threads", "1"]) == 0
    folder = tmp_path / "arrays"
    folder.mkdir()
    for position, image in enumerate(pictures(20, 6, 30, 40)):
        np.save(folder / f"{position}.npy", image)
    measured = ["--evaluate-only", "--calibration-data", str(folder), "--json", "--threads", "1"]
    capsys.readouterr()
    assert calibrate([str(bundle), *measured]) == 0
    cells = json.loads(capsys.readouterr().out)["accuracy"]["cells"]
    assert {(cell["variant"], cell["samples"]) for cell in cells} >= {("fp32", 20), ("int8", 20)}


def test_a_network_of_one_channel_is_benchmarked(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = export("gray", "--separate")
    run = ["--precision", "FP32", "--quick", "--duration", "0.1", "--isolation", "none", "--quiet", "--json", "-"]
    capsys.readouterr()
    assert bench([str(bundle), *run]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["batches"]
    assert {"shared", "separate"} <= set(measured["contestants"])


@pytest.mark.parametrize("form", ["uint8", "float"])
def test_a_network_trained_on_bgr_takes_rgb_images(form: str, export: Export, tmp_path: Path) -> None:
    mean, std = ("--mean", "0.1,0.4,0.6"), ("--std", "0.2,0.25,0.3")  # of B, G and R
    as_trained = ("--channels", "bgr", *mean, *std, "--input", form)
    bundle = export("tied", options=as_trained)
    signature = open_bundle(bundle).manifest.signature
    assert signature.preprocessing.to_dict()["channels"] == "BGR"
    images = pictures(3, 3)
    blue_first = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2) / 255
    normalised = (blue_first - torch.tensor([0.1, 0.4, 0.6]).view(1, 3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(
        1, 3, 1, 1
    )
    with torch.inference_mode():
        expected = wild.trained("tied")(normalised)["age"].numpy()
    with load(bundle) as model:
        np.testing.assert_allclose(model(images)["age"], expected, atol=2e-5)
        np.testing.assert_allclose(model(images[..., ::-1], layout="bgr")["age"], expected, atol=2e-5)
        predicted = model.predict(list(images[..., ::-1]), layout="bgr")  # as OpenCV reads them
        assert [one["age"].value for one in predicted] == pytest.approx(expected[:, 0], abs=2e-5)
        if form == "float":  # ready planes are in the network's own order
            np.testing.assert_allclose(model(normalised.numpy())["age"], expected, atol=2e-5)
    with load(bundle, layout="bgr") as model:
        np.testing.assert_allclose(model(images[..., ::-1])["age"], expected, atol=2e-5)
        np.testing.assert_allclose(model(images, layout="rgb")["age"], expected, atol=2e-5)
    options = Options(
        tmp_path / "model.pt", model="wild:tied", tasks=signature.tasks, preprocessing=signature.preprocessing
    )
    baseline = Baseline("pytorch", load_network(options), signature, "cpu", compiled=False)
    batch = images if form == "uint8" else normalised.numpy()
    np.testing.assert_allclose(baseline(batch)["age"], expected, atol=2e-5)  # as mtl-bench --checkpoint runs it
    graph = onnx.load(bundle / "fp32.onnx").graph
    assert [node.name for node in graph.node if node.name == "preprocess/order"] == (
        ["preprocess/order"] if form == "uint8" else []
    )


def test_free_sizes_keep_the_number_of_channels(export: Export) -> None:
    bundle = export("rgba", "--dynamic-size", "32")
    with load(bundle) as model:
        for height, width in ((64, 64), (32, 96)):
            images = pictures(2, 4, height, width)
            np.testing.assert_allclose(model(images)["age"], answers("rgba", images)["age"], atol=2e-5)


def test_a_program_of_one_channel_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.zeros(2, 1, SIZE, SIZE)
    program = torch.export.export(wild.trained("gray"), (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "gray.pt2")
    (tmp_path / "tasks.toml").write_text(TASKS["gray"])
    given = [str(tmp_path / "gray.pt2"), "--tasks", str(tmp_path / "tasks.toml"), "--no-separate", "--engine", "none"]
    given += ["--output", str(tmp_path / "gray.mtl"), "--threads", "1"]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert "the network takes 1 channel and got 3: give --channels gray" in said
    assert main([*given, *OPTIONS["gray"]]) == 0
    images = pictures(2, 1)
    with load(tmp_path / "gray.mtl") as model:
        np.testing.assert_allclose(model(images)["age"], answers("gray", images)["age"], atol=2e-5)


@pytest.mark.parametrize("form", ["script", "graph", "pixels"])
def test_files_that_hold_their_own_network_have_any_number_of_channels(form: str, tmp_path: Path) -> None:
    name, network, example = "rgba", wild.trained("rgba"), torch.zeros(2, 4, SIZE, SIZE)
    given = list(OPTIONS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates both
        if form == "script":
            torch.jit.trace(network, example).save(tmp_path / "file.pt")
        else:
            if form == "pixels":
                network, given = Pixels(network), []
                example = torch.zeros(2, SIZE, SIZE, 4, dtype=torch.uint8)
            axes = {"image": {0: "batch"}}
            names = {"input_names": ["image"], "output_names": ["age", "gender", "race"], "dynamic_axes": axes}
            torch.onnx.export(network, (example,), tmp_path / "file.onnx", dynamo=False, **names)
    (tmp_path / "tasks.toml").write_text(TASKS[name])
    file = tmp_path / ("file.pt" if form == "script" else "file.onnx")
    trust = ["--trust-pickle"] if form == "script" else []
    options = ["--tasks", str(tmp_path / "tasks.toml"), "--no-separate", "--engine", "none", "--threads", "1", *trust]
    options += ["--image-size", f"{SIZE}x{SIZE}", "--precision", "fp32", "-o", str(tmp_path / "out.mtl")]
    assert main([str(file), *options, *given]) == 0
    images = pictures(2, 4)
    with load(tmp_path / "out.mtl") as model:
        np.testing.assert_allclose(model(images)["age"], answers(name, images)["age"], atol=2e-5)


class Pixels(torch.nn.Module):
    """Takes pixels, channels last, and normalises them itself."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        options = dict(zip(OPTIONS["rgba"][::2], OPTIONS["rgba"][1::2], strict=True))
        for name in ("mean", "std"):
            values = torch.tensor([float(number) for number in options[f"--{name}"].split(",")])
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> object:
        return self.network((image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)


@pytest.mark.parametrize("name", ["coral", "rgbd", "retinaface", "twinlitenet"])
def test_a_public_network_of_such_channels_exports_as_its_users_write_it(name: str, export: Export) -> None:
    height, width = wild.SIZES.get(name, (SIZE, SIZE))
    size = ("--image-size", f"{height}x{width}")
    signature = open_bundle(export(name, *size, "--precision", "fp32", "--samples", "8")).manifest.signature
    expected = {"coral": "gray", "rgbd": 4, "retinaface": "bgr", "twinlitenet": "rgb"}
    assert signature.preprocessing.channels == expected[name]


@pytest.mark.parametrize("name", [*CHANNELS, "coral", "mivolo", "rgbd"])
def test_an_error_about_channels_names_their_number_and_never_the_image_size(
    name: str, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = wild.CHANNELS[name][0]
    if name in ("coral", "mivolo", "rgbd"):  # whatever their tasks are called
        network = wild.trained(name)
        images = torch.zeros(2, 3, *wild.SIZES.get(name, (64, 64)))
        with pytest.raises(Exception) as caught:
            network(images)
        advice = str(channel_advice(network, images, caught.value))
        assert f"takes {channels} channel" in advice
        assert "--image-size" not in advice
        return
    export(name, code=1, options=())
    said = capsys.readouterr().err
    assert f"the network takes {channels} channel" in said
    assert f"of {channels} number" in said
    assert "--image-size" not in said


class Normalising(torch.nn.Module):
    """Normalises four channels itself, before any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 4, 1, 1))
        self.rest = torch.nn.LazyConv2d(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(x - self.mean)


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (lambda: torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 2, 3)), 2),
        (Normalising, 4),
        (
            lambda: torch.nn.Sequential(
                torch.nn.Flatten(2), torch.nn.Linear(64, 2), torch.nn.Flatten(), torch.nn.Linear(12, 1)
            ),
            6,
        ),
        (lambda: torch.nn.Sequential(torch.nn.PixelUnshuffle(2), torch.nn.Conv2d(20, 2, 3)), 5),
    ],
    ids=["BatchNorm", "buffer", "linear", "space to depth"],
)
def test_the_number_is_found_whatever_layer_comes_first(network: Callable[[], torch.nn.Module], channels: int) -> None:
    made = network().eval()
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(RuntimeError) as caught:
        made(images)
    assert f"takes {channels} channel" in str(channel_advice(made, images, caught.value))


def test_another_failure_is_not_blamed_on_the_channels() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 36 * 2, 1)).eval()
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(RuntimeError) as caught:
        network(images)
    assert channel_advice(network, images, caught.value) is None


def test_gray_picture_files_become_one_channel_by_their_luma(export: Export, tmp_path: Path) -> None:
    picture = Image.fromarray(pictures(1, 3)[0])
    picture.save(tmp_path / "picture.png")
    luma = np.asarray(picture.convert("L"))[None, ..., None]
    with load(export("gray")) as model:
        expected = answers("gray", luma)["age"][0, 0]
        for image in (tmp_path / "picture.png", picture, luma[0]):
            np.testing.assert_allclose(model.predict(image)["age"].value, expected, atol=2e-5)


def test_the_frames_of_a_video_become_gray_for_a_network_of_one_channel(export: Export, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")
    with closing(VideoWriter(tmp_path / "video.avi", 10.0)) as recorder:
        for frame in pictures(3, 3):
            recorder.write(frame)
    found: list[float] = []

    def told(result: StreamResult, _: Shot, __: float) -> None:
        found.append(float(result["age"].value))

    video = tmp_path / "video.avi"
    with load(export("gray")) as model:
        assert play(model, [source(video)], told) == 3
        expected = [model.predict(Image.fromarray(frame).convert("L"))["age"].value for frame in frames_of(video)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with (
        load(export("rgba")) as model,
        pytest.raises(OptionError, match="a video has 3 channels, and the network takes 4"),
    ):
        play(model, [source(video)], told)
