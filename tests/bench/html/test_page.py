"""The report: every figure is the result's, nothing is fetched, nothing is unescaped, and it fits a phone."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.bench.html import page as html
from mtl_deploy.bench.html.elements import table
from mtl_deploy.bench.html.prose import prose
from mtl_deploy.bench.html.style import DARK, LIGHT, SLOTS, style
from tests.bench.documents import document

_VOID = {"meta", "wbr", "br", "hr", "img", "input", "link"}
_SCALE = {
    "percent": 100,
    "percentage": 100,
    "busy": 100,
    "points": 100,
    "share": 100,
    "MB": 1e-6,
    "file MB": 1e-6,
    "GB": 1e-9,
    "megabytes": 1e-6,
    "gigabytes": 1e-9,
    "M": 1e-6,
    "G": 1e-9,
}
_HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
RESULTS = {
    "graphs": document(),
    "engines": document(engines=True, calls=40),
    "batches": document(batches=(1, 8, 32), calls=40),
}


class Page(HTMLParser):
    """A page's elements, in order: name, attributes, text; and whether they are well nested."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[tuple[str, dict[str, str], list[str]]] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs}, [])
        assert len(element[1]) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element[2].append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    def text(self) -> str:
        return self.all("body")[0][1]


def resolve(result: Any, pointer: str) -> Any:
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        result = result[int(key)] if isinstance(result, list) else result[key]
    return result


@pytest.fixture(scope="module", params=RESULTS)
def result(request: pytest.FixtureRequest) -> dict[str, Any]:
    return RESULTS[request.param]


@pytest.fixture(scope="module")
def page(result: dict[str, Any]) -> Page:
    return Page(html.render(result))


def test_every_figure_is_the_results(result: dict[str, Any], page: Page) -> None:
    figures = [(attributes, "".join(text)) for _, attributes, text in page.elements if "data-path" in attributes]
    assert len(figures) > 200
    for attributes, text in figures:
        expected = resolve(result, attributes["data-path"])
        value = attributes["value"] if "value" in attributes else attributes["data-value"]
        assert float(value) == expected, attributes
        number = text.replace(",", "").partition("\u202f")[0]
        places = len(number.partition("e")[0].partition(".")[2])
        exponent = int(number.partition("e")[2] or 0)
        half = 0.5000001 * 10.0 ** (exponent - places)
        if attributes["data-show"] == "plain":
            half = max(half, 5e-6 * abs(expected))
        assert abs(float(number) - expected * _SCALE.get(attributes["data-show"], 1)) <= half, (attributes, text)


def test_figures_of_every_part_are_shown(result: dict[str, Any], page: Page) -> None:
    paths = {attributes["data-path"] for _, attributes, _ in page.elements if "data-path" in attributes}
    for i, batch in enumerate(result["batches"]):
        for name, contestant in batch["contestants"].items():
            for word in ("mean", "p50", "p90", "p99"):
                ends = {f"/batches/{i}/contestants/{name}/latency_ms/{word}/{end}" for end in ("value", "low", "high")}
                assert ends <= paths if contestant["latency_ms"][word] else not ends & paths
        for name in batch["ratios"]:
            assert {f"/batches/{i}/ratios/{name}/{end}" for end in ("value", "low", "high")} <= paths
    for start in (
        "cold_start",
        "scaling/threads",
        "scaling/heads",
        "break_even",
        "accuracy",
        "verification",
        "environment",
    ):
        assert any(path.startswith(f"/{start}/") for path in paths), start
    for word in ("where", "open_loop", "energy", "agreement"):
        assert any(path.startswith(f"/batches/0/{word}/") for path in paths), word
    assert any("/engine_timings/" in path for path in paths) is (result["backend"] == "tensorrt")


def test_the_answer_is_on_top(result: dict[str, Any], page: Page) -> None:
    [(_, answer)] = page.all("h1")
    batches = result["batches"]
    assert answer == (result["answer"] if len(batches) == 1 else f"Batch 1: {batches[0]['answer']}")
    body = page.text()
    for text in (
        result["command"],
        result["details"],
        result["excluded"]["pytorch_compile"],
        "31 January 2026, 12:00 UTC",
    ):
        assert text in body
    warnings = [text for attributes, text in page.all("aside")]
    assert result["warnings"][0] in warnings[0]
    assert body.index(result["warnings"][0]) < body.index("Comparison")


def test_nothing_is_fetched(page: Page) -> None:
    inert = {"meta", "title", "style", "html", "head", "body"}
    for tag, attributes, _ in page.elements:
        assert tag not in {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "image",
            "use",
            "form",
            "audio",
            "video",
        }
        for name, value in attributes.items():
            assert name not in {
                "src",
                "srcset",
                "xlink:href",
                "action",
                "data",
                "poster",
                "background",
                "style",
                "ping",
            }, (tag, name)
            assert not name.startswith(("on", "xmlns")), (tag, name)
            if name == "href":
                assert value.startswith("#"), value
            if tag not in inert:
                assert "//" not in value, (tag, name, value)
                assert "url(" not in value, (tag, name, value)
    assert not page.comments
    [(_, css)] = page.all("style")
    for word in ("url(", "@import", "@font-face", "http", "//", "expression", "image("):
        assert word not in css
    policy = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in page.elements:
        for name in ("href", "aria-labelledby"):
            if name in attributes:
                assert attributes[name].removeprefix("#") in ids


def test_semantics(page: Page) -> None:
    assert page.all("html")[0][0]["lang"] == "en"
    assert any(a.get("name") == "viewport" and "width=device-width" in a["content"] for a, _ in page.all("meta"))
    assert len(page.all("main")) == len(page.all("header")) == 1
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(attributes.get("scope") in ("col", "row") for attributes, _ in page.all("th"))
    scrolls = [a for a, _ in page.all("div") if a.get("class", "").startswith("scroll")]
    assert len(scrolls) == len(page.all("table"))
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolls)


def test_plots_have_names_words_and_units(page: Page) -> None:
    plots = [i for i, (tag, a, _) in enumerate(page.elements) if tag == "svg" and a.get("role") == "img"]
    assert len(plots) >= 8
    for i in plots:
        (title, _, name), (desc, _, words) = page.elements[i + 1 : i + 3]
        assert (title, desc) == ("title", "desc")
        assert "".join(name)
        assert re.search(r"\d", "".join(words))
    axes = [text for a, text in page.all("text") if a.get("class") == "axis"]
    for unit in (
        "latency of a call, ms",
        "ratio to the shared pass",
        "share of the time, %",
        "joules per image",
        "requests per second",
    ):
        assert any(text.startswith(unit) for text in axes), unit
    decorative = [a for tag, a, _ in page.elements if tag == "svg" and "role" not in a and "x" not in a]
    assert all(a.get("aria-hidden") == "true" for a in decorative)


def test_descriptions_say_the_figures() -> None:
    result = RESULTS["graphs"]
    ratio = result["batches"][0]["ratios"]["separate"]
    said = " ".join(text for _, text in Page(html.render(result)).all("desc"))
    low, high = (f"{ratio[end]:.2f}" for end in ("low", "high"))
    assert f"3 separate in sequence: {ratio['value']:.2f}, 95 % interval {low} to {high}, faster." in said
    assert "shared: p50 " in said
    assert ", 288 calls." in said


def test_hostile_names_stay_text() -> None:
    result = json.loads(json.dumps(RESULTS["batches"]).replace("shared:age", "@@"))

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                _HOSTILE + key if key in ("@@", "age", "head age", "numpy") else key: poison(v)
                for key, v in value.items()
            }
        if isinstance(value, list):
            return [poison(one) for one in value]
        fixed = isinstance(value, str) and value in ("onnxruntime", "poisson", "subset", result["created"])
        return _HOSTILE + value if isinstance(value, str) and not fixed else value

    hostile = poison(result)
    rendered = html.render(hostile)
    page = Page(rendered)
    assert "<script" not in rendered
    assert "<img" not in rendered
    assert page.all("h1")[0][1] == f"Batch 1: {hostile['batches'][0]['answer']}"
    test_nothing_is_fetched(page)
    test_every_figure_is_the_results(hostile, page)
    assert len(page.elements) == len(Page(html.render(result)).elements)


def test_no_difference_is_called_so() -> None:
    result = copy.deepcopy(RESULTS["graphs"])
    result["batches"][0]["ratios"] = {
        "separate": {"value": 1.01, "low": 0.98, "high": 1.03, "confidence": 0.95, "difference": False}
    }
    page = Page(html.render(result))
    row = next(text for _, text in page.all("tr") if text.startswith("3 separate in sequence"))
    assert row.endswith("1.01 0.98 to 1.03no difference")


def test_sections_without_data_are_left_out() -> None:
    result = copy.deepcopy(RESULTS["graphs"])
    batch = result["batches"][0]
    result |= {
        "cold_start": None,
        "scaling": {"threads": None, "heads": None},
        "break_even": None,
        "accuracy": {},
        "verification": [],
    }
    result |= {"excluded": {}, "warnings": [], "largest_throughput": None}
    batch |= {
        "where": None,
        "open_loop": None,
        "modes": None,
        "energy": None,
        "engine_timings": None,
        "agreement": {},
        "ratios": {},
        "of_ideal": None,
    }
    for one in batch["contestants"].values():
        one["memory_bytes"] = None
    page = Page(html.render(result))
    titles = [text for _, text in page.all("h2")]
    assert titles == ["Latency", "Memory and size", "Contestants", "Environment", "Settings", "Measure it again"]
    assert not page.all("aside")


def test_a_quantile_without_bounds_is_not_available() -> None:
    result = RESULTS["graphs"]
    assert result["batches"][0]["contestants"]["shared"]["latency_ms"]["p99"] is None
    row = next(text for _, text in Page(html.render(result)).all("tr") if re.match(r"shared\d", text) and "n/a" in text)
    assert "nan" not in row


def test_many_samples_stay_a_small_page() -> None:
    few, many = document(), document(calls=5000)
    assert len(html.render(many)) < 1.3 * len(html.render(few)) < 400_000


def test_extreme_samples_are_drawn() -> None:
    result = document()
    shared = result["batches"][0]["contestants"]["shared"]["samples_ms"]
    shared[0][0][0] = 90_000.0
    page = Page(html.render(result))
    assert any(text.endswith("logarithmic") for a, text in page.all("text") if a.get("class") == "axis")
    assert "NaN" not in html.render(result)
    only = document(calls=1)
    for one in only["batches"][0]["contestants"].values():
        one["samples_ms"] = [[[5.0]]]
    Page(html.render(only))


def test_the_page_is_the_same_each_time() -> None:
    assert html.render(RESULTS["graphs"]) == html.render(RESULTS["graphs"])


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_told_from_the_paper(colours: dict[str, str]) -> None:
    for name in ("ink", "soft", "warn", *(f"c{slot}" for slot in range(SLOTS))):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    assert contrast(colours["soft"], colours["panel"]) >= 4.5
    assert contrast(colours["warn"], colours["warn-panel"]) >= 4.5
    assert contrast(colours["ink"], colours["warn-panel"]) >= 4.5


def test_both_schemes_and_paper_have_a_style() -> None:
    assert "prefers-color-scheme:dark" in style()
    assert "color-scheme:dark" in style()
    assert "@media print" in style()
    assert set(LIGHT) == set(DARK)
    assert set(re.findall(r"var\(--([\w-]+)\)", style())) - {"c"} <= set(LIGHT)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(RESULTS["graphs"]), encoding="utf-8")
    assert bench(["report", str(file), "-o", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html.render(RESULTS["graphs"])
    assert bench(["report", str(file)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "report.html"), str(tmp_path / "result.html")]


def test_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    assert bench(["report", str(file)]) == 2
    file.write_text('{"schema": "mtl-bench", "schema_version": 1}', encoding="utf-8")
    assert bench(["report", str(file)]) == 2
    file.write_text(json.dumps(RESULTS["graphs"]), encoding="utf-8")
    assert bench(["report", str(file), "-o", str(file)]) == 2
    assert bench(["report", str(file), "-o", str(tmp_path / "missing" / "report.html")]) == 2
    assert bench(["report", str(file), "-o", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 5
    assert all(line.startswith("error: ") for line in errors)


@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(tmp_path: Path, width: int) -> None:
    result = copy.deepcopy(RESULTS["batches"])
    result["warnings"].append(" ".join(f"{place} as --option-{place}-has-it, 95 % of it" for place in range(40)))
    rendered = html.render(result)
    assert "'unsafe-inline'\"" in rendered
    (tmp_path / "report.html").write_text(rendered.replace("default-src 'none'; ", ""), encoding="utf-8")
    script = (
        "const w = document.querySelector('iframe').contentWindow, d = w.document;"
        "const over = [...d.querySelectorAll('svg[role=img] text')].filter(t => {const b = t.getBoundingClientRect();"
        "return b.left < -1 || b.right > w.innerWidth + 1}).length;"
        "const hit = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;"
        "const pairs = [...d.querySelectorAll('svg[role=img]')].map(s => {"
        "const all = [...s.querySelectorAll('text')].map(t => t.getBoundingClientRect());"
        "return all.filter((a, i) => all.some((b, j) => j > i && hit(a, b))).length}).reduce((a, b) => a + b, 0);"
        "const ends = r => [...r.querySelectorAll('td')].map(c => c.querySelector('.ci')).filter(Boolean);"
        "const rows = [...d.querySelectorAll('tr')].map(r => ends(r).map(c => {"
        "const range = d.createRange(); range.selectNodeContents(c); return range.getBoundingClientRect()}));"
        "const near = rows.flatMap(r => r.slice(1).filter((b, i) => b.left - r[i].right < 14)).length;"
        "const broken = [...d.querySelectorAll('.whole')].filter(e => e.getClientRects().length > 1).length;"
        "const plots = d.querySelectorAll('svg[role=img]').length;"
        "document.title = [d.documentElement.scrollWidth, plots, over, pairs, near, broken].join(' ')"
    )
    (tmp_path / "frame.html").write_text(
        f'<!DOCTYPE html><title>.</title><iframe src="report.html" style="border:0;width:{width}px;height:900px"></iframe>'
        f"<script>onload = () => {{{script}}}</script>",
        encoding="utf-8",
    )
    found = browse(tmp_path, "--window-size=1400,1000", "--dump-dom", (tmp_path / "frame.html").as_uri())
    match = re.search(r"<title>(\d+) (\d+) (\d+) (\d+) (\d+) (\d+)</title>", found)
    assert match, found[:300]
    assert int(match[1]) == width
    assert int(match[2]) >= 8
    assert int(match[3]) == 0, "a plot's words leave the window"
    assert int(match[4]) == 0, "a plot's words cover one another"
    assert int(match[5]) == 0, "intervals of neighbouring columns touch"
    assert int(match[6]) == 0, "an option or a percentage is broken at the end of a line"


def test_a_table_that_is_wider_than_its_frame_has_a_shadow_at_its_edge(tmp_path: Path) -> None:
    made = [table("One", [f"column {place}" for place in range(count)], [["12"] * count]) for count in (2, 30)]
    page = f"<!DOCTYPE html><style>{style()}.scroll{{width:400px}}body{{margin:0}}</style>{''.join(made)}"
    (tmp_path / "tables.html").write_text(page, encoding="utf-8")
    shot = tmp_path / "shot.png"
    browse(tmp_path, "--window-size=600,400", f"--screenshot={shot}", (tmp_path / "tables.html").as_uri())
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"))
    shaded = [
        y for y in range(pixels.shape[0]) if pixels[y, 398] < 235 and pixels[y, 392] < 250 and pixels[y, 402] > 250
    ]
    empty = next(y for y in range(60, 400) if (pixels[y : y + 8] > 250).all())  # between the two tables
    assert len([y for y in shaded if y > empty]) > 30
    assert len([y for y in shaded if y < empty]) < 4  # the lines of the one that fits


def browse(tmp_path: Path, *options: str) -> str:
    """Run a headless Chromium."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--hide-scrollbars"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "a --duration, --processes.",
            'a <span class="whole">--duration</span>, <span class="whole">--processes</span>.',
        ),
        ("(--force)", '(<span class="whole">--force</span>)'),
        ("multiply-adds", "multiply-adds"),
        ("about 95 % of 3", 'about <span class="whole">95 %</span> of 3'),
        ("a/fp16.rtx.trt: x", "a/<wbr>fp16<wbr>.rtx<wbr>.trt: x"),
        ("/tmp/some_long-name/model.mtl", "/tmp/<wbr>some_<wbr>long-<wbr>name/<wbr>model<wbr>.mtl"),
        ("n/a images/s 2.93", "n/a images/s 2.93"),
        ("<b>&a/b.onnx", "&lt;b&gt;&amp;a/<wbr>b<wbr>.onnx"),
        ("", ""),
    ],
)
def test_lines_end_where_people_would_end_them(given: str, expected: str) -> None:
    assert prose(given) == expected


def test_numbers_of_one_are_in_the_singular_and_memory_has_a_unit() -> None:
    result = copy.deepcopy(RESULTS["graphs"])
    result["batches"][0] |= {"processes": 1, "rounds": 1}
    result["accuracy"]["cells"] = [cell | {"samples": 1} for cell in result["accuracy"]["cells"]]
    result["environment"] |= {"memory_bytes": 24_600_000_000, "memory_available_bytes": 812_000_000}
    text = Page(html.render(result)).text()
    assert "Measured in turn: 1 round in 1 process." in text
    assert "manifest, 1 image." in text
    assert "memory24.6\u202fGB" in text
    assert "memory available812\u202fMB" in text
    assert not re.search(r"(?<![\d.,])1 (processes|rounds|images|calls|threads|warnings)\b", text)
    result["batches"][0]["contestants"]["shared"]["memory_bytes"]["peak"] = 12_300_000_000
    found = Page(html.render(result))
    assert "peak, GB" in [title for _, title in found.all("th")]
    assert "for models, MB" in [title for _, title in found.all("th")]


def test_headings_stay_with_what_they_head_on_paper() -> None:
    """What a browser does with these is looked at by eye; they must at least be there."""
    paper = style().partition("@media print")[2]
    assert "h2,h3,.lead,.legend,caption{break-after:avoid}" in paper
    assert "thead{display:table-header-group}" in paper


def test_warnings_of_all_batches_are_said_once() -> None:
    result = copy.deepcopy(RESULTS["batches"])
    result["warnings"] = []
    for batch in result["batches"]:
        batch["warnings"] = ["busy", *([f"noisy at {batch['batch']}"] if batch["batch"] > 1 else [])]
    [(_, text)] = Page(html.render(result)).all("aside")
    assert text == "3 warningsbusybatch 8: noisy at 8batch 32: noisy at 32"


def test_the_fit_over_heads_is_said_with_its_units() -> None:
    text = Page(html.render(RESULTS["graphs"])).text()
    assert (
        "shared takes 39.0 + 0.613 n ms and separate 39.8 n ms; the largest distance to a measured time is 0.510 ms (1.2\u202f%)."
        in text
    )


def test_break_even_says_what_was_measured() -> None:
    rows = [text for _, text in Page(html.render(RESULTS["graphs"])).all("tr")]
    for row in ("10.98 0.96 to 1.00measured", "21.96 1.92 to 2.00differences", "43.92 3.84 to 4.01model"):
        assert row in rows


def test_what_the_system_did_not_tell_is_listed() -> None:
    result = copy.deepcopy(RESULTS["graphs"])
    result["environment"] |= {"governor": None, "frequency_range_mhz": None}
    assert "The system did not report: GPU, governor, frequency range, MHz." in Page(html.render(result)).text()


def test_a_measured_result(make_bundle: Any, tmp_path: Path) -> None:
    """A small measurement's document renders, and every figure on the page is its own."""
    file, report = tmp_path / "result.json", tmp_path / "report.html"
    options = ["--quick", "--duration", "0.5", "--threads", "1", "--quiet"]
    assert bench([str(make_bundle()), *options, "--json", str(file), "--report", str(report)]) == 0
    result = json.loads(file.read_text(encoding="utf-8"))
    page = Page(html.render(result))
    assert Page(report.read_text(encoding="utf-8")).text() == page.text()
    figures = [(a, "".join(text)) for _, a, text in page.elements if "data-path" in a]
    assert len(figures) > 50
    for attributes, _ in figures:
        assert float(attributes.get("value") or attributes["data-value"]) == resolve(result, attributes["data-path"])
    assert page.all("h1")[0][1] == result["answer"]
    test_nothing_is_fetched(page)
    test_semantics(page)


def test_the_error_that_decides_is_held_against_what_is_allowed() -> None:
    """Of FP16 the root mean square decides: the largest error of a value may be larger than what is allowed."""
    made = document()
    row = made["verification"][0]
    made["verification"] = [row | {"error": 0.5 * row["tolerance"], "max_error": 3 * row["tolerance"]}]
    assert "too large" not in html.render(made)
    made["verification"] = [row | {"error": 1.5 * row["tolerance"], "max_error": 3 * row["tolerance"]}]
    assert html.render(made).count(" too large") == 1
