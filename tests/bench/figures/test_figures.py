"""The plots as files: each of the page's, complete in itself, within its edges, and as large on paper as it says."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.bench.cli import main
from mtl_deploy.bench.figures.paper import width
from mtl_deploy.bench.figures.plots import drawings
from mtl_deploy.bench.figures.png import missing
from mtl_deploy.bench.html.page import render
from mtl_deploy.bench.html.style import LIGHT
from tests.bench.documents import document

RESULTS = {
    "graphs": document(calls=40),
    "engines": document(engines=True, calls=40),
    "batches": document(batches=(1, 8), calls=40),
}
SVG = "{http://www.w3.org/2000/svg}"
_HOSTILE = "</text><script>alert(1)</script>&\"'"
_ESCAPE = "\x1b[31m"  # a character that XML does not allow


@pytest.fixture(scope="module", params=RESULTS)
def result(request: pytest.FixtureRequest) -> dict[str, Any]:
    return RESULTS[request.param]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.encode())


def test_every_plot_of_the_page_is_a_file(result: dict[str, Any]) -> None:
    found = [parsed(svg).findtext(f"{SVG}title") for svg in drawings(result).values()]
    shown = re.findall(r"<svg[^>]*><title>(.*?)</title>", render(result))
    assert len(found) >= 8
    assert sorted(str(title) for title in found) == sorted(map(html.unescape, shown))


def test_files_have_the_names_of_their_sections() -> None:
    assert list(drawings(RESULTS["graphs"])) == [
        "comparison",
        "latency",
        "where",
        "open_loop",
        "energy",
        "break_even-1",
        "break_even-2",
        "cold_start",
        "threads",
        "heads",
    ]
    names = list(drawings(RESULTS["batches"]))
    assert names[:2] == ["comparison-batch1", "latency-batch1"]
    assert {"comparison-batch8", "throughput", "cold_start"} <= set(names)


def test_a_file_needs_no_style_sheet_and_nothing_else(result: dict[str, Any]) -> None:
    for name, svg in drawings(result).items():
        assert not {"class", "style", "href"} & {key for element in parsed(svg).iter() for key in element.attrib}, name
        assert "var(" not in svg
        assert "%" not in re.sub(r"<(text|desc|title)[^>]*>.*?</\1>", "", svg), f"{name}: a share of an unknown width"
        assert set(re.findall(r"#[0-9a-f]{3,8}\b", svg)) <= set(LIGHT.values())
        assert svg.count("http") == 1  # the namespace


def test_a_drawing_has_its_size_in_millimetres_and_its_text_in_nine_points(result: dict[str, Any]) -> None:
    for svg in drawings(result).values():
        root = parsed(svg)
        _, _, wide, high = (float(number) for number in root.attrib["viewBox"].split())
        assert root.attrib["width"] == "140mm"
        assert float(root.attrib["height"].removesuffix("mm")) / high == pytest.approx(140 / wide, rel=1e-3)
        assert 12 * 140 / wide / 25.4 * 72 == pytest.approx(9, rel=1e-3)
        assert root.attrib["font-size"] == "12"
        assert high < 1.6 * wide


def test_nothing_leaves_the_drawing_and_no_words_cover_others(result: dict[str, Any]) -> None:
    for name, svg in drawings(result).items():
        root = parsed(svg)
        _, _, wide, high = (float(number) for number in root.attrib["viewBox"].split())
        plot = root.find(f"{SVG}g")
        assert plot is not None
        down = float(plot.attrib["transform"].split()[1].rstrip(")"))
        boxes = []
        for group, above in ((root, 0.0), (plot, down)):
            for text in group.findall(f"{SVG}text"):
                words, x = text.text or "", float(text.attrib["x"])
                long = width(words) * 0.9  # it is rounded up
                x -= {"middle": long / 2, "end": long}.get(text.attrib.get("text-anchor", ""), 0)
                y = float(text.attrib["y"]) + above
                assert x >= 0, (name, words)
                assert x + long <= wide, (name, words)
                assert 8 <= y <= high, (name, words)
                if "aria-hidden" not in text.attrib:
                    boxes.append((x, x + long, y - 8, y, words))
            for line in group.findall(f"{SVG}line"):
                assert all(0 <= float(line.attrib[key]) <= wide for key in ("x1", "x2")), name
                assert all(0 <= float(line.attrib[key]) + above <= high for key in ("y1", "y2")), name
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                assert not (a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]), (name, a[4], b[4])


def test_the_figures_are_the_results() -> None:
    ratio = RESULTS["graphs"]["batches"][0]["ratios"]["separate"]
    texts = [text.text for text in parsed(drawings(RESULTS["graphs"])["comparison"]).iter(f"{SVG}text")]
    assert f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" in texts


def test_hostile_names_stay_text() -> None:
    text = json.dumps(RESULTS["graphs"]).replace("PyTorch, eager", json.dumps(_HOSTILE + _ESCAPE)[1:-1])
    root = parsed(drawings(json.loads(text))["latency"])
    assert f"{_HOSTILE}\ufffd[31m" in [one.text for one in root.iter(f"{SVG}text")]
    assert root.find(f".//{SVG}script") is None


def run(tmp_path: Path, *options: str) -> int:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(RESULTS["graphs"]), encoding="utf-8")
    return main(["report", str(file), *options])


def test_command_without_cairosvg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)  # as where it is not installed
    folder = tmp_path / "figures"
    assert run(tmp_path, "--figures", str(folder)) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(folder / f"{name}.svg") for name in drawings(RESULTS["graphs"])]
    assert said.err == "note: no PNG: cairosvg is not installed; pip install 'mtl-deploy[figures]'\n"
    assert (folder / "heads.svg").read_text(encoding="utf-8") == drawings(RESULTS["graphs"])["heads"]
    assert not (tmp_path / "result.html").exists()
    assert run(tmp_path, "--figures", str(folder), "--output", str(tmp_path / "page.html"), "--force", "--quiet") == 0
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("result.json", ": a file; name a folder"),
        ("a/b", "make it first"),
        (".", "comparison.svg: exists; pass --force"),
    ],
)
def test_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / "comparison.svg").write_text("mine", encoding="utf-8")
    assert run(tmp_path, "--figures", str(tmp_path / name)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert (tmp_path / "comparison.svg").read_text(encoding="utf-8") == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_png_has_300_dots_per_inch_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    assert run(tmp_path, "--figures", str(tmp_path / "figures")) == 0
    assert len(list((tmp_path / "figures").glob("*.png"))) == len(list((tmp_path / "figures").glob("*.svg"))) == 10
    with Image.open(tmp_path / "figures" / "comparison.png") as image:
        assert image.width == pytest.approx(140 / 25.4 * 300, abs=1)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        pixels = np.asarray(image.convert("RGB"))
    for colour in (LIGHT["paper"], LIGHT["c1"], LIGHT["c2"]):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(axis=2).any(), colour
    capsys.readouterr()
