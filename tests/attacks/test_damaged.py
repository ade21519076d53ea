"""A hundredth of the attack on readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.damaged import MUST_BE_ZERO, run


@pytest.mark.slow
def test_damaged_files_are_refused_and_nothing_more(tmp_path: Path) -> None:
    figures = run(0.01, 7, tmp_path)
    assert {name: figures[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0), (
        tmp_path / "findings.json"
    ).read_text()
    assert figures["cases"] >= 100
