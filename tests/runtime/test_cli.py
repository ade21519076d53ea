from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime.cli import main
from tests.networks.dense_bundle import write_dense_bundle

MakeBundle = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, level in (("b.png", 255), ("a.png", 0), ("more/c.jpg", 128)):
        Image.fromarray(np.full((9, 7, 3), level, np.uint8)).save(folder / name)
    (folder / "labels.csv").write_text("not an image")
    return folder


def test_a_table_has_a_row_an_image_and_a_column_a_task(
    make_bundle: MakeBundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_bundle()), str(photos)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "age", "gender", "race"]
    assert [line.split()[0] for line in lines[2:]] == [str(photos / name) for name in ("a.png", "b.png", "more/c.jpg")]
    assert "1 years" in lines[2]
    assert "101 years" in lines[3]


def test_json_holds_the_same(make_bundle: MakeBundle, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_bundle()), str(photos / "b.png"), "--json", "--tasks", "age,race"]) == 0
    document = json.loads(capsys.readouterr().out)
    (prediction,) = document["predictions"]
    assert document["schema_version"] == 1
    assert document["artifact"] == "fp32.onnx"
    assert set(prediction["tasks"]) == {"age", "race"}
    assert prediction["tasks"]["age"] == {"value": pytest.approx(101), "unit": "years"}
    assert sum(prediction["tasks"]["race"]["probabilities"]) == pytest.approx(1, abs=1e-4)


def test_a_bad_image_is_named_and_the_others_are_predicted(
    make_bundle: MakeBundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG no more")
    assert main([str(make_bundle()), str(photos)]) == 2
    captured = capsys.readouterr()
    assert "left out:" in captured.err
    assert "broken.png" in captured.err
    assert len(captured.out.splitlines()) == 2 + 3


def test_hidden_files_of_a_folder_are_passed_over(
    make_bundle: MakeBundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """macOS leaves ``._NAME`` beside a file on a foreign disk, and it is no image."""
    bundle = str(make_bundle())
    (photos / "._a.png").write_bytes(b"its attributes")
    (photos / ".thumbnails").mkdir()
    (photos / "a.png").rename(photos / ".thumbnails" / "a.png")
    assert main([bundle, str(photos)]) == 0
    assert ".thumbnails" not in capsys.readouterr().out
    assert main([bundle, str(photos / ".thumbnails" / "a.png")]) == 0  # named, it is read
    assert main([bundle, str(photos / ".thumbnails")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.mtl", "x.png"], "no such file or bundle"),
        (["{bundle}", "{empty}"], "no image in this folder"),
        (["{bundle}", "x.png", "--tasks", "height"], "no task is called 'height'"),
        (["{bundle}", "x.png", "--precision", "int8"], "has no int8 artifact; it has fp32.onnx"),
    ],
    ids=["bundle", "folder", "task", "precision"],
)
def test_errors_are_one_line(
    make_bundle: MakeBundle, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    bundle = make_bundle()
    assert main([each.format(bundle=bundle, empty=tmp_path / "empty") for each in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_dense_tasks_are_said_in_a_line_and_summed_up_in_json(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_dense_bundle(tmp_path / "dense.mtl", fit="letterbox")
    assert main([str(bundle), str(photos / "a.png"), str(photos / "b.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "seg", "depth", "normals"]
    for line in lines[2:]:
        assert re.search(r"(wall|floor|chair|table|lamp) [0-9.]+ %", line)
        assert " metres, median " in line
        assert "mean direction (" in line
    assert main([str(bundle), str(photos / "a.png"), "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["predictions"][0]["tasks"]
    assert tasks["seg"]["shape"] == tasks["depth"]["shape"] == [9, 7]
    assert sum(tasks["seg"]["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert set(tasks["depth"]) == {"shape", "min", "median", "max", "unit"}
    assert tasks["normals"]["shape"] == [9, 7, 3]


def test_predictions_are_shown_in_a_picture(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_dense_bundle(tmp_path / "dense.mtl")
    assert main([str(bundle), str(photos / "a.png"), "--show", str(tmp_path / "overlay.png")]) == 0
    assert "a.png" in capsys.readouterr().out
    with Image.open(tmp_path / "overlay.png") as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 20
    assert main([str(bundle), str(photos), "--show", str(tmp_path / "shown"), "--tasks", "depth"]) == 0
    assert sorted(file.name for file in (tmp_path / "shown").iterdir()) == ["a.png", "b.png", "c.png"]


def test_pictures_of_files_that_are_called_alike_do_not_overwrite_each_other(
    make_bundle: MakeBundle, photos: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(photos / "more" / "a.png")
    assert main([str(make_bundle()), str(photos), "--show", str(tmp_path / "shown")]) == 0
    assert len(list((tmp_path / "shown").iterdir())) == 4


def test_a_video_is_predicted_and_shown(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from contextlib import closing

    from mtl_deploy.runtime.show.video import VideoWriter
    from tests.clips import frames_of

    pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")
    with closing(VideoWriter(tmp_path / "in.mp4", 5.0)) as recorder:
        for level in (0, 128, 255):
            recorder.write(np.full((48, 64, 3), level, np.uint8))
    bundle = str(make_bundle())
    assert main([bundle, str(tmp_path / "in.mp4"), "--show", str(tmp_path / "out.mp4")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("frame 1, 0.0 per second: age ")
    assert lines[-1] == "3 frames"
    assert len(frames_of(tmp_path / "out.mp4")) == 3
    assert main([bundle, str(tmp_path / "in.mp4"), "--json", "--tasks", "age"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["frame"] for row in rows] == [1, 2, 3]
    assert set(rows[0]["tasks"]) == {"age"}


@pytest.mark.parametrize(
    ("images", "show", "message"),
    [
        (["a.png"], "window", "for a video or a camera"),
        (["a.png"], "overlay.txt", "suffix of an image"),
        (["a.png", "b.png"], "overlay.png", "go to a folder"),
        (["a.png"], "missing/deeper/overlay.png", "No such file"),
        (["clip.mp4"], "overlay.png", "out.mp4"),
        (["clip.mp4", "a.png"], "out.mp4", "by itself"),
        (["clip.mp4"], "out.mp4", "no such file"),
    ],
)
def test_what_cannot_be_shown_is_said_before_anything_is_predicted(
    make_bundle: MakeBundle,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images: list[str],
    show: str,
    message: str,
) -> None:
    bundle = make_bundle()
    monkeypatch.chdir(photos)
    assert main([str(bundle), *images, "--show", show]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_long_vector_is_short_in_the_table_and_whole_in_json(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
    from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
    from mtl_deploy.runtime.bundle.tasks import Task

    size = 30_000
    weights = np.random.default_rng(0).standard_normal((3, size)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
        ],
        "long",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", size])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    signature = Signature((Task("embedding", "regression", size=size),), Preprocessing(8, 8), "decoded")
    helper.set_model_props(model, {METADATA_KEY: signature.to_json()})
    (tmp_path / "long.onnx").write_bytes(model.SerializeToString())
    arguments = [str(tmp_path / "long.onnx"), str(photos / "a.png"), "--threads", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert len(printed) < 500
    assert f"({size} values, from " in printed
    assert main([*arguments, "--json"]) == 0
    text = capsys.readouterr().out
    values = json.loads(text)["predictions"][0]["tasks"]["embedding"]["value"]
    assert len(values) == size
    assert len(text.splitlines()) < 30  # not one line per number
    assert f"{min(values):.4g} to {max(values):.4g}" in printed


def test_verbose_says_on_standard_error_what_runs_and_why(
    make_bundle: MakeBundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    bundle = str(make_bundle(precisions=("fp32", "int8-cpu")))
    assert main([bundle, str(photos / "a.png"), "-v", "--backend", "openvino", "--precision", "int8"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("int8-cpu.onnx runs on OpenVINO ")
    assert printed.err.endswith(", CPU: asked for\n")
    assert main([bundle, str(photos / "a.png"), "--verbose", "--provider", "CPU"]) == 0
    other = capsys.readouterr()
    assert other.err.startswith("fp32.onnx runs on ONNX Runtime ")
    assert other.out == printed.out  # the graphs are the same here
