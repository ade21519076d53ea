"""Modules that ``--model`` names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_deploy.export.network.factory import make_network
from mtl_deploy.runtime.errors import OptionError


def test_a_current_directory_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OptionError, match="current directory no longer exists"):
        make_network("anywhere:network")


def test_modules_of_the_current_directory_are_found_and_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "found_here.py").write_text("import torch\n\ndef network():\n    return torch.nn.Identity()\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    try:
        assert type(make_network("found_here:network")).__name__ == "Identity"
        assert sys.path == before
    finally:
        sys.modules.pop("found_here", None)
