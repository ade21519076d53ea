"""``--source``: bundles whose graphs take a camera's frames, through all rooms, against the same networks that take pixels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import wild
from PIL import Image
from wild_tasks import OPTIONS, TASKS

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.baselines.pytorch import Baseline
from mtl_deploy.export.cli import main
from mtl_deploy.export.graph.source import frames
from mtl_deploy.export.network.network import load_network
from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.source import Source
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.errors import BundleError, OptionError
from mtl_deploy.runtime.images.camera import packed, unpacked
from mtl_deploy.runtime.live.play import play
from mtl_deploy.runtime.onnx_format.border import of_border
from mtl_deploy.runtime.serving.triton import TritonPythonModel
from mtl_deploy.runtime.show.video import VideoWriter
from tests.clips import source as source_of_clip

Export = Callable[..., Path]
FP32 = ("--precision", "fp32", "--no-separate")
NV12 = Source(96, 160, "nv12")


def run(folder: Path, name: str, *arguments: str, code: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tasks.toml").write_text(TASKS[name])
    target = folder / f"{len(list(folder.glob('*.mtl')))}.mtl"
    given = [str(wild.checkpoint(name, folder)), "--model", f"wild:{name}", "--tasks", str(folder / "tasks.toml")]
    given += ["--image-size", "64x64", "--engine", "none", "--threads", "1", *OPTIONS.get(name, ()), *arguments]
    assert main([*given, "--output", str(target)]) == code
    return target


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 pictures of another shape than the camera's frames."""
    folder = tmp_path_factory.mktemp("pictures")
    for position, image in enumerate(natural_images(40, 60, 80, seed=3)):
        Image.fromarray(image).save(folder / f"{position}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Graphs of every precision that take NV12, for a network of attributes and of landmarks in the input's frame."""
    folder = tmp_path_factory.mktemp("celeba")
    few = ("--samples", "8", "--no-separate", "--calibration-data", str(pictures))
    return run(folder, "celeba", "--source", "96x160", "--layout", "nv12", *few)


@pytest.fixture(scope="module")
def plain(bundle: Path) -> Path:
    """The same network without it."""
    return run(bundle.parent, "celeba", *FP32, "--samples", "8")


def frames_of(source: Source, count: int = 2) -> np.ndarray:
    return np.stack([packed(image, source) for image in natural_images(count, source.height, source.width, seed=7)])


def test_every_graph_takes_the_cameras_buffer_and_agrees_with_the_network_behind_pillow(
    bundle: Path, plain: Path
) -> None:
    found = open_bundle(bundle).manifest
    assert found.signature.preprocessing.source == NV12
    work = found.sharing["multiply_adds"]
    assert work["border"] > 0
    assert work["shared"] == open_bundle(plain).manifest.sharing["multiply_adds"]["shared"]
    assert {row["artifact"] for row in found.verification} >= {"fp32.onnx", "fp16.onnx"}
    buffers = frames_of(NV12)
    with load(plain) as other:
        expected = other.predict([unpacked(frame, NV12) for frame in buffers])
    for artifact in found.artifacts:
        graph = onnx.load(bundle / artifact.path).graph
        assert [side.dim_value for side in graph.input[0].type.tensor_type.shape.dim][1:] == [144, 160]
        exact = artifact.precision == "fp32"
        with load(bundle / artifact.path) as model:
            for one, other_one in zip(model.predict(buffers), expected, strict=True):
                for task, prediction in one.items():  # landmarks in the frame's pixels
                    scale = np.abs(other_one[task].value).max()
                    close = 1e-5 if exact else 0.05
                    np.testing.assert_allclose(prediction.value, other_one[task].value, atol=close * scale)


def test_what_resizes_frames_is_never_quantized_nor_typed_fp16(bundle: Path) -> None:
    for file in ("fp16.onnx", "int8.onnx", "int8-cpu.onnx"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(bundle / file)).graph
        types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
        border = [node for node in graph.node if of_border(node.name)]
        kinds = Counter(node.op_type for node in border)
        assert kinds["MatMul"] >= 8, file
        assert not {"QuantizeLinear", "DequantizeLinear"} & kinds.keys()
        assert {types[node.output[0]] for node in border} == {onnx.TensorProto.FLOAT}
        assert {value.data_type for value in graph.initializer if of_border(value.name)} == {
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.INT64,
        }
    details = next(each for each in open_bundle(bundle).manifest.artifacts if each.path == "fp16.onnx").details
    assert not any(map(of_border, details["kept"]))


def test_an_application_streams_buffers_and_is_told_what_does_not_fit(bundle: Path) -> None:
    (frame,) = frames_of(NV12, 1)
    with load(bundle, tasks=("landmarks",)) as model, model.stream() as stream:
        assert model.layout == "nv12"
        stream.submit(frame, tag="first")
        result = next(iter(stream))
        np.testing.assert_array_equal(result.predictions["landmarks"].value, model.predict(frame)["landmarks"].value)
        with pytest.raises(OptionError, match="layout 'bgr', but this graph takes frames of 96x160 in nv12"):
            model.predict(frame, layout="bgr")
    with pytest.raises(OptionError, match="layout 'rgb', but this graph takes frames of 96x160 in nv12"):
        load(bundle, layout="rgb")


def test_pictures_and_videos_become_frames(
    bundle: Path, plain: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert infer([str(bundle), str(pictures / "0.png"), "--json", "--show", str(tmp_path / "shown.png")]) == 0
    (row,) = json.loads(capsys.readouterr().out)["predictions"]
    image = Image.open(pictures / "0.png")
    assert Image.open(tmp_path / "shown.png").width >= image.width
    with load(plain) as other:
        wide = other.predict(image.resize((160, 96), Image.Resampling.BILINEAR))["landmarks"]
    points = np.array([*row["tasks"]["landmarks"]["values"].values()]).reshape(5, 2)
    expected = np.reshape(wide.value, (5, 2)) * [80 / 160, 60 / 96]  # in the picture's pixels
    np.testing.assert_allclose(points, expected, atol=0.1)  # chroma is shared by pixels in a frame

    writer = VideoWriter(tmp_path / "clip.avi", 10.0)
    for shown in natural_images(2, 60, 80, seed=1):
        writer.write(shown)
    writer.close()
    with load(bundle) as model:
        assert play(model, [source_of_clip(tmp_path / "clip.avi")], lambda *_: None) == 2


def test_frames_calibrate_and_are_measured(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = frames_of(NV12, 12)
    np.savez(tmp_path / "frames.npz", **{"images": images, "labels/landmarks": np.full((12, 10), 0.5, np.float32)})
    given = [str(bundle), "--evaluate-only", "--json", "--threads", "1", "--calibration-data"]
    capsys.readouterr()
    assert calibrate([*given, str(tmp_path / "frames.npz")]) == 0
    cells = json.loads(capsys.readouterr().out)["accuracy"]["cells"]
    assert {(cell["variant"], cell["samples"]) for cell in cells} >= {("fp32", 12), ("int8", 12)}
    np.save(tmp_path / "pictures.npy", natural_images(3, 96, 160, seed=1))
    assert calibrate([*given, str(tmp_path / "pictures.npy")]) == 2
    assert "The shape is that of rgb or bgr: have the camera give nv12" in capsys.readouterr().err


def test_pytorch_takes_frames_too_where_it_is_compared(bundle: Path) -> None:
    signature = open_bundle(bundle).manifest.signature
    checkpoint = bundle.parent / "model.pt"
    options = Options(checkpoint, model="wild:celeba", tasks=signature.tasks, preprocessing=signature.preprocessing)
    buffers = frames_of(NV12)
    baseline = Baseline("pytorch", load_network(options), signature, "cpu", compiled=False)
    with load(bundle, precision="fp32") as model:
        np.testing.assert_allclose(baseline(buffers)["attributes"], model(buffers)["attributes"], atol=1e-5)


def test_triton_serves_buffers_as_they_are_and_encoded_images_as_frames(bundle: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert main([str(bundle), "--triton", str(repository)]) == 0
    name = bundle.stem
    config = (repository / f"{name}-fp32" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "image"\n  data_type: TYPE_UINT8\n  dims: 144\n  dims: 160\n}' in config
    served = TritonPythonModel()
    served.initialize(
        {
            "model_config": "{}",
            "model_repository": str(repository / name),
            "model_version": "1",
            "model_instance_kind": "CPU",
        }
    )
    served.finalize()


def test_a_record_that_does_not_fit_the_graph_is_refused(bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(bundle / "fp32.onnx")
    (record,) = (entry for entry in model.metadata_props if entry.key == "mtl_deploy")
    document = json.loads(record.value)
    document["preprocessing"]["source"]["height"] = 98
    record.value = json.dumps(document)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(
        BundleError, match=r"'image' is uint8 \(any, 144, 160\), by its metadata uint8 \(any, 147, 160\)"
    ):
        load(tmp_path / "other.onnx")


@pytest.mark.extended
def test_maps_of_a_letterbox_come_back_at_the_frames_size(tmp_path: Path) -> None:
    """BGR frames for a network of BGR: nothing is swapped twice, and the border is cut off."""
    options = ("--fit", "letterbox", "--channels", "bgr", *FP32)
    found = run(tmp_path, "twinlitenet", "--source", "48x80", *options)
    plain = run(tmp_path, "twinlitenet", *options)
    colours = natural_images(2, 48, 80, seed=4)
    with load(found) as model, load(plain) as other:
        assert model.layout == "bgr"
        one, expected = model.predict(np.ascontiguousarray(colours[..., ::-1])), other.predict(list(colours))
        for task in ("area", "lanes"):
            assert one[0][task].value.shape == (48, 80)
            assert np.mean(one[0][task].value != expected[0][task].value) < 1e-3
        maps = model.predict(Image.fromarray(colours[0]).resize((50, 30)))
        assert maps["area"].value.shape == (30, 50)


def test_verification_sees_a_border_that_differs_from_pillow_by_single_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The axes in the other order give pixels that differ by one level here and there."""
    right = frames.rows_first
    monkeypatch.setattr(frames, "rows_first", lambda size, target: not right(size, target))
    run(tmp_path, "celeba", "--source", "96x160", *FP32, "--samples", "8", code=1)
    assert "fp32.onnx" in capsys.readouterr().err


@pytest.mark.extended
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["rgb", "bgr"])
def test_bundles_of_every_order_agree_with_the_plain_one(layout: str, channels: str, tmp_path: Path) -> None:
    options = ("--mean", "0.1,0.4,0.6", "--std", "0.2,0.25,0.3", "--channels", channels, *FP32)
    found = run(tmp_path, "celeba", *options, "--source", "70x90", "--layout", layout)
    plain = run(tmp_path, "celeba", *options)
    colours = natural_images(2, 70, 90, seed=4)
    given = colours if layout == "rgb" else np.ascontiguousarray(colours[..., ::-1])
    with load(found) as model, load(plain) as other:
        for one, expected in zip(model.predict(given), other.predict(list(colours)), strict=True):
            np.testing.assert_allclose(one["landmarks"].value, expected["landmarks"].value, atol=1e-4)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "layout", "options"),
    [
        ("yolopose", "yuyv", ("--source", "96x128", "--source-colour", "bt709", "--trust-pickle")),
        ("hopenet", "gray", ("--source", "90x70")),  # a crop; gray is tripled
        ("gray", "nv12", ("--source", "64x48", "--source-colour", "bt601-full")),
        ("refinenet", "bgr", ("--source", "480x640", "--interpolation", "bicubic")),
    ],
)
def test_every_kind_of_task_is_verified(name: str, layout: str, options: tuple[str, ...], tmp_path: Path) -> None:
    found = run(tmp_path, name, *options, "--layout", layout)
    with load(found, precision="fp32") as model:
        source = model.signature.preprocessing.source
        assert source is not None
        frame = np.zeros(source.shape, np.uint8)
        assert model.predict(frame).keys() == {task.name for task in model.tasks}


@pytest.mark.extended
def test_separate_models_take_frames_and_are_benchmarked(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = run(tmp_path, "celeba", "--source", "96x160", "--layout", "nv12", "--calibration-data", str(pictures))
    rows = {row["artifact"]: row.get("cut_from") for row in open_bundle(bundle).manifest.verification}
    assert rows["separate/landmarks.onnx"] == "fp32.onnx"
    for name in ("landmarks.onnx", "landmarks.fp16.onnx", "landmarks.int8.onnx"):
        graph = onnx.load(bundle / "separate" / name).graph
        assert sum(node.op_type == "MatMul" and of_border(node.name) for node in graph.node) >= 8
    timed = ["--precision", "fp32", "--quick", "--duration", "0.1", "--isolation", "none", "--quiet", "--json", "-"]
    capsys.readouterr()
    assert bench([str(bundle), *timed]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["batches"]
    assert {"shared", "separate"} <= set(measured["contestants"])


@pytest.mark.extended
def test_engines_are_built_of_them(bundle: Path, tmp_path: Path) -> None:
    """TensorRT-RTX builds without a GPU; the engine's input is the camera's buffer."""
    pytest.importorskip("tensorrt_rtx")
    target = tmp_path / "engines.mtl"
    built = ["--engine", "tensorrt-rtx", "--precision", "fp32,fp16", "--output", str(target)]
    assert main([str(bundle), *built]) == 0
    engines = [each for each in open_bundle(target).manifest.artifacts if each.backend == "tensorrt"]
    assert {each.precision for each in engines} == {"fp32", "fp16"}
