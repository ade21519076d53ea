"""Real forks: a child may not use its parent's model, loads one of its own, and ends with its own status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MakeBundle = Callable[..., Path]

PARENT = """
import os, sys, signal
import numpy as np
from mtl_deploy.runtime import MtlError, load

images = np.zeros((8, 8, 3), np.uint8)
model = load(sys.argv[1], threads=2, backend=sys.argv[2])
before = model.predict(images)["age"].value
stream = model.stream()
child = os.fork()
if not child:
{child}
_, status = os.waitpid(child, 0)
print("parent", before == model.predict(images)["age"].value, os.waitstatus_to_exitcode(status), flush=True)
"""


BACKENDS = ["onnxruntime", "openvino"]


def run(bundle: Path, *lines: str, backend: str = "onnxruntime") -> list[str]:
    """Run the lines in a forked child, which then ends as Python does; returns what both printed.

    A child that hangs is ended by its alarm, and the status is -14.
    """
    code = PARENT.replace("{child}", "\n".join(f"    {line}" for line in ("signal.alarm(30)", *lines, "sys.exit(7)")))
    if backend == "openvino":
        pytest.importorskip("openvino")
    command = [sys.executable, "-c", code, str(bundle), backend]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    "call",
    [
        "model.predict(images)",
        "model(images)",
        "model.pinned(1)",
        "model.stream()",
        "stream.submit(images)",
        "stream.result()",
        "stream.join()",
        "list(stream)",
    ],
)
def test_a_forked_child_is_told_instead_of_hanging(make_bundle: MakeBundle, call: str) -> None:
    lines = run(make_bundle(work=2), "try:", f"    {call}", "except MtlError as error:", "    print(error, flush=True)")
    assert "forked from it" in lines[0]
    assert "in the child" in lines[0]
    assert lines[1:] == ["parent True 7"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_child_that_does_nothing_ends_with_its_own_status(make_bundle: MakeBundle, backend: str) -> None:
    assert run(make_bundle(), backend=backend) == ["parent True 7"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_child_may_close_what_it_inherited_and_load_its_own(make_bundle: MakeBundle, backend: str) -> None:
    lines = run(
        make_bundle(work=2),
        "stream.close(); model.close()",
        "with load(sys.argv[1], threads=2, backend=sys.argv[2]) as own:",
        "    print('same', own.predict(images)['age'].value == before, flush=True)",
        "    with own.stream() as others:",
        "        others.submit(images); others.finish()",
        "        print('results', len(list(others)), flush=True)",
        backend=backend,
    )
    assert lines == ["same True", "results 1", "parent True 7"]


def test_a_child_of_a_process_that_closed_its_model_ends_too(make_bundle: MakeBundle) -> None:
    code = """
import os, signal, sys
from mtl_deploy.runtime import load
load(sys.argv[1]).close()
child = os.fork()
if not child:
    signal.alarm(30)
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(make_bundle())], capture_output=True, text=True, timeout=100, check=True
    )
    assert (result.stdout, result.stderr) == ("3\n", "")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing_end_and_use_the_model_or_say_why_not(
    make_bundle: MakeBundle, tmp_path: Path, method: str
) -> None:
    (tmp_path / "pool.py").write_text("""
import multiprocessing, sys
import numpy as np
from mtl_deploy.runtime import MtlError, load

def work(model):
    try:
        return model.predict(np.zeros((8, 8, 3), np.uint8))["age"].value
    except MtlError as error:
        return str(error)

def inherited(_):
    return work(MODEL)

if __name__ == "__main__":
    MODEL = load(sys.argv[1])
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        print(pool.map(work, [MODEL])[0] == work(MODEL))
        if sys.argv[2] == "fork":
            print(pool.map(inherited, [0])[0])
        pool.close()
        pool.join()
""")
    result = subprocess.run(
        [sys.executable, str(tmp_path / "pool.py"), str(make_bundle()), method],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "True"  # passed as an argument, it was pickled
    assert ["forked from it" in line for line in lines[1:]] == [True] * (method == "fork")


def test_what_python_runs_at_exit_still_runs_in_a_child(make_bundle: MakeBundle) -> None:
    lines = run(make_bundle(), "import atexit", "atexit.register(print, 'at exit')", "sys.stdout.write('buffered\\n')")
    assert lines == ["buffered", "at exit", "parent True 7"]


def test_a_child_of_a_child_is_told_too(make_bundle: MakeBundle) -> None:
    lines = run(
        make_bundle(),
        "model = load(sys.argv[1])",
        "second = os.fork()",
        "if second:",
        "    print('second', os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]), flush=True)",
        "else:",
        "    try:",
        "        model.predict(images)",
        "    except MtlError as error:",
        "        print('forked from it' in str(error), flush=True)",
        "    sys.exit(5)",
    )
    assert lines == ["True", "second 5", "parent True 7"]
