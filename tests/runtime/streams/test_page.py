"""The code of docs/streams.md runs, and what the page says by name is there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from mtl_deploy.runtime import Model
from mtl_deploy.runtime.streams import ExponentialSmoother, MajorityVote, Stream
from mtl_deploy.runtime.streams.options import Drop
from tests.runtime.streams.gated import IMAGES

MakeBundle = Callable[..., Path]
PAGE = (Path(__file__).parents[3] / "docs/streams.md").read_text(encoding="utf-8")


def test_the_code_runs(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(tmp_path / "model.mtl")
    monkeypatch.chdir(tmp_path)
    known = {"camera": list(IMAGES[:3]), "detect": lambda frame: {7: (0, 0, 4, 4), 9: (2, 2, 5, 5)}}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, known)  # the page's own code
    assert capsys.readouterr().out.count("StreamResult(number=") >= 1  # the callback of the last block


def test_the_table_has_every_policy() -> None:
    assert re.findall(r'^\| `"(\w+)"` \|', PAGE, flags=re.MULTILINE) == list(get_args(Drop))


def test_defaults_and_names_are_those_of_the_code() -> None:
    parameters = inspect.signature(Model.stream).parameters
    assert f"results={parameters['results'].default}" in PAGE
    for name in re.findall(r"`(\w+)=", PAGE):
        known = {*parameters, *inspect.signature(Stream.submit).parameters}
        known |= {*inspect.signature(ExponentialSmoother).parameters, *inspect.signature(MajorityVote).parameters}
        assert name in known, name
    for name in re.findall(r"`stream\.(\w+)", PAGE):
        assert hasattr(Stream, name), name
