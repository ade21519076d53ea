"""What importing costs: the edge device pays for numpy and nothing else, and `--help` answers at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "torchvision",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "tensorrt",
    "openvino",
    "PIL",
    "matplotlib",
    "scipy",
}


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after running the code."""
    script = f"{code}\nimport sys; print('\\n'.join({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("room", ["runtime", "bench", "calibration", "export"])
def test_importing_a_room_loads_nothing_heavy(room: str) -> None:
    assert modules_after(f"import mtl_deploy.{room}") & HEAVY == set()


@pytest.mark.parametrize("command", ["export", "calibration", "runtime", "bench", "runtime.doctor"])
def test_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    code = f"""
import contextlib, io
from mtl_deploy.{command}.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main(["--help"])
assert "examples:" in out.getvalue().lower()
"""
    assert modules_after(code) & HEAVY == set()


def test_the_doctor_loads_nothing_heavy() -> None:
    """A library that ends its process must not end the report: TensorRT 8.6 does so where there is no driver."""
    code = """
import contextlib, io
from mtl_deploy.runtime.doctor.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert main([]) == 0
assert "driver" in out.getvalue()
"""
    assert modules_after(code) & HEAVY == set()


def test_what_runs_before_pytorch_is_started_loads_nothing_heavy() -> None:
    """The order of an export, engines for a bundle on a device, and a network in a contestant's own process."""
    modules = [
        "pipeline",
        "report",
        "engines.stage",
        "network.task_file",
        "baselines.pytorch",
        "baselines.synthetic_heads",
    ]
    assert modules_after(f"import {', '.join(f'mtl_deploy.export.{module}' for module in modules)}") & HEAVY == set()


def test_the_runtime_loads_only_numpy_beside_the_standard_library() -> None:
    loaded = modules_after("import mtl_deploy.runtime") - modules_after("pass") - set(sys.stdlib_module_names)
    assert {name for name in loaded if not name.startswith("_")} <= {"mtl_deploy", "numpy"}
