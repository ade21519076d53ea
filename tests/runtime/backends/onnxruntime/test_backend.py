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


def concat_between_scales(dtype: int) -> bytes:
    """Return a graph whose Concat lies between INT8 with scales of a type."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = [
        numpy_helper.from_array(np.array(0.05, kind), "s"),
        numpy_helper.from_array(np.array(128, np.uint8), "z"),
    ]
    nodes = [helper.make_node("Cast", ["image"], ["x"], to=dtype)]

    def rounded(source: str, name: str) -> None:
        nodes.append(helper.make_node("QuantizeLinear", [source, "s", "z"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [name]))

    rounded("x", "a")
    rounded("x", "b")
    nodes.append(helper.make_node("Concat", ["a", "b"], ["c"], axis=1))
    rounded("c", "d")
    nodes.append(helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("image", 4), ("y", 8))
    ]
    graph = helper.make_graph(nodes, "concat", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString()


def test_a_graph_that_fusing_makes_invalid_runs_without() -> None:
    import numpy as np
    from onnx import TensorProto

    from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend

    image = np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)
    found = {}
    for kind in (TensorProto.FLOAT16, TensorProto.FLOAT):
        backend = OnnxRuntimeBackend(lambda kind=kind: concat_between_scales(kind), providers=["CPU"])
        assert ("not fused" in backend.details) == (kind == TensorProto.FLOAT16)
        found[kind] = backend.run({"image": image}, ["y"])["y"]
    assert np.abs(found[TensorProto.FLOAT] - np.hstack([image, image])).max() <= 0.026
    assert (
        np.abs(found[TensorProto.FLOAT16] - found[TensorProto.FLOAT]).max() <= 0.051
    )  # a step, where FP16 rounds otherwise
