"""What each target reads, by the table: opset, operators, their forms, and types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.export.targets.linter import TARGETS, check, find_target
from mtl_deploy.export.targets.operators import CHANGED_IN, READ_SINCE
from mtl_deploy.runtime.errors import BundleError, OptionError
from tests.export.targets.forms import (
    FLOAT,
    FORMS,
    errors,
    model,
    node,
    one,
    quantized,
)

DOCS = Path(__file__).parents[3] / "docs" / "targets.md"


# --- the table


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
        "jetpack-6.0: fp32.onnx: node 'n' (Col2Im): TensorRT 8.6.2 does not read the operator; express it"
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
