"""Measuring real graphs on the real libraries. No test looks at a time: only at what is measured, and what is found wrong."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from measured_bundles import int8_bundle
from onnx import numpy_helper

from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.errors import BackendError, BundleError, IntegrityError
from mtl_deploy.runtime.measured import measure as measuring
from mtl_deploy.runtime.measured.choice import where_int8_does_not_pay
from mtl_deploy.runtime.measured.here import libraries, processor
from mtl_deploy.runtime.measured.measure import measure
from mtl_deploy.runtime.measured.ratio import ratio
from mtl_deploy.runtime.measured.record import Run, packed, read
from mtl_deploy.runtime.measured.text import text

MakeBundle = Callable[..., Path]


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SECONDS", 0.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return int8_bundle(tmp_path / "model.mtl")


def change_graph(bundle: Path, path: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph, and what the manifest says about the file."""
    model = onnx.load(bundle / path)
    change(model)
    content = model.SerializeToString()
    (bundle / path).write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text())
    for artifact in manifest["artifacts"]:
        if artifact["path"] == path:
            artifact |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def faults(run: Run) -> dict[str, str | None]:
    return {str(one): one.fault for one in run.candidates}


def test_every_graph_runs_on_every_backend_in_the_same_rounds(bundle: Path) -> None:
    run = measure(open_bundle(bundle), threads=1)
    graphs = {a.path: a for a in open_bundle(bundle).manifest.artifacts if a.precision != "fp16"}
    assert [(one.path, one.backend) for one in run.candidates] == [
        (path, backend) for path in ("fp32.onnx", "int8-cpu.onnx", "int8.onnx") for backend in libraries()
    ]
    for one in run.candidates:
        assert (one.sha256, one.precision) == (graphs[one.path].sha256, graphs[one.path].precision)
        assert one.fault is None or "at first sight" in one.fault
        assert len(one.milliseconds) == (6 if one.fault is None else 0)
        assert all(0 < ms < 1e5 for ms in one.milliseconds)
    assert (run.processor, run.libraries, run.threads, run.batch) == (processor(), libraries(), 1, 1)
    (bundle / "measured.json").write_bytes(packed((run,)))
    assert read(bundle).runs == (run,)


def test_only_the_backends_that_are_asked_for_run(bundle: Path) -> None:
    run = measure(open_bundle(bundle), backends=("onnxruntime",))
    assert {one.backend for one in run.candidates} == {"onnxruntime"}
    assert list(run.libraries) == ["onnxruntime"]


def test_the_text_has_a_row_for_each_and_a_line_where_int8_does_not_pay(bundle: Path) -> None:
    run = measure(open_bundle(bundle))
    said = text(run)
    assert str(run.processor) in said
    for one in run.candidates:
        assert any(line.startswith(one.path) for line in said.splitlines())
    full = next(one for one in run.candidates if str(one) == "fp32.onnx on ONNX Runtime")
    int8 = next(one for one in run.candidates if str(one) == "int8-cpu.onnx on ONNX Runtime")
    assert f"{ratio(int8.milliseconds, full.milliseconds).median:.2f}" in said
    assert all(line in said.splitlines() for line in where_int8_does_not_pay(run))


def _scaled_weights(model: onnx.ModelProto) -> None:
    """Double every scale of the quantized weights: the layers give twice what they should."""
    names = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            array = numpy_helper.to_array(tensor)
            if array.ndim == 1 and array.size > 1:
                tensor.CopyFrom(numpy_helper.from_array((array * 4).astype(array.dtype), tensor.name))


def test_a_graph_whose_answers_are_not_the_judged_ones_has_a_fault(bundle: Path) -> None:
    assert all(fault is None or "first sight" in fault for fault in faults(measure(open_bundle(bundle))).values())
    change_graph(bundle, "int8.onnx", _scaled_weights)
    found = faults(measure(open_bundle(bundle)))
    for name, fault in found.items():
        if name.startswith("int8.onnx"):
            assert fault is not None
            assert "its answers differ from FP32's by more than INT8 does otherwise (" in fault
        else:
            assert fault is None


def test_answers_that_are_no_numbers_are_a_fault(bundle: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), np.nan, np.float32), tensor.name))

    change_graph(bundle, "fp32.onnx", spoil)
    found = faults(measure(open_bundle(bundle), backends=("onnxruntime",)))
    assert found["fp32.onnx on ONNX Runtime"] == "its answers are no finite numbers"
    assert found["int8.onnx on ONNX Runtime"] == "the bundle has nothing to compare its answers with"


def test_a_graph_that_does_not_run_has_a_fault_and_the_others_are_measured(bundle: Path) -> None:
    def unknown(model: onnx.ModelProto) -> None:
        output = model.graph.output[0].name
        producer = next(node for node in model.graph.node if output in node.output)
        producer.output[list(producer.output).index(output)] = "before"
        model.graph.node.append(onnx.helper.make_node("Nonsense", ["before"], [output], domain="elsewhere"))
        model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))

    change_graph(bundle, "int8-cpu.onnx", unknown)
    run = measure(open_bundle(bundle))
    for one in run.candidates:
        assert (one.fault or "").startswith("it does not run here (") == (one.path == "int8-cpu.onnx")
        assert bool(one.milliseconds) == (one.path != "int8-cpu.onnx")


def test_what_is_not_installed_is_not_measured(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    run = measure(open_bundle(bundle))
    assert {one.backend for one in run.candidates} == set(run.libraries) == {"onnxruntime"}


def test_a_bundle_without_reference_is_measured_and_what_nobody_judged_is_not_taken(
    make_bundle: MakeBundle,
) -> None:
    bundle = make_bundle(precisions=("fp32", "int8", "int8-cpu"), batch=3, image_input="float", work=1)
    run = measure(open_bundle(bundle))
    assert run.batch == 3
    for name, fault in faults(run).items():
        assert (fault == "the bundle has nothing to compare its answers with") == name.startswith("int8.onnx")


def test_a_damaged_graph_is_not_measured(bundle: Path) -> None:
    (bundle / "int8.onnx").write_bytes((bundle / "int8-cpu.onnx").read_bytes())
    with pytest.raises(IntegrityError, match=r"int8\.onnx"):
        measure(open_bundle(bundle))


def test_where_there_is_nothing_to_measure_that_is_an_error(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match="no shared graphs in FP32 or INT8"):
        measure(open_bundle(make_bundle(precisions=("fp16",), separate=False)))
    monkeypatch.setattr(measuring, "libraries", lambda *_: {})
    with pytest.raises(BackendError, match="is installed: pip install"):
        measure(open_bundle(int8_bundle(tmp_path / "int8.mtl")))
