"""Many images on one machine."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import RunError
from mtl_deploy.runtime.bulk.predicting import outcomes
from mtl_deploy.runtime.cli import main
from tests.runtime.streams.gated import gated

MakeBundle = Callable[..., Path]
COUNT = 37


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Pictures of several sizes; the twentieth is broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = [folder / f"{number:03}.png" for number in range(COUNT)]
    for number, file in enumerate(files):
        Image.fromarray(rng.integers(0, 256, (12 + number % 5, 30, 3), dtype=np.uint8)).save(file)
    files[20].write_bytes(b"\x89PNG no more")
    return files


def test_files_run_in_batches_and_come_in_order(make_bundle: MakeBundle, photos: list[Path]) -> None:
    with gated(make_bundle()) as (model, gate):
        found = list(outcomes(model, photos))
        calls = [count for count, _ in gate.calls]
        expected = [None if number == 20 else model.predict(file) for number, file in enumerate(photos)]
    assert [one.file for one in found] == photos
    assert sum(calls) == COUNT - 1
    assert len(calls) < COUNT / 2
    assert max(calls) <= 16
    for one, other in zip(found, expected, strict=True):
        assert (one.error is None) == (other is not None)
        if other is not None:
            assert one.predictions["age"].value == pytest.approx(other["age"].value, rel=1e-5)
            assert one.predictions["race"].label == other["race"].label
    assert "020.png" in str(found[20].error)


def test_what_fails_beside_the_images_ends_the_work(make_bundle: MakeBundle, photos: list[Path]) -> None:
    with gated(make_bundle()) as (model, gate):
        gate.failing = lambda call: RunError("the backend failed") if call == 1 else None
        with pytest.raises(RunError, match="the backend failed"):
            list(outcomes(model, photos))
        gate.failing = lambda call: None
        with closing(outcomes(model, photos)) as some:
            assert next(some).file == photos[0]  # and nobody wants the others
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("mtl-stream")]
    assert not left


def test_memory_does_not_grow(make_bundle: MakeBundle, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(96)]
    for file in files:
        Image.new("RGB", (400, 300)).save(file)

    def peak(model: Any, given: list[Path]) -> int:
        tracemalloc.start()
        for _ in outcomes(model, given):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    with gated(make_bundle()) as (model, _):
        peak(model, files[:32])  # what is made once
        assert peak(model, files) < 1.3 * peak(model, files[:32]) + (1 << 18)


def rows_of(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as opened:
            return [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(opened)]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (the extra 'parquet') is not installed")
    found: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    return found


@pytest.mark.parametrize("name", ["results.csv", "results.parquet"])
def test_results_are_rows(
    make_bundle: MakeBundle, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow (the extra 'parquet') is not installed")
    bundle, target = str(make_bundle()), tmp_path / name
    folder = str(photos[0].parent)
    assert main([bundle, folder, "--json"]) == 2
    expected = json.loads(capsys.readouterr().out)["predictions"]
    assert main([bundle, folder, "--output", str(target)]) == 2
    said = capsys.readouterr()
    assert said.out.startswith(f"{COUNT} images, 1 left out, ")
    assert said.out.rstrip().endswith(" per second")
    rows = rows_of(target)
    assert list(rows[0]) == ["image", "age", "gender", "gender_probability", "race", "race_probability", "error"]
    assert [row["image"] for row in rows] == list(map(str, photos))
    assert "020.png" in rows[20]["error"]
    assert rows[20]["age"] is None
    del rows[20]
    for row, other in zip(rows, expected, strict=True):
        tasks = other["tasks"]
        assert float(row["age"]) == pytest.approx(tasks["age"]["value"], rel=1e-5)
        assert row["race"] == tasks["race"]["label"]
        assert float(row["race_probability"]) == pytest.approx(max(tasks["race"]["probabilities"]), abs=1e-5)
        assert row["error"] is None


def test_boxes_are_rows_of_their_own(
    make_bundle: MakeBundle, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, files = make_bundle(), list(map(str, photos[:3]))
    given = [str(bundle), *files, "--box", "0,0,10,10", "--box=5,2,8.5,9", "--margin", "0.1"]
    assert main([*given, "--output", str(tmp_path / "a.csv")]) == 0
    capsys.readouterr()
    rows = rows_of(tmp_path / "a.csv")
    assert [(row["image"], float(row["width"])) for row in rows] == [(file, w) for file in files for w in (10, 8.5)]
    assert main([*given, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["predictions"]
    found = [one["tasks"]["age"]["value"] for entry in entries for one in entry["boxes"]]
    assert [float(row["age"]) for row in rows] == pytest.approx(found, rel=1e-5)
    assert entries[0]["boxes"][1]["box"] == [5, 2, 8.5, 9]
    with gated(bundle) as (model, _):
        one = model.predict(photos[1], boxes=[(5, 2, 8.5, 9)], margin=0.1)[0]["age"].value
    assert found[3] == pytest.approx(one, rel=1e-5)
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{files[0]} [5,2,8.5,9]" in lines[3]
    assert len(lines) == 2 + 6
    assert main([*given[:4], "--box", "100,100,5,5"]) == 2  # outside of each
    assert capsys.readouterr().err.count("left out: ") == 3


@pytest.mark.parametrize("name", ["boxes.jsonl", "boxes.csv"])
def test_each_image_has_boxes_of_its_own(
    make_bundle: MakeBundle, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    given = {"000.png": [[0, 0, 10, 10], [3, 2, 4.5, 6]], "002.png": [[1, 1, 5, 5]], "absent.png": [[0, 0, 1, 1]]}
    file = photos[0].parent / name  # which names the images of its own folder
    if name.endswith("csv"):
        lines = [f"{image},{','.join(map(str, box))}" for image, boxes in given.items() for box in boxes]
        file.write_text("\n".join(["image,x,y,width,height", *lines]))
    else:
        lines = [json.dumps({"image": image, "boxes": [box]}) for image, boxes in given.items() for box in boxes]
        file.write_text("\n".join([*lines, "", json.dumps({"image": "001.png", "boxes": []})]))
    command = [str(make_bundle()), *map(str, photos[:3]), "--boxes", str(file), "--margin", "0.2"]
    assert main([*command, "--output", "-"]) == 0
    printed = capsys.readouterr()
    assert "it also names 1 image beside those that are predicted, such as absent.png" in printed.err
    entries = [json.loads(line) for line in printed.out.splitlines()]
    assert [[box["box"] for box in entry["boxes"]] for entry in entries] == [given["000.png"], [], given["002.png"]]
    with gated(tmp_path / "tiny.mtl") as (model, _):
        expected = model.predict(photos[0], boxes=given["000.png"], margin=0.2)
    found = [box["tasks"]["age"]["value"] for box in entries[0]["boxes"]]
    assert found == pytest.approx([row["age"].value for row in expected], rel=1e-5)
    assert main([*command, "--output", str(tmp_path / "a.csv")]) == 0
    assert [row["image"] for row in rows_of(tmp_path / "a.csv")] == [str(photos[place]) for place in (0, 0, 2)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "image,x,y,w,h\n", "no column width"),
        ("a.csv", "image,x,y,width,height\n000.png,1,2,3,zero\n", "line 2: a box is four numbers"),
        ("a.csv", "image,x,y,width,height\n000.png,1,2,3\n", "line 2: a box is four numbers"),
        ("a.jsonl", '{"image": "000.png", "boxes": [[1, 2, 3, 0]]}', "line 1: a box is four numbers"),
        ("a.jsonl", '{"image": "000.png", "boxes": ["1234"]}', "line 1: a box is four numbers"),
        ("a.jsonl", '{"image": "000.png"}', "line 1: boxes is null"),
        ("a.jsonl", "[1, 2]", "line 1: an object with the name"),
        ("a.jsonl", "{", "line 1: "),
        ("a.jsonl", '{"image": "x.png", "boxes": []}', "names none of the images"),
        ("a.jsonl", None, "No such file"),
    ],
)
def test_what_is_wrong_with_a_file_of_boxes_is_said(
    make_bundle: MakeBundle,
    photos: list[Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    words: str,
) -> None:
    file = photos[0].parent / name
    if content is not None:
        file.write_text(content)
    assert main([str(make_bundle()), str(photos[0]), "--boxes", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --boxes {file}: ")
    assert words in error
    assert len(error.splitlines()) == 1


def test_json_lines_hold_broken_images_too(
    make_bundle: MakeBundle, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(make_bundle()), *map(str, photos[18:22]), "--output"]
    assert main([*given, str(tmp_path / "a.jsonl")]) == 2
    capsys.readouterr()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["image", "tasks"]] * 2 + [["error", "image"]] + [["image", "tasks"]]
    assert main([*given, "-"]) == 2
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--output", "a.txt"], "the suffix says the format"),
        (["--output", "a.csv"], "exists; pass --force"),
        (["--output", "photos/000.png.csv/x.csv"], "Not a directory|No such file"),
        (["--margin", "0.1"], "give --box"),
        (["--margin", "-1", "--box", "0,0,1,1"], "0 or more"),
        (["--box", "0,0,1,1", "--show", "x.png"], "leave --box out"),
        (["--every", "race=2"], "for videos and live sources"),
        (["--raw", "1x1:bgr"], "for videos and live sources"),
    ],
)
def test_what_cannot_be_done_is_said(
    make_bundle: MakeBundle,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("mine")
    assert main([str(make_bundle()), str(photos[0]), *more]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert any(word in error for word in words.split("|")), error
    assert Path("a.csv").read_text() == "mine"


def test_without_pyarrow_the_remedy_is_named(
    make_bundle: MakeBundle, photos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    target = photos[0].parent / "a.parquet"
    assert main([str(make_bundle()), str(photos[0]), "--output", str(target)]) == 2
    assert "mtl-deploy[parquet]" in capsys.readouterr().err
    assert not target.exists()


def test_a_termination_leaves_no_part_of_a_file(make_bundle: MakeBundle, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(400):
        Image.new("RGB", (300, 300)).save(folder / f"{number:03}.png")
    target = tmp_path / "out" / "a.jsonl"
    target.parent.mkdir()
    code = "import sys; from mtl_deploy.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, make_bundle(work=8), folder, "--output", target, "--threads", "1"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not any(file.stat().st_size for file in os.scandir(target.parent)) and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted\n"
    assert list(target.parent.iterdir()) == []
