"""How a missing, broken or doubled ONNX Runtime shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

START = "from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend as B\nB(lambda: b'')"


def run(code: str, *paths: Path) -> str:
    """Return what a fresh interpreter prints as its last error, with folders in front of its path."""
    head = "".join(f"import sys; sys.path.insert(0, {str(path)!r})\n" for path in paths)
    result = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    return result.stderr


def distribution(folder: Path, name: str) -> None:
    """Write what pip leaves of an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_two_distributions_are_noticed_with_what_to_remove(tmp_path: Path) -> None:
    distribution(tmp_path, "onnxruntime")
    distribution(tmp_path, "onnxruntime-gpu")
    assert "RuntimeWarning: onnxruntime and onnxruntime-gpu are both installed" in run(START, tmp_path)
    assert "pip uninstall --yes onnxruntime onnxruntime-gpu" in run(START, tmp_path)


def test_a_gutted_package_is_told_from_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    assert "BackendError: ONNX Runtime is installed but broken" in run(START, tmp_path)


def test_without_onnxruntime_the_error_says_what_to_install() -> None:
    code = """
import sys, importlib.metadata
sys.modules["onnxruntime"] = None
def version(name): raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
"""
    assert "BackendError: ONNX Runtime is not installed: pip install 'mtl-deploy[runtime]'" in run(code + START)


def test_a_provider_that_does_not_start_is_an_error_and_not_a_silent_fall_back() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        expected = "'CUDA' is not available"
    elif Path("/dev/nvidia0").exists():
        return  # it starts
    else:
        expected = "provider CUDAExecutionProvider did not start here: no CUDA d"
    code = """
import numpy as np
from onnx import TensorProto, helper
value = helper.make_tensor_value_info
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g",
    [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
OnnxRuntimeBackend(lambda: content, providers=["CUDA"])
"""
    assert expected in run(code)
