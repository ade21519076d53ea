from __future__ import annotations

from contextlib import closing

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mtl_deploy.calibration.graph.frugal import FrugalBackend
from mtl_deploy.calibration.observe.session import ObservingSession
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.runtime.errors import BundleError, OptionError, RunError


def graph(operator: str = "Relu") -> onnx.ModelProto:
    names = ["image", "inner", "other"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in names]
    nodes = [helper.make_node("Neg", ["image"], ["inner"]), helper.make_node(operator, ["inner"], ["other"])]
    made = helper.make_graph(nodes, "observed", values[:1], values[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("options", [{}, {"in_order": True}])
def test_it_gives_the_outputs_that_were_asked_for(options: dict[str, bool]) -> None:
    batch = np.arange(8, dtype=np.float32).reshape(2, 4)
    with closing(ObservingSession(graph(), ["inner"], threads=1, **options)) as session:
        found = session.run({"image": batch}, ["inner"])
    assert list(found) == ["inner"]
    assert not session._options().enable_cpu_mem_arena  # or it would hold the largest batch twice
    np.testing.assert_array_equal(found["inner"], -batch)


def test_a_graph_run_beside_others_keeps_no_memory_and_names_itself() -> None:
    content = graph().SerializeToString()
    with closing(FrugalBackend(content, threads=1)) as backend:
        assert not backend._options().enable_cpu_mem_arena
        found = backend.run({"image": np.ones((1, 4), np.float32)}, ["inner", "other"])
    np.testing.assert_array_equal(found["other"], np.zeros((1, 4)))
    with pytest.raises(BundleError, match="the first graph: ONNX Runtime"):
        FrugalBackend(graph("NoSuchOperator").SerializeToString(), threads=1, where="the first graph")


def test_what_goes_wrong_in_onnx_runtime_is_an_error_of_ours() -> None:
    with pytest.raises(BundleError, match=r"the observed graph: ONNX Runtime .* cannot load it \(.*NoSuchOperator"):
        ObservingSession(graph("NoSuchOperator"), ["other"], threads=1)
    with pytest.raises(OptionError, match="threads=0"):
        ObservingSession(graph(), ["other"], threads=0)
    with pytest.raises(RunError, match="ONNX Runtime failed"):
        observe(graph(), [np.zeros((2, 5), np.float32)], threads=1)
