from __future__ import annotations

from pathlib import Path

import pytest

from mtl_deploy.bench.contestants.pair import find_pair
from mtl_deploy.bench.options import options_parser
from mtl_deploy.bench.sections.scaling.heads_section import HeadsSection
from mtl_deploy.bench.sections.scaling.synthetic import make_heads
from mtl_deploy.runtime.errors import BackendError, OptionError
from tests.conftest import MakeBundle


def parse_heads(text: str) -> tuple[int, ...]:
    return HeadsSection().settings(options_parser().parse_args(["--heads", text])).counts


def test_numbers_of_heads_are_read() -> None:
    assert parse_heads("8,1,2,2, 4") == (1, 2, 4, 8)


@pytest.mark.parametrize("text", ["", "two", "0,1", "1,9", "1;2"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"--heads .*use"):
        parse_heads(text)


def test_each_bundle_has_its_number_of_heads_and_can_be_measured(make_bundle: MakeBundle, tmp_path: Path) -> None:
    made = make_heads(make_bundle(work=2), (1, 3), "fp32", tmp_path)
    assert list(made) == [1, 3]
    for count, path in made.items():
        pair = find_pair(path, None, ("CPU",))
        assert pair.shared.tasks == tuple(f"head{number + 1}" for number in range(count))
        assert len(pair.separate) == count


def test_a_precision_that_is_not_there_is_told(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"a network of 2 heads was not made: .*no shared int8 graph"):
        make_heads(make_bundle(), (2,), "int8", tmp_path)


def test_without_onnx_the_remedy_is_told(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'onnx' else found(name, package)\n",
        encoding="ascii",
    )
    monkeypatch.setenv("PYTHONPATH", str(blocked))
    with pytest.raises(
        BackendError, match=r"need onnx, which is not installed: pip install 'mtl-deploy\[calibration\]'"
    ):
        make_heads(make_bundle(), (1,), "fp32", tmp_path)
