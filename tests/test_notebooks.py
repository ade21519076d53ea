"""The notebook page's cells, run one after the other as a notebook runs them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "notebooks.md"
_COMMAND = "import sys; from mtl_deploy.{room}.cli import main; sys.exit(main(sys.argv[1:]))"


def cells() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


class Notebook:
    """Runs cells as Jupyter does: ``%%writefile`` writes, ``!`` starts a command, all other cells share one namespace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, object] = {"__name__": "__main__"}

    def run(self, cell: str) -> str:
        """Run one cell; return what a command printed."""
        first, _, rest = cell.partition("\n")
        if first.startswith("%%writefile "):
            (self._folder / first.split()[1]).write_text(rest, encoding="utf-8")
        elif first.startswith("!"):
            command, *arguments = shlex.split(first[1:])
            code = _COMMAND.format(room=command.removeprefix("mtl-"))
            if command == "mtl-export":
                arguments += ["--engine", "none"]  # which takes minutes where TensorRT is installed
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments], cwd=self._folder, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            return done.stdout
        else:
            exec(compile(cell, "cell", "exec"), self._names)
        return ""


@pytest.mark.slow
def test_every_cell_runs_and_both_ways_give_the_same_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "network", raising=False)  # an example has a module of this name too
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 60, 3), dtype=np.uint8)).save("face.jpg")
    notebook = Notebook(tmp_path)
    for cell in cells():
        notebook.run(cell)
    printed = capsys.readouterr().out
    assert re.search(r"'age': Prediction\(.*'smiling': Prediction\(", printed)

    from mtl_deploy.runtime import load

    with load("faces.mtl") as one, load("from_program.mtl") as other:
        first, second = (model.predict("face.jpg") for model in (one, other))
    assert first["age"].value == pytest.approx(second["age"].value, abs=1e-3)  # type: ignore[arg-type]
    np.testing.assert_allclose(first["smiling"].probabilities, second["smiling"].probabilities, atol=1e-4)
    del sys.modules["network"]


def test_a_class_of_a_notebook_is_pointed_to_a_module() -> None:
    from mtl_deploy.export.network.factory import make_network
    from mtl_deploy.runtime.errors import OptionError

    with pytest.raises(OptionError, match="module file"):
        make_network("__main__:Faces")


@pytest.mark.parametrize(
    ("written", "reference", "message"),
    [
        ("", "elsewhere:make", "there is no module 'elsewhere'"),
        ("def make(width): ...", "cells:make", "make(), called without arguments, failed"),
        ("def other(): ...", "cells:make", "cells has no 'make'"),
        ("class Net(nn.Module): ...", "cells:make", "name 'nn' is not defined"),
    ],
)
def test_what_goes_wrong_is_said_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, reference: str, message: str
) -> None:
    from mtl_deploy.export.network.factory import make_network
    from mtl_deploy.runtime.errors import OptionError

    (tmp_path / "cells.py").write_text(written)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OptionError, match=re.escape(message)):
        make_network(reference)
    sys.modules.pop("cells", None)


def test_the_page_is_linked_and_names_the_files_that_its_cells_write() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert "](docs/notebooks.md)" in readme
    written = {cell.split()[1] for cell in cells() if cell.startswith("%%writefile")}
    assert written == {"network.py", "tasks.toml"}
    commands = [cell for cell in cells() if cell.startswith("!")]
    assert len(commands) == 2
    assert all("tasks.toml" in command for command in commands)
