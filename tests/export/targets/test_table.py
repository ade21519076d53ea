"""The data file of targets is complete, agrees with itself and with the page, and names what each figure comes from."""

from __future__ import annotations

import json
import re
from datetime import date
from importlib.metadata import requires
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.export.targets.linter import find_target
from mtl_deploy.export.targets.operators import READ_SINCE
from mtl_deploy.export.targets.table import FILE, TARGETS

PAGE = (Path(__file__).parents[3] / "docs" / "targets.md").read_text(encoding="utf-8")
DATA: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
LINES: list[dict[str, Any]] = DATA["targets"]
KEYS = ("name", "library", "version", "reads", "opset", "opset_by", "gpu", "released", "sources")
RELEASES = {line["version"]: line for line in LINES if re.match(r"tensorrt-\d", line["name"])}
lines = pytest.mark.parametrize("line", LINES, ids=lambda line: line["name"])


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@lines
def test_a_line_says_everything_and_from_where(line: dict[str, Any]) -> None:
    assert tuple(line) == KEYS
    product, _, release = line["name"].rpartition("-")
    assert product in ("jetpack", "tensorrt", "tensorrt-rtx")
    if product != "jetpack":
        assert (line["library"], line["version"]) == (product, release)
    assert line["opset_by"] in (
        "table",
        "release notes",
        "release",
        "maintainer",
        "neighbours",
        "lower bound",
        "measured",
    )
    assert (product == "jetpack") == (line["opset_by"] == "release")
    assert line["sources"]
    for source in line["sources"]:
        assert source.startswith("https://")
        assert source.removesuffix(release) in PAGE.replace(f"/v{release}", "/v"), f"{source} is not on the page"
    if line["released"] is not None:
        assert date.fromisoformat(f"{line['released']}-01") <= date.fromisoformat(DATA["read"])
    else:
        assert product != "tensorrt"
    assert product != "jetpack" or re.search(r"\d+\.\d+", line["gpu"])


def test_the_page_has_the_table_of_the_file() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|([^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
    titles = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
    assert [tuple(cell.strip() for cell in row) for row in rows] == [
        (
            line["name"],
            titles[line["library"]],
            line["version"],
            str(line["opset"]),
            line["gpu"],
            line["released"] or "",
        )
        for line in LINES
    ]
    assert f"last read on {DATA['read']}" in PAGE


def test_no_release_between_two_is_missing_and_all_that_the_extra_installs_is_there() -> None:
    found = sorted(map(numbers, RELEASES))
    for major in (10, 11):
        minors = [minor for first, minor in found if first == major]
        assert minors == list(range(len(minors)))
    (bounds,) = [text for text in requires("mtl-deploy") or [] if re.match(r"tensorrt[<>=]", text)]
    least, limit = re.search(r">=(\d+)\.\d+", bounds), re.search(r"<(\d+)", bounds)
    assert least is not None
    assert limit is not None
    assert {int(least[1]), int(limit[1]) - 1} <= {first for first, _ in found}


def test_a_later_release_reads_no_less_and_came_no_earlier() -> None:
    ordered = sorted(RELEASES.values(), key=lambda line: numbers(line["version"]))
    for earlier, later in pairwise(ordered):
        assert earlier["opset"] <= later["opset"]
        assert earlier["released"] <= later["released"]


@lines
def test_a_device_and_an_other_library_read_as_their_release_does(line: dict[str, Any]) -> None:
    release = RELEASES[line["reads"]]
    assert line["opset"] == release["opset"]
    if line["library"] == "tensorrt":
        assert numbers(line["version"])[:2] == numbers(line["reads"])


def test_every_operator_that_came_later_came_with_a_release_of_the_table_or_before_it() -> None:
    known = {numbers(version) for version in RELEASES}
    assert all(since in known or since[0] == 9 for since in READ_SINCE.values())


def test_the_table_of_the_package_is_the_files() -> None:
    assert list(TARGETS) == [line["name"] for line in LINES]
    assert find_target("jetpack-7.2").title == "TensorRT 10.16.2"
    assert find_target("jetpack-7.2").rules == (10, 16)
