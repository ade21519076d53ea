"""Names that are escape sequences reach the terminal as text."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.cli import main
from mtl_deploy.runtime.console.command import run_command, table
from mtl_deploy.runtime.console.visible import VisibleStream, visible
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.show.picture import show
from tests.bench.documents import document

MakeBundle = Callable[..., Path]
RED, TURNED = "\x1b[31mred", "\u202egnp.exe"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("31.4 years, Übermaß 東京 😀", "31.4 years, Übermaß 東京 😀"),
        (RED, "\\u001b[31mred"),
        ("\x9b31mred\x7f", "\\u009b31mred\\u007f"),
        (TURNED, "\\u202egnp.exe"),
        ("a\nb\tc\rd", "a\\u000ab\\u0009c\\u000dd"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_control_characters_are_written_as_json_writes_them(text: str, shown: str) -> None:
    assert visible(text) == shown
    if "\udcff" not in text:
        assert json.loads(f'"{shown}"') == text


def test_streams_keep_lines_and_print_what_their_encoding_lacks() -> None:
    raw = io.BytesIO()
    stream = VisibleStream(io.TextIOWrapper(raw, "ascii", newline="\n"))
    stream.write("a\nü\t\x1b[2J\udcff\n")
    stream.flush()
    assert raw.getvalue() == b"a\n\\xfc\t\\u001b[2J\\udcff\n"


def test_commands_print_errors_and_tables_visibly(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        print(RED, table(["file"], [[RED], ["two\nlines"]]))
        raise TaskError(f"no task is called {RED}")

    before = sys.stdout
    assert run_command(fails) == 2
    assert sys.stdout is before
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "two\\u000alines" in captured.out
    assert "error: no task is called \\u001b[31mred" in captured.err


def test_labels_units_and_file_names_reach_no_terminal(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    model = onnx.load(make_bundle() / "fp32.onnx")
    for prop in model.metadata_props:
        prop.value = (
            prop.value.replace("years", "y\\u001b[2J")
            .replace('"male"', '"ma\\u009b"')
            .replace('"female"', '"\\u202efe"')
        )
    onnx.save(model, tmp_path / "lone.onnx")
    names = [tmp_path / f"{RED}.png", tmp_path / "\udcff.png", tmp_path / f"broken{TURNED}.png"]
    for name in names[:2]:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "plain.png")
        name.write_bytes((tmp_path / "plain.png").read_bytes())
    names[2].write_bytes(b"no image")
    for more in ([], ["--json"]):
        assert main([str(tmp_path / "lone.onnx"), *map(str, names), *more]) == 2
        captured = capsys.readouterr()
        assert "y\\u001b[2J" in captured.out
        assert f"broken{visible(TURNED)}.png" in captured.err
        assert not {"\x1b", "\x9b", "\u202e", "\udcff"} & set(captured.out + captured.err)
        if more:
            assert json.loads(captured.out)["predictions"][0]["image"] == str(names[0])


def test_predictions_say_labels_and_units_visibly() -> None:
    assert str(Prediction("age", "regression", 3.0, unit=RED)) == "3 \\u001b[31mred"
    shares = np.array([0.25, 0.75], np.float32)
    assert str(Prediction("sex", "binary", 1, TURNED, shares)) == "\\u202egnp.exe (75.0 %)"
    one = Prediction("seg", "segmentation", np.zeros((2, 2), np.uint8), labels=(RED,))
    assert str(one) == "\\u001b[31mred 100.0 %"


def test_pictures_can_be_drawn_with_any_label() -> None:
    tasks = (Task("seg", "segmentation", labels=("a\nb", "\x1b"), size=2), Task("d", "depth", unit="m\nm", size=1))
    maps = {
        "seg": Prediction("seg", "segmentation", np.zeros((9, 7), np.uint8), labels=("a\nb", "\x1b")),
        "d": Prediction("d", "depth", np.linspace(1, 2, 63, dtype=np.float32).reshape(9, 7), unit="m\nm"),
    }
    assert show(np.zeros((9, 7, 3), np.uint8), maps, tasks).width > 600


def test_names_of_contestants_are_compared_visibly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = document()
    for owner in (result, *result["batches"]):
        owner["contestants"][RED] = owner["contestants"]["shared"]
    (tmp_path / "a.json").write_text(json.dumps(result))
    for more in ([], ["--json", "-"]):
        assert bench(["compare", str(tmp_path / "a.json"), str(tmp_path / "a.json"), *more]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\\u001b[31mred" in out
