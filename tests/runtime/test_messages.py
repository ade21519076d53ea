"""What a user is told who mixes things up: which file is which, what is missing, and what to type instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import OptionError, TaskError, load
from mtl_deploy.runtime.backends.onnxruntime.backend import available_providers
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.cli import main
from mtl_deploy.runtime.console import mistaken
from mtl_deploy.runtime.cuda.gpu import has_gpu
from mtl_deploy.runtime.errors import BackendError, BundleError
from mtl_deploy.runtime.images import files
from mtl_deploy.runtime.selection import select
from mtl_deploy.runtime.show import video

MakeBundle = Callable[..., Path]


@pytest.fixture
def place(make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a bundle, another in a folder, pictures, and files that are neither."""
    folder = tmp_path / "place"
    for name in ("model.mtl", "deploy/inner.mtl"):
        make_bundle(folder / name, separate=False)
    (folder / "photos").mkdir()
    for name in ("face.jpg", "photos/one.png"):
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / name)
    for name in ("model.pt", "clip.mp4", "notes.txt"):
        (folder / name).write_bytes(b"content")
    monkeypatch.chdir(folder)
    return folder


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of a command that ends with exit code 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("face.jpg model.mtl", "write mtl-infer model.mtl face.jpg"),
        ("photos model.mtl", "write mtl-infer model.mtl photos"),
        ("clip.mp4 model.mtl/fp32.onnx", "write mtl-infer model.mtl/fp32.onnx clip.mp4"),
        ("camera:0 model.mtl", "write mtl-infer model.mtl camera:0"),
        ("face.jpg photos model.mtl --json", "write mtl-infer model.mtl face.jpg photos"),
        ("face.jpg", "no bundle is named, and face.jpg is none: write mtl-infer MODEL face.jpg"),
        ("photos", "write mtl-infer MODEL photos"),
        ("camera:0", "write mtl-infer MODEL camera:0"),
        ("face.jpg photos", "write mtl-infer MODEL face.jpg photos"),
        ("model.mtl", "no image is named: write mtl-infer model.mtl PHOTO.jpg"),
        ("model.mtl deploy/inner.mtl", "deploy/inner.mtl: a bundle, not an image"),
        (
            "model.pt face.jpg",
            "a checkpoint, not a bundle or an .onnx graph: make a bundle of it with mtl-export model.pt",
        ),
        ("gone.pth face.jpg", "gone.pth: no such file; by its name it would be a checkpoint"),
        ("deploy face.jpg", "but it holds inner.mtl: pass deploy/inner.mtl"),
        ("gone.mtl face.jpg", "gone.mtl: no such file or bundle; make one with mtl-export"),
        ("notes.txt face.jpg", "notes.txt: a file, not a bundle"),
    ],
)
def test_operands_that_are_swapped_or_forgotten(
    words: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(words.split(), capsys)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/face.jpg", "https://example.org/face.jpg: an address; download the file first"),
        ("file:///data/face.jpg", "write the path, /data/face.jpg"),
        ("0", "write camera:0"),
        ("camera", "write camera:0"),
        ("v4l2:///dev/video1", "write camera:1 for a camera"),
        ("gs://bucket/clip", "addresses begin with"),
    ],
)
def test_addresses_and_devices_are_no_file_names(
    source: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(["model.mtl", source], capsys)


def test_a_file_that_is_called_like_an_address_or_a_number_is_read(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0", "camera", "rtsp:/cam/face.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(place / name, format="PNG")
        assert main(["model.mtl", name]) == 0
        assert name in capsys.readouterr().out


def test_a_bundle_in_its_place_needs_no_suffix(place: Path) -> None:
    (place / "model.mtl").rename(place / "faces.jpg")  # a folder
    assert main(["faces.jpg", "face.jpg"]) == 0
    assert main(["deploy/inner.mtl/manifest.json", "photos"]) == 0


def test_what_is_a_picture_or_a_video_by_its_name_is_what_is_read_as_one() -> None:
    assert set(mistaken.PICTURES) == files.SUFFIXES | {files.ARRAY_SUFFIX}
    assert set(mistaken.VIDEOS) == video.SUFFIXES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "has no engine for TensorRT; it has fp32.onnx (fp32, onnxruntime)"),
        ({"backend": "tensorrt"}, "build engines where they will run, with mtl-export "),
        ({"backend": "tensorrt", "precision": "fp16"}, "has no fp16 engine for TensorRT"),
        ({"backend": "tensorrt", "precision": "int8"}, "--calibration-data PHOTOS/ makes INT8 graphs"),
        ({"backend": "tensorrt", "precision": "int8-cpu"}, "int8-cpu is for processors; ask for int8 here"),
        ({"precision": "int8"}, "--calibration-data PHOTOS/ makes INT8 graphs"),
        ({"precision": "bf16"}, "there is no precision 'bf16'; choose fp32, fp16, int8 or int8-cpu"),
    ],
)
def test_what_a_bundle_lacks_is_said_with_what_makes_it(options: dict[str, str], message: str, place: Path) -> None:
    with pytest.raises(BackendError) as caught:
        select(open_bundle("model.mtl"), **options)
    assert message in str(caught.value)
    assert "with backend tensorrt" not in str(caught.value)


def test_a_precision_that_was_left_out_says_why(place: Path, make_bundle: MakeBundle) -> None:
    bundle = open_bundle(make_bundle(place / "less.mtl", precisions=("fp32",), separate=False))
    reason = {"left_out": {"fp16": "fp16.onnx, task 'age': its error is 3 times what is allowed"}}
    write_manifest(bundle.path, replace(bundle.manifest, provenance=bundle.manifest.provenance | reason))
    with pytest.raises(BackendError, match=r"fp16 was left out, since fp16\.onnx, task 'age'"):
        load(bundle.path, precision="fp16")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("device", ["banana", -1, 1.5, True, b"0"]),
        ("contexts", ["many", 0, 2.0, None]),
        ("cuda_graphs", [-1, "all", None]),
        ("threads", ["4", 0, 2.5, True]),
        ("providers", ["CUDA"]),
        ("precision", [16]),
        ("backend", [3]),
        ("spinning", ["no", 1]),
        ("runtime_cache", [7]),
        ("verify_key", [3]),
    ],
)
def test_options_that_only_an_engine_needs_are_checked_for_a_graph_too(
    name: str, values: list[Any], place: Path
) -> None:
    for value in values:
        with pytest.raises(OptionError, match=f"^{name}="):
            load("model.mtl", **{name: value})
    with pytest.raises(TaskError, match="one string"):
        load("model.mtl", tasks="age")
    with load(
        "model.mtl", device=0, contexts=2, cuda_graphs=0, threads=1, spinning=False, runtime_cache=False
    ) as model:
        assert model.artifact is not None
    with load("model.mtl", threads=np.int64(1), device=np.int32(0)) as model:  # numbers of numpy are numbers
        assert model.artifact is not None


@pytest.mark.skipif(has_gpu(), reason="the providers start here")
@pytest.mark.parametrize("provider", ["CUDA", "cuda", "CUDAExecutionProvider", "Tensorrt"])
def test_a_gpus_provider_without_a_gpu_is_one_line(provider: str, place: Path) -> None:
    """ONNX Runtime itself writes coloured lines to the descriptor, which only a process of its own shows."""
    full = f"{provider.removesuffix('ExecutionProvider')}ExecutionProvider".lower()
    code = "import sys; from mtl_deploy.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "model.mtl", "face.jpg", "--provider", provider]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    if full in (name.lower() for name in available_providers()):
        assert "did not start here: no CUDA d" in line
        assert line.endswith("; leave it out, or ask for CPU")
    else:
        assert "is not available" in line
    assert "\033" not in line


def test_providers_are_named_in_any_case_and_unknown_ones_say_which_build_has_them(place: Path) -> None:
    with load("model.mtl", providers=["cpu"]) as model:
        assert "CPUExecutionProvider" in model.backend.details
    with pytest.raises(
        BackendError, match=r"provider 'Cpux' is not available; this ONNX Runtime has .*CPUExecutionProvider"
    ):
        load("model.mtl", providers=["Cpux"])
    if "OpenVINOExecutionProvider" not in available_providers():
        with pytest.raises(BackendError, match="onnxruntime-openvino has it"):
            load("model.mtl", providers=["OpenVINO"])


def test_other_commands_say_what_a_path_is_too(place: Path) -> None:
    for path, message in {
        "model.pt": "mtl-export model.pt",
        "photos": "a folder of images, not a bundle",
        "face.jpg": "an image or video, not a bundle",
        "deploy": "pass deploy/inner.mtl",
        "https://example.org/model.mtl": "an address, not a bundle; bundles are read from a disk",
    }.items():
        with pytest.raises(BundleError, match=message):
            open_bundle(path)
