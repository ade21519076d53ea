from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.export.targets.linter import TARGETS, Finding, check, find_target
from mtl_deploy.export.targets.operators import CHANGED_IN, READ_SINCE
from mtl_deploy.runtime.errors import BundleError, OptionError

DOCS = Path(__file__).parents[3] / "docs" / "targets.md"
FLOAT, HALF, UINT8, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64
Value = tuple[str, int, list[int]]
node = helper.make_node


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[Value],
    outputs: list[Value],
    opset: int = 17,
    constants: dict[str, Any] | None = None,
    values: list[Value] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
        value_info=[helper.make_tensor_value_info(*one) for one in values or []],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("me", 1), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def one(
    kind: str, shape: list[int] | None = None, opset: int = 17, constants: dict[str, Any] | None = None, **more: Any
) -> bytes:
    """A graph of one node, whose inputs are x and the constants."""
    shape = shape or [1, 3, 8, 8]
    extra = {name: more.pop(name) for name in ("outputs", "inputs", "domain") if name in more}
    made = extra.get("outputs", ["y"])
    names = extra.get("inputs", ["x", *(constants or {})])
    inner = node(kind, names, made, name="n", domain=extra.get("domain", ""), **more)
    return model([inner], [("x", FLOAT, shape)], [(name, FLOAT, shape) for name in made], opset, constants)


def errors(content: bytes, target: str) -> list[Finding]:
    return [finding for finding in check(content, find_target(target), "g.onnx") if finding.level == "error"]


def quantized(kind: Any, zero_point: int | None = 0, half: bool = False) -> bytes:
    constants = {"s": np.float16(0.1) if half else np.float32(0.1)} | (
        {} if zero_point is None else {"z": kind(zero_point)}
    )
    names = ["s"] if zero_point is None else ["s", "z"]
    nodes = [
        node("QuantizeLinear", ["x", *names], ["q"], name="n"),
        node("DequantizeLinear", ["q", *names], ["y"], name="m"),
    ]
    data = HALF if half else FLOAT
    return model(nodes, [("x", data, [1, 3])], [("y", data, [1, 3])], 19 if half else 17, constants)


# --- the table


def test_the_docs_have_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|([^|]*)\|$", DOCS.read_text(), re.M)
    titles = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
    assert [tuple(cell.strip() for cell in row) for row in rows] == [
        (one.name, titles[one.library], one.version, str(one.opset), one.gpu) for one in TARGETS.values()
    ]


def test_the_docs_name_every_operator_that_came_later() -> None:
    later: dict[str, set[str]] = {}
    for name, since in READ_SINCE.items():
        if since > (8, 5):
            later.setdefault("{}.{}".format(*since), set()).add(name)
    rows = re.findall(r"^\| (\d+\.\d+) \| ((?:`\w+`(?:, )?)+) \|$", DOCS.read_text(), re.M)
    assert {version: set(re.findall(r"`(\w+)`", names)) for version, names in rows} == later


def test_the_changes_of_each_opset_are_those_of_onnx() -> None:
    schemas = onnx.defs.get_all_schemas_with_history()
    for opset, names in CHANGED_IN.items():
        assert names == {one.name for one in schemas if not one.domain and one.since_version == opset}


def test_a_target_is_found_or_the_names_are_listed() -> None:
    assert find_target("jetpack-6.0").title == "TensorRT 8.6.2"
    with pytest.raises(
        OptionError, match=r"no target is called 'jetpak-6\.2'; did you mean jetpack-6\.2\?.*tensorrt-10\.3"
    ):
        find_target("jetpak-6.2")
    with pytest.raises(OptionError, match="no target is called 'raspberry'; the targets are jetpack-5"):
        find_target("raspberry")


def test_neither_onnx_nor_tensorrt_is_imported() -> None:
    code = (
        "import sys; import mtl_deploy.export.targets.linter as t;"
        "t.check(sys.stdin.buffer.read(), t.find_target('jetpack-6.0'), 'g');"
        "print([m for m in ('onnx', 'onnx_ir', 'torch', 'onnxruntime', 'tensorrt', 'tensorrt_rtx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=one("Relu"), capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


# --- real graphs


def test_a_bundle_of_opset_17_is_read_by_every_target(article_bundle: Path) -> None:
    for path in sorted(article_bundle.rglob("*.onnx")):
        for target in TARGETS.values():
            assert check(path.read_bytes(), target, path.name) == []


def test_a_finding_is_one_line_that_says_what_to_do() -> None:
    (finding,) = check(one("Col2Im", opset=17), find_target("jetpack-6.0"), "fp32.onnx")
    text = str(finding)
    assert text.startswith(
        "jetpack-6.0: fp32.onnx: node 'n' (Col2Im): TensorRT 8.6.2 does not read the operator; write it"
    )
    assert "\n" not in text


def test_what_is_no_onnx_file_is_an_error() -> None:
    with pytest.raises(BundleError):
        check(b"nothing", find_target("jetpack-6.0"), "g.onnx")


# --- opset and operators


def test_an_opset_that_is_too_high_names_the_node_that_needs_it() -> None:
    nodes = [node("Relu", ["x"], ["r"], name="a"), node("ReduceMean", ["r", "axes"], ["y"], name="b")]
    content = model(nodes, [("x", FLOAT, [2, 3])], [("y", FLOAT, [2, 1])], 18, {"axes": np.int64([1])})
    (finding,) = errors(content, "jetpack-6.0")
    assert finding.subject == "opset 18"
    assert finding.problem.endswith(
        "to read opset 17 at most, and node 'b' (ReduceMean) has a definition of opset 18 or later"
    )
    assert finding.remedy == "export again with --opset 17"
    assert errors(content, "jetpack-6.1") == []


def test_an_opset_that_only_the_number_raises_is_found_too() -> None:
    (finding,) = errors(one("Relu", opset=21), "jetpack-6.2")
    assert finding.problem == "TensorRT 10.3 is documented to read opset 20 at most"


@pytest.mark.parametrize(
    ("kind", "before", "since"),
    [
        ("LayerNormalization", "tensorrt-8.5", "tensorrt-8.6"),
        ("Gelu", "tensorrt-8.6", "tensorrt-10.0"),
        ("DeformConv", "tensorrt-10.0", "tensorrt-10.1"),
        ("HannWindow", "tensorrt-10.3", "tensorrt-10.4"),
        ("STFT", "tensorrt-10.4", "tensorrt-10.5"),
        ("Attention", "tensorrt-10.13", "tensorrt-10.14"),
        ("RMSNormalization", "tensorrt-10.14", "tensorrt-10.15"),
        ("Swish", "tensorrt-10.16", "tensorrt-11.0"),
        ("DFT", "tensorrt-11.1", "tensorrt-11.2"),
    ],
)
def test_an_operator_is_read_from_its_version_on(kind: str, before: str, since: str) -> None:
    (finding,) = errors(one(kind), before)
    assert f"does not read the operator; TensorRT {since.removeprefix('tensorrt-')} is the first" in finding.problem
    assert errors(one(kind), since) == []


def test_an_operator_inside_a_branch_is_found() -> None:
    def branch(kind: str) -> onnx.GraphProto:
        return helper.make_graph(
            [node(kind, ["x"], ["t"], name=kind)], kind, [], [helper.make_tensor_value_info("t", 1, None)]
        )

    nodes = [node("If", ["flag"], ["y"], then_branch=branch("Unique"), else_branch=branch("Relu"))]
    content = model(nodes, [("x", FLOAT, [2]), ("flag", TensorProto.BOOL, [])], [("y", FLOAT, [2])])
    assert [finding.subject for finding in errors(content, "tensorrt-11.1")] == ["node 'Unique' (Unique)"]


def test_other_domains_need_a_plugin_or_are_taken_for_onnx_own() -> None:
    (finding,) = errors(one("Mine", domain="me"), "tensorrt-10.3")
    assert "domain me" in finding.problem
    assert "plugin" in finding.remedy
    (note,) = check(one("Gelu", domain="com.microsoft"), find_target("tensorrt-10.3"), "g.onnx")
    assert note.level == "note"
    assert "looks only at the name" in note.problem
    assert "note: node 'n' (Gelu)" in str(note)
    assert len(errors(one("Gelu", domain="com.microsoft"), "jetpack-6.0")) == 1


def test_local_functions_are_read_from_9_on_and_looked_into() -> None:
    def content(kind: str) -> bytes:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("me", 1)]
        function = helper.make_function(
            "me", "Mine", ["a"], ["b"], [node(kind, ["a"], ["b"], name="inner")], opsets[:1]
        )
        graph = onnx.load_from_string(one("Mine", domain="me")).graph
        return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8).SerializeToString()

    assert errors(content("Relu"), "tensorrt-10.0") == []
    assert [finding.subject for finding in errors(content("Unique"), "tensorrt-10.0")] == ["node 'inner' (Unique)"]
    assert [finding.subject for finding in errors(content("Relu"), "tensorrt-8.6")] == ["function me.Mine"]


# --- forms of an operator: (graph, a target that does not read it, one that does, the same operator in a form that is read)

AXES = {"a": np.int64([1])}
SCALES = {"roi": np.float32([]), "scales": np.float32([1, 1, 2, 2])}
computed = [("x", FLOAT, [2, 9]), ("a", INT64, [1])]


def with_computed_input(kind: str, between: dict[str, Any], opset: int = 18, outputs: str = "y") -> bytes:
    """A node whose last input is an input of the network; the ones between are constants."""
    inner = node(kind, ["x", *between, "a"], [*outputs], name="n")
    return model([inner], computed, [(name, FLOAT, [2, 9]) for name in outputs], opset, between)


def bytes_first(*kinds: str) -> bytes:
    """A Cast and a Transpose behind a uint8 input, in that order or the other."""
    names = ["x", "t", "y"]
    nodes = [
        node(kind, [names[i]], [names[i + 1]], **({"to": FLOAT} if kind == "Cast" else {}))
        for i, kind in enumerate(kinds)
    ]
    return model(nodes, [("x", UINT8, [1, 3])], [("y", FLOAT, [3, 1])])


def through(kind: int) -> bytes:
    """A tensor that is cast to a type and back."""
    nodes = [node("Cast", ["x"], ["t"], to=kind), node("Cast", ["t"], ["y"], to=FLOAT)]
    return model(nodes, [("x", FLOAT, [3])], [("y", FLOAT, [3])])


def with_constant(**attribute: Any) -> bytes:
    nodes = [node("Constant", [], ["c"], **attribute), node("Relu", ["x"], ["y"])]
    return model(nodes, [("x", FLOAT, [2])], [("y", FLOAT, [2])])


def lstm(**attributes: Any) -> bytes:
    weights = {"w": np.ones((1, 16, 8), np.float32), "r": np.ones((1, 16, 4), np.float32)}
    return one("LSTM", [1, 3, 8], constants=weights, hidden_size=4, **attributes)


def instance_norm() -> bytes:
    inner = node("InstanceNormalization", ["x", "s", "s"], ["y"])
    return model([inner], [("x", FLOAT, [1, 3, 8]), ("s", FLOAT, [3])], [("y", FLOAT, [1, 3, 8])])


POOL = {"kernel_shape": [2, 2]}
FORMS: dict[str, tuple[bytes, str, str | None, bytes]] = {
    "int8 zero point": (quantized(np.int8, 3), "tensorrt-11.1", None, quantized(np.int8)),
    "uint8 zero point": (quantized(np.uint8, 0), "tensorrt-10.3", None, quantized(np.int8)),
    "shifted uint8": (quantized(np.uint8, 128), "jetpack-6.0", None, quantized(np.int8)),
    "no zero point": (quantized(np.int8, None), "jetpack-6.0", None, quantized(np.int8)),
    "half scale": (quantized(np.int8, half=True), "jetpack-6.0", "tensorrt-10.0", quantized(np.int8)),
    "pool indices": (one("MaxPool", **POOL, outputs=["y", "i"]), "tensorrt-11.1", None, one("MaxPool", **POOL)),
    "pool dilation": (
        one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
        "tensorrt-8.5",
        None,
        one("MaxPool", kernel_shape=[2, 2], dilations=[1, 1]),
    ),
    "norm mean": (
        one("LayerNormalization", constants={"s": np.ones(8, np.float32)}, outputs=["y", "m"]),
        "tensorrt-10.3",
        None,
        one("LayerNormalization", constants={"s": np.ones(8, np.float32)}),
    ),
    "batch norm training": (
        one("BatchNormalization", constants={n: np.ones(3, np.float32) for n in "abcd"}, training_mode=1),
        "tensorrt-10.3",
        None,
        one("BatchNormalization", constants={n: np.ones(3, np.float32) for n in "abcd"}),
    ),
    "dropout training": (
        one("Dropout", constants={"r": np.float32(0.5), "t": np.bool_(True)}),
        "tensorrt-10.3",
        None,
        one("Dropout", constants={"r": np.float32(0.5), "t": np.bool_(False)}),
    ),
    "computed scales of some axes": (
        model(
            [node("Resize", ["x", "", "s"], ["y"], mode="linear", axes=[2, 3])],
            [("x", FLOAT, [1, 3, 8, 8]), ("s", FLOAT, [2])],
            [("y", FLOAT, [1, 3, "h", "w"])],
            18,
        ),
        "tensorrt-11.1",
        None,
        one("Resize", opset=18, constants=SCALES, mode="linear"),
    ),
    "l3 norm": (one("LpNormalization", p=3), "tensorrt-10.3", None, one("LpNormalization", p=1)),
    "antialias": (
        one("Resize", opset=18, constants=SCALES, mode="linear", antialias=1),
        "tensorrt-11.1",
        None,
        one("Resize", opset=18, constants=SCALES, mode="linear", antialias=0),
    ),
    "aspect ratio": (
        one("Resize", opset=18, constants=SCALES, keep_aspect_ratio_policy="not_larger"),
        "tensorrt-11.1",
        None,
        one("Resize", opset=18, constants=SCALES),
    ),
    "crop and resize": (
        one("Resize", constants=SCALES, mode="linear", coordinate_transformation_mode="tf_crop_and_resize"),
        "jetpack-6.0",
        None,
        one("Resize", constants=SCALES, mode="cubic", coordinate_transformation_mode="pytorch_half_pixel"),
    ),
    "volume": (
        one("GridSample", [1, 3, 4, 4, 4], 20, {"g": np.zeros((1, 2, 2, 2, 3), np.float32)}),
        "tensorrt-11.1",
        "tensorrt-11.2",
        one("GridSample", [1, 3, 4, 4], 20, {"g": np.zeros((1, 2, 2, 2), np.float32)}),
    ),
    "scatter and add": (
        one("ScatterND", [4], 18, {"i": np.int64([[0]]), "u": np.float32([1])}, reduction="add"),
        "tensorrt-11.1",
        None,
        one("ScatterND", [4], 18, {"i": np.int64([[0]]), "u": np.float32([1])}),
    ),
    "ellipsis": (
        one("Einsum", [2, 3, 4], constants={"b": np.ones((2, 4, 3), np.float32)}, equation="...ij,...jk->...ik"),
        "jetpack-6.2",
        "tensorrt-10.12",
        one("Einsum", [2, 3, 4], constants={"b": np.ones((2, 4, 3), np.float32)}, equation="bij,bjk->bik"),
    ),
    "diagonal": (one("Einsum", [3, 3], equation="ii->i"), "jetpack-6.2", "tensorrt-10.12", one("Einsum", [3, 3], equation="ij->i")),
    "integer power": (
        model([node("Pow", ["x", "e"], ["y"])], [("x", INT64, [2])], [("y", INT64, [2])], 17, {"e": np.int64(2)}),
        "jetpack-6.2",
        "tensorrt-10.12",
        one("Pow", constants={"e": np.float32(2)}),
    ),
    "string": (with_constant(value_string="a"), "tensorrt-10.3", None, with_constant(value_float=1.0)),
    "reduced axes": (with_computed_input("ReduceMean", {}), "tensorrt-11.1", None, one("ReduceMean", [2, 9], 18, AXES)),
    "squeezed axes": (with_computed_input("Squeeze", {}, 17), "tensorrt-11.1", None, one("Squeeze", [2, 1], 17, AXES)),
    "summed axis": (
        with_computed_input("CumSum", {}, 17),
        "jetpack-6.2",
        "tensorrt-10.8",
        one("CumSum", [2, 9], 17, {"a": np.int64(1)}),
    ),
    "padded axes": (
        with_computed_input("Pad", {"p": np.int64([0, 1]), "v": np.float32(0)}),
        "jetpack-6.2",
        "tensorrt-10.4",
        one("Pad", [2, 9], 18, {"p": np.int64([0, 1]), "v": np.float32(0), **AXES}),
    ),
    "sliced axes": (
        with_computed_input("Slice", {"s": np.int64([0]), "e": np.int64([2**63 - 1])}, 17),
        "jetpack-6.0",
        "jetpack-6.1",
        one("Slice", [2, 9], 17, {"s": np.int64([0]), "e": np.int64([2**63 - 1]), **AXES}),
    ),
    "top k": (
        with_computed_input("TopK", {}, 17, "yi"),
        "jetpack-5.1",
        "jetpack-6.0",
        one("TopK", [2, 9], 17, {"k": np.int64([3])}, outputs=["y", "i"]),
    ),
    "group norm of opset 21": (
        one("GroupNormalization", opset=21, constants={"s": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, num_groups=3),
        "tensorrt-10.8",
        "tensorrt-10.14",
        one("GroupNormalization", opset=18, constants={"s": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, num_groups=3),
    ),
    "instance norm": (
        instance_norm(),
        "jetpack-5.1",
        "jetpack-6.0",
        one("InstanceNormalization", constants={"s": np.ones(3, np.float32), "b": np.ones(3, np.float32)}),
    ),
    "lstm layout": (lstm(layout=1), "tensorrt-10.3", None, lstm()),
    "coupled lstm": (lstm(input_forget=1), "tensorrt-10.3", None, lstm()),
    "bytes inside": (bytes_first("Transpose", "Cast"), "jetpack-6.0", None, bytes_first("Cast", "Transpose")),
    "bytes between": (through(UINT8), "tensorrt-11.1", None, through(TensorProto.INT32)),
    "bytes made": (
        model([node("Transpose", ["x"], ["y"])], [("x", UINT8, [3])], [("y", UINT8, [3])]),
        "tensorrt-11.1",
        None,
        model([node("Cast", ["x"], ["y"], to=UINT8)], [("x", FLOAT, [3])], [("y", UINT8, [3])]),
    ),
    "bfloat16": (
        model([node("Relu", ["x"], ["y"])], [("x", TensorProto.BFLOAT16, [3])], [("y", TensorProto.BFLOAT16, [3])]),
        "jetpack-6.0",
        "jetpack-6.1",
        model([node("Relu", ["x"], ["y"])], [("x", HALF, [3])], [("y", HALF, [3])]),
    ),
    "int16": (through(TensorProto.INT16), "tensorrt-11.1", None, through(HALF)),
    "wide integers": (
        model([node("Mul", ["x", "c"], ["y"])], [("x", INT64, [1])], [("y", INT64, [1])], 17, {"c": np.int64([2**40])}),
        "jetpack-6.0",
        "jetpack-6.1",
        model([node("Mul", ["x", "c"], ["y"])], [("x", INT64, [1])], [("y", INT64, [1])], 17, {"c": np.int64([2**30])}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_found_where_it_is_not_read_and_nowhere_else(name: str) -> None:
    content, refuses, reads, other = FORMS[name]
    found = [finding for finding in errors(content, refuses) if not finding.subject.startswith("opset")]
    assert found, "it is not found"
    assert len({finding.problem for finding in found}) <= 2
    assert [one for one in errors(other, refuses) if not one.subject.startswith("opset")] == []
    if reads:
        assert errors(content, reads) == []
    else:
        assert [one for one in errors(content, "tensorrt-11.5") if not one.subject.startswith("opset")]


def test_a_constant_node_is_a_constant() -> None:
    constant = node("Constant", [], ["a"], value=numpy_helper.from_array(np.int64([1])))
    content = model([constant, node("Squeeze", ["x", "a"], ["y"])], [("x", FLOAT, [2, 1])], [("y", FLOAT, [2])])
    assert errors(content, "jetpack-6.0") == []


def test_asymmetric_quantization_points_to_the_other_file() -> None:
    for finding in errors(quantized(np.uint8, 128), "jetpack-6.1"):
        assert "int8.onnx" in finding.remedy


def test_what_is_read_otherwise_is_a_note() -> None:
    double = model([node("Relu", ["x"], ["y"])], [("x", TensorProto.DOUBLE, [3])], [("y", TensorProto.DOUBLE, [3])])
    (note,) = check(double, find_target("tensorrt-10.3"), "g.onnx")
    assert (note.level, note.subject) == ("note", "tensor 'x' (float64) and 1 more")
    narrow = FORMS["wide integers"][3]
    assert [one.level for one in check(narrow, find_target("jetpack-6.0"), "g.onnx")] == ["note", "note"]
    assert check(narrow, find_target("jetpack-6.1"), "g.onnx") == []


# --- the real parser of TensorRT-RTX 1.7, which compiles without a GPU


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
    for kind in sorted({one.name for one in schemas if not one.domain and one.since_version <= 24}):
        found = check(one(kind), find_target("tensorrt-rtx-1.7"), "g.onnx")
        refused = any("does not read the operator" in finding.problem for finding in found)
        assert parser.supports_operator(kind) != refused, kind


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
