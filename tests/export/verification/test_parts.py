"""Separate models are parts of verified graphs: that is proven file by file, and a file that is not is verified by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mtl_deploy.export.cli import main
from mtl_deploy.export.graph import variants
from mtl_deploy.export.verification.parts import GraphParts
from mtl_deploy.runtime.bundle.manifest import open_bundle

TASKS = ("age", "gender", "race")


def part(bundle: Path, task: str = "age", suffix: str = "") -> bytes:
    return (bundle / "separate" / f"{task}{suffix}.onnx").read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_separate_model_is_a_part_of_the_shared_graph_of_its_precision(
    article_bundle: Path, precision: str
) -> None:
    whole = GraphParts((article_bundle / f"{precision}.onnx").read_bytes())
    suffix, other = ("", ".fp16") if precision == "fp32" else (".fp16", "")
    assert [whole.holds(part(article_bundle, task, suffix)) for task in TASKS] == [True] * 3
    assert [whole.holds(part(article_bundle, task, other)) for task in TASKS] == [False] * 3


def one_weight(model: onnx.ModelProto) -> None:
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values.reshape(-1)[7] = np.nextafter(values.reshape(-1)[7], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def a_stride(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "MaxPool")
    next(each for each in node.attribute if each.name == "strides").ints[:] = [1, 1]


def another_input(model: onnx.ModelProto) -> None:
    first, second = [node for node in model.graph.node if node.op_type == "Relu"][1:3]
    second.input[0] = first.input[0]


def the_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def an_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("change", [one_weight, a_stride, another_input, the_opset, an_output])
def test_a_file_that_differs_in_one_place_is_no_part(
    article_bundle: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load_from_string(part(article_bundle))
    change(model)
    assert not GraphParts((article_bundle / "fp32.onnx").read_bytes()).holds(model.SerializeToString())


def test_rows_of_parts_have_the_figures_of_the_whole(article_bundle: Path) -> None:
    rows = {(row["artifact"], row["task"]): row for row in open_bundle(article_bundle).manifest.verification}
    for precision, suffix in (("fp32", ""), ("fp16", ".fp16")):
        for task in TASKS:
            whole, own = rows[f"{precision}.onnx", task], rows[f"separate/{task}{suffix}.onnx", task]
            assert own["cut_from"] == f"{precision}.onnx"
            assert "cut_from" not in whole
            apart = {
                "artifact",
                "cut_from",
                "structure_excess",
            }  # the last is its own, from the images that it was run on
            assert {key: own[key] for key in own.keys() - apart} == {key: whole[key] for key in whole.keys() - apart}
            assert (own["structure_excess"] is None) == (precision == "fp32")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_separate_model_with_other_weights_is_not_delivered(
    article_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    cut = variants.extract

    def wrong(model: Any, outputs: Any) -> Any:
        import onnx_ir as ir

        alone = cut(model, outputs)
        if outputs == ["gender"]:
            kernels = [each for each in alone.graph.initializers.values() if each.shape.rank() == 4]
            values = kernels[3].const_value.numpy()
            if (values.dtype == np.float16) == (precision == "fp16"):
                kernels[3].const_value = ir.tensor(values * values.dtype.type(1.05), name=kernels[3].name)
        return alone

    monkeypatch.setattr(variants, "extract", wrong)
    arguments = ["--image-size", "64", "--engine", "none", "--precision", "fp32,fp16", "--threads", "1"]
    assert main([str(article_checkpoint), "--output", str(tmp_path / "wrong.mtl"), *arguments]) == 1
    assert f"separate/gender{'' if precision == 'fp32' else '.fp16'}.onnx" in capsys.readouterr().err
    assert not (tmp_path / "wrong.mtl").exists()
