"""What a shell offers: asked of bash itself, with the scripts that the commands print."""

from __future__ import annotations

import importlib
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest

from mtl_deploy.export.targets.linter import TARGETS
from mtl_deploy.runtime.bundle.kinds.registry import KINDS
from mtl_deploy.runtime.bundle.manifest import PRECISIONS

pytest.importorskip("shtab")
ROOMS = {
    "export": "export",
    "calibrate": "calibration",
    "infer": "runtime",
    "bench": "bench",
    "doctor": "runtime.doctor",
}

ASK = """
complete() {{ :; }}
source {script}
unset -f complete
COMP_LINE={line} COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
compopt() {{ :; }}
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@lru_cache
def script(command: str, shell: str) -> str:
    import contextlib
    import io

    main = importlib.import_module(f"mtl_deploy.{ROOMS[command]}.cli").main
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(["--print-completion", shell])
    return out.getvalue()


@pytest.fixture
def offered(tmp_path: Path) -> Callable[[str], set[str]]:
    """A function that returns what bash offers at the end of a line; the words are split as readline splits them."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")

    def ask(line: str) -> set[str]:
        command = line.split()[0].removeprefix("mtl-")
        file = tmp_path / ".script.bash"
        file.write_text(script(command, "bash"), encoding="utf-8")
        words = line.replace("=", " = ").split() if "'" not in line else line.split()
        if line.endswith((" ", "=")):
            words.append("")
        code = ASK.format(
            script=file, line=shlex.quote(line), words=" ".join(map(shlex.quote, words)), function=f"_mtl_mtl_{command}"
        )
        done = subprocess.run([bash, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return set(done.stdout.split())

    return ask


def test_lists_offer_their_words_one_after_another(offered: Callable[[str], set[str]]) -> None:
    assert offered("mtl-export model.pt --precision ") == {"fp32", "fp16", "int8"}
    assert offered("mtl-export model.pt --precision fp32,") == {"fp32,fp32", "fp32,fp16", "fp32,int8"}
    assert offered("mtl-export model.pt --precision=fp32,i") == {"fp32,int8"}
    assert offered("mtl-export --check-target jetpack-6.0,tensorrt-8") == {
        "jetpack-6.0,tensorrt-8.5",
        "jetpack-6.0,tensorrt-8.6",
    }
    assert offered("mtl-export --check-target ") == set(TARGETS)


def test_kinds_of_tasks_are_offered_behind_a_name(offered: Callable[[str], set[str]]) -> None:
    assert offered("mtl-export model.pt --task age=") == set(KINDS)
    assert offered("mtl-export model.pt --task age=reg") == {"regression"}
    assert offered("mtl-export model.pt --task 'age=reg") == {"age=regression"}  # in quotes readline cuts no word
    assert offered("mtl-export model.pt --task ag") == set()


@pytest.mark.parametrize("command", ["infer", "bench"])
def test_precisions_backends_and_providers_are_offered(command: str, offered: Callable[[str], set[str]]) -> None:
    assert offered(f"mtl-{command} model.mtl --precision ") == set(PRECISIONS)
    assert {"tensorrt", "onnxruntime"} <= offered(f"mtl-{command} model.mtl --backend ")
    assert offered(f"mtl-{command} model.mtl --provider C") == {"CPU", "CUDA", "CoreML"}


def test_subcommands_are_offered_beside_files_and_have_options_of_their_own(
    offered: Callable[[str], set[str]], tmp_path: Path
) -> None:
    (tmp_path / "camera.mtl").mkdir()
    (tmp_path / "result.json").touch()
    assert offered("mtl-bench co") == {"compare"}
    assert offered("mtl-calibrate c") == {"compare", "camera.mtl"}
    assert offered("mtl-bench re") == {"report", "result.json"}
    assert "--fail-above" in offered("mtl-bench compare --f")
    assert offered("mtl-calibrate compare a.mtl b.mtl --precision fp32,int8-") == {"fp32,int8-cpu"}


def test_choices_and_options_are_offered_as_before(offered: Callable[[str], set[str]], tmp_path: Path) -> None:
    assert offered("mtl-export --engine tensorrt-") == {"tensorrt-rtx"}
    assert "--calibration-data" in offered("mtl-export --cal")
    (tmp_path / "labels.csv").touch()
    assert offered("mtl-calibrate model.mtl --labels lab") == {"labels.csv"}
    assert "--run" in offered("mtl-doctor --")


@pytest.mark.parametrize("command", sorted(ROOMS))
def test_scripts_for_other_shells_hold_the_same_words(command: str) -> None:
    zsh, tcsh = script(command, "zsh"), script(command, "tcsh")
    assert f"#compdef mtl-{command}" in zsh
    assert f"complete mtl-{command}" in tcsh
    if command == "export":
        assert "_values -s , word fp32 fp16 int8" in zsh
        assert "compset -P \\*=; compadd - regression binary" in zsh
        assert "n/--check-target/(jetpack-5.1 " in tcsh
    if command == "bench":
        assert "commands' _commands\n  _files\n" in zsh  # the first operand is a subcommand or a file
