"""The table against the real parser of TensorRT-RTX 1.7, which compiles without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from mtl_deploy.export.targets.linter import check, find_target
from tests.export.targets.forms import (
    FORMS,
    errors,
    one,
)


@pytest.fixture(scope="module")
def parse() -> Callable[[bytes], bool]:
    library = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    if not library.__version__.startswith("1.7."):
        pytest.skip(f"the table is of TensorRT-RTX 1.7, this is {library.__version__}")
    logger = library.Logger(library.Logger.INTERNAL_ERROR)

    def run(content: bytes) -> bool:
        network = library.Builder(logger).create_network(0)
        return bool(library.OnnxParser(network, logger).parse(content))

    return run


def test_tensorrt_rtx_reads_the_operators_of_the_table(parse: Callable[[bytes], bool]) -> None:
    import tensorrt_rtx

    logger = tensorrt_rtx.Logger(tensorrt_rtx.Logger.INTERNAL_ERROR)
    parser = tensorrt_rtx.OnnxParser(tensorrt_rtx.Builder(logger).create_network(0), logger)
    schemas = onnx.defs.get_all_schemas_with_history()
    for kind in sorted({each.name for each in schemas if not each.domain and each.since_version <= 24}):
        found = check(one(kind), find_target("tensorrt-rtx-1.7"), "g.onnx")
        refused = any("does not read the operator" in finding.problem for finding in found)
        assert parser.supports_operator(kind) != refused, kind


def test_tensorrt_rtx_reads_suppression_and_has_no_kernel_for_it() -> None:
    library = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    helper, types = onnx.helper, onnx.TensorProto
    most = helper.make_tensor("most", types.INT64, [1], [5])
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"])],
        "g",
        [
            helper.make_tensor_value_info("boxes", types.FLOAT, [1, 9, 4]),
            helper.make_tensor_value_info("scores", types.FLOAT, [1, 2, 9]),
        ],
        [helper.make_tensor_value_info("kept", types.INT64, [None, 3])],
        [most],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    builder = library.Builder(library.Logger(library.Logger.INTERNAL_ERROR))
    network = builder.create_network(0)
    assert library.OnnxParser(network, builder.logger).parse(content)
    assert builder.build_serialized_network(network, builder.create_builder_config()) is None
    (found,) = check(content, find_target("tensorrt-rtx-1.7"), "g.onnx")
    assert "has no kernel for it" in found.problem
    assert errors(content, "jetpack-6.0") == []


NOT_REFUSED = {  # the parser takes these for something else, and computes other numbers than ONNX's
    "no zero point",  # for int8
    "uint8 zero point",  # for int8
    "lstm layout",  # it passes over the attribute
}


@pytest.mark.parametrize("name", FORMS)
def test_tensorrt_rtx_agrees_on_every_form(name: str, parse: Callable[[bytes], bool]) -> None:
    content, _, _, other = FORMS[name]
    target = "tensorrt-rtx-1.7"
    assert parse(other)
    assert errors(other, target) == []
    if name not in NOT_REFUSED:
        assert parse(content) == (errors(content, target) == [])


def test_tensorrt_rtx_reads_the_bundle(article_bundle: Path, parse: Callable[[bytes], bool]) -> None:
    for name in ("fp32.onnx", "fp16.onnx"):
        assert parse((article_bundle / name).read_bytes())
