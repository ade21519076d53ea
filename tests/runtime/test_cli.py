from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime.cli import main

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.mtl", "x.png"], "no such file or bundle"),
        (["{bundle}", "{empty}"], "no image in this folder"),
        (["{bundle}", "x.png", "--tasks", "height"], "no task is called 'height'"),
        (["{bundle}", "x.png", "--precision", "int8"], "no artifact for int8"),
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
