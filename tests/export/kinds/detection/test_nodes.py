"""Nodes against torch and against the runtime's numpy, which are written independently, for every format and form of output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from engine_graphs import needs_rtx

from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.detection.nodes import Steps, decode_nodes, row_nodes
from mtl_deploy.export.kinds.detection.priors import priors
from mtl_deploy.export.kinds.detection.reading import Reading, read
from mtl_deploy.export.kinds.detection.rows import as_rows, decoded_rows
from mtl_deploy.export.kinds.detection.suppression import suppression_nodes
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.detection.boxes import decode_rows
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions
from mtl_deploy.runtime.kinds.detection.suppression import kept_rows

SIZE = (64, 96)
PLACES = [(8, 12), (4, 6)]
PAIRS = (((9.0, 12.0), (20.0, 15.0)), ((40.0, 30.0), (50.0, 60.0)))


def whole(parts: tuple[str, ...], **fields: Any) -> DetectionOptions:
    options = DetectionOptions(parts=parts, input_size=SIZE, **fields)
    options.check("boxes")
    return options


def maps(values: int, per_place: int = 1) -> list[tuple[int, ...]]:
    return [(values * per_place, *sides) for sides in PLACES]


ROWS = sum(2 * height * width for height, width in PLACES)
CASES: dict[str, tuple[DetectionOptions, list[tuple[int, ...]]]] = {
    "rows": (whole(("boxes+scores",), classes=3), [(30, 7)]),
    "columns, normalized": (
        whole(("boxes+scores",), format="cxcywh", normalized=True, classes=3, scores="sigmoid"),
        [(7, 30)],
    ),
    "an output each, a background": (
        whole(("scores", "boxes"), format="xywh", scores="softmax", background="last"),
        [(30, 4), (30, 4)],
    ),
    "y first, scores of one class without an axis": (
        whole(("boxes", "scores"), format="yxyx", classes=1),
        [(30, 4), (30,)],
    ),
    "everything per row": (
        whole(
            ("boxes+objectness+scores+landmarks+keypoints+coefficients",),
            classes=2,
            landmarks=2,
            keypoints=3,
            normalized=True,
        ),
        [(30, 4 + 1 + 2 + 4 + 9 + 5)],
    ),
    "retinaface": (
        whole(
            ("boxes", "scores", "landmarks"),
            format="offsets",
            scores="softmax",
            background="first",
            variances=(0.1, 0.2),
            anchors=PAIRS,
            strides=(8, 16),
        ),
        [(ROWS, 4), (ROWS, 2), (ROWS, 10)],
    ),
    "efficientdet": (
        whole(("boxes", "scores"), format="offsets", axes="yx", anchors=PAIRS, strides=(8, 16), classes=2),
        [(ROWS, 4), (ROWS, 2)],
    ),
    "hybridnets": (
        whole(
            ("boxes", "scores", "anchors"),
            format="offsets",
            axes="yx",
            anchors_format="xyxy",
            normalized=True,
            classes=1,
        ),
        [(30, 4), (30, 1), (30, 4)],
    ),
    "scrfd": (
        whole(
            ("scores", "scores", "boxes", "boxes", "landmarks", "landmarks"),
            format="ltrb",
            scores="sigmoid",
            strides=(8, 16),
            point=0.0,
            classes=1,
        ),
        [*maps(1, per_place=2), *maps(4, per_place=2), *maps(10, per_place=2)],
    ),
    "yolov8-pose": (
        whole(
            ("boxes+scores+keypoints",),
            format="ltrb",
            scores="sigmoid",
            strides=(8, 16),
            bins=4,
            classes=1,
            keypoints=4,
        ),
        maps(16 + 1 + 12),
    ),
    "fcos": (whole(("boxes+scores",), format="ltrb", distances="pixels", strides=(8, 16), classes=2), maps(6)),
    "yolov5": (
        whole(
            ("boxes+objectness+scores+landmarks",),
            format="yolov5",
            scores="sigmoid",
            anchors=PAIRS,
            strides=(8, 16),
            classes=3,
            landmarks=1,
        ),
        maps(10, per_place=2),
    ),
    "yolov5, anchors first": (
        whole(("boxes+objectness+scores",), format="yolov5", scores="sigmoid", anchors=PAIRS, strides=(8, 16)),
        [(2, *sides, 8) for sides in PLACES],
    ),
    "yolov3": (
        whole(("boxes+objectness+scores",), format="yolov3", scores="sigmoid", anchors=PAIRS, strides=(8, 16)),
        maps(8, per_place=2),
    ),
    "yolox": (
        whole(("boxes+objectness+scores",), format="yolox", scores="sigmoid", strides=(8, 16), classes=3),
        maps(8),
    ),
}


def outputs_of(shapes: list[tuple[int, ...]], batch: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(0.3, 0.8, (batch, *shape)).astype(np.float32) for shape in shapes]


def reading_of(options: DetectionOptions, shapes: list[tuple[int, ...]]) -> tuple[Reading, np.ndarray | None]:
    reading = read("boxes", options, (), shapes)
    return reading, priors("boxes", reading, SIZE)


class Run:
    """A graph of a task's nodes alone, behind inputs that stand for the network's outputs."""

    def __init__(
        self, reading: Reading, behind: np.ndarray | None, shapes: list[tuple[int, ...]], suppress: bool
    ) -> None:
        inputs = [
            ir.Value(name=f"raw{place}", shape=ir.Shape(["batch", *shape]), type=ir.TensorType(ir.DataType.FLOAT))
            for place, shape in enumerate(shapes)
        ]
        initializers: list[ir.Value] = []

        def constant(name: str, array: np.ndarray) -> ir.Value:
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            initializers.append(value)
            return value

        chain = Chain(Task("boxes", "raw"), inputs[0], constant)
        rows = row_nodes(Steps(chain, "merge"), reading, inputs, behind)
        decoded = decode_nodes(Steps(chain, "decode"), rows, reading.options, SIZE)
        found = [rows, decoded]
        if suppress:
            found.append(suppression_nodes(Steps(chain, "keep"), decoded, reading.options, reading.rows))
        for node in chain.nodes:
            for number, value in enumerate(node.outputs):
                value.name = f"{node.name}_{number}"
        layout = reading.options.columns
        sizes = [
            (reading.rows, layout.raw_size),
            (reading.rows, layout.decoded_size),
            (reading.options.top_k, layout.kept_size),
        ]
        for value, size in zip(found, sizes, strict=False):
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", *size])
        self.names = [value.name for value in found]
        outputs = [value for value in found if not value.is_graph_input()]
        graph = ir.Graph(
            inputs, outputs, nodes=chain.nodes, initializers=initializers, opset_imports={"": 17}, name="boxes"
        )
        self.types = {node.op_type for node in chain.nodes}
        model = ir.to_proto(ir.Model(graph, ir_version=8))
        import onnx

        onnx.checker.check_model(model, full_check=True)
        self.content = model.SerializeToString()
        self.session = ort.InferenceSession(self.content, providers=["CPUExecutionProvider"])

    def __call__(self, outputs: list[np.ndarray]) -> list[np.ndarray]:
        given = {f"raw{place}": array for place, array in enumerate(outputs)}
        names = [each.name for each in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, given), strict=True)) | given  # type: ignore[return-value]


@pytest.mark.parametrize("name", CASES)
def test_nodes_torch_and_numpy_agree(name: str) -> None:
    options, shapes = CASES[name]
    reading, behind = reading_of(options, shapes)
    layout = reading.options.columns
    run = Run(reading, behind, shapes, suppress=False)
    for batch in (1, 3):
        outputs = outputs_of(shapes, batch)
        found = run(outputs)
        rows, decoded = (found[word] for word in run.names)
        exact = as_rows(reading, [torch.from_numpy(each).double() for each in outputs], behind)
        assert exact.shape == (batch, reading.rows, layout.raw_size)
        np.testing.assert_allclose(rows, exact, rtol=1e-6, atol=1e-6)
        wanted = decoded_rows(exact, reading.options, SIZE)
        assert wanted.dtype == torch.float64
        assert wanted.shape == (batch, reading.rows, layout.decoded_size)
        np.testing.assert_allclose(decoded, wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(decode_rows(rows, reading.options, SIZE), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("per_row", ["best", "all"])
@pytest.mark.parametrize("name", ["rows", "retinaface", "everything per row", "yolov5"])
def test_the_graph_keeps_what_the_runtime_keeps(name: str, per_row: Any) -> None:
    options, shapes = CASES[name]
    reading, behind = reading_of(options, shapes)
    options = replace(reading.options, per_row=per_row, top_k=12, iou_threshold=0.4, score_threshold=0.3)
    reading = replace(reading, options=options)
    run = Run(reading, behind, shapes, suppress=True)
    assert "NonMaxSuppression" in run.types
    for batch in (1, 3):
        outputs = outputs_of(shapes, batch, seed=batch)
        found = run(outputs)
        decoded, kept = (found[word] for word in run.names[1:])
        assert kept.shape == (batch, 12, options.columns.kept_size)
        for row, image in zip(kept, decoded, strict=True):
            wanted = kept_rows(image, options)
            np.testing.assert_array_equal(row[: len(wanted)], wanted)
            assert not row[len(wanted) :, 4].any()


@pytest.mark.parametrize("per_row", ["best", "all"])
def test_overlapping_boxes_are_dropped_alike(per_row: Any) -> None:
    options = whole(("boxes+scores",), classes=3, iou_threshold=0.3, top_k=60, per_row=per_row)
    shapes = [(200, 7)]
    reading, behind = reading_of(options, shapes)
    run = Run(reading, behind, shapes, suppress=True)
    random = np.random.default_rng(5)
    rows = random.uniform(0, 1, (2, 200, 7)).astype(np.float32)
    rows[..., :2] *= 80
    rows[..., 2:4] = rows[..., :2] + 8 + 12 * rows[..., 2:4]
    for kept, image in zip(run([rows])[run.names[-1]], rows, strict=True):
        wanted = kept_rows(image, reading.options)
        assert 10 < len(wanted) < len(kept_rows(image, replace(reading.options, iou_threshold=1.0, top_k=10_000))) / 2
        np.testing.assert_array_equal(kept[: len(wanted)], wanted)
        assert not kept[len(wanted) :, 4].any()


def test_few_rows_are_padded_and_nothing_is_suppressed_with_a_threshold_of_one() -> None:
    options = whole(("boxes+scores",), classes=1, iou_threshold=1.0, top_k=9, score_threshold=0.0)
    reading, behind = reading_of(options, [(4, 5)])
    run = Run(reading, behind, [(4, 5)], suppress=True)
    assert "NonMaxSuppression" not in run.types
    outputs = [np.abs(outputs_of([(4, 5)], 2)[0])]
    kept = run(outputs)[run.names[-1]]
    assert kept.shape == (2, 9, 6)
    np.testing.assert_array_equal(kept[:, :4, 4], -np.sort(-outputs[0][..., 4], axis=1))
    assert not kept[:, 4:].any()


def test_an_image_without_boxes_does_not_take_those_of_another() -> None:
    options = whole(("boxes+scores",), classes=2, top_k=5)
    reading, behind = reading_of(options, [(20, 6)])
    run = Run(reading, behind, [(20, 6)], suppress=True)
    outputs = outputs_of([(20, 6)], 2)
    outputs[0][1, :, 4:] = 0.01
    kept = run(outputs)[run.names[-1]]
    assert kept[0, :, 4].any()
    assert not kept[1, :, 4].any()


@needs_rtx
@pytest.mark.parametrize("name", ["yolov5", "yolov8-pose"])
def test_an_engine_is_built_of_decoding(name: str) -> None:
    import tensorrt_rtx as library

    options, shapes = CASES[name]
    run = Run(*reading_of(options, shapes), shapes, suppress=False)
    builder = library.Builder(library.Logger(library.Logger.INTERNAL_ERROR))
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert library.OnnxParser(network, builder.logger).parse(run.content)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for place, shape in enumerate(shapes):
        profile.set_shape(f"raw{place}", (1, *shape), (2, *shape), (4, *shape))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


@pytest.mark.parametrize("name", ["retinaface", "yolov8-pose"])
def test_openvino_keeps_the_same(name: str) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    options, shapes = CASES[name]
    reading, behind = reading_of(options, shapes)
    reading = replace(reading, options=replace(reading.options, top_k=12, iou_threshold=0.4, score_threshold=0.3))
    run = Run(reading, behind, shapes, suppress=True)
    outputs = outputs_of(shapes, 3)
    model = openvino.Core().compile_model(
        openvino.Core().read_model(run.content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = model({f"raw{place}": array for place, array in enumerate(outputs)})[model.output(run.names[-1])]
    np.testing.assert_allclose(found, run(outputs)[run.names[-1]], rtol=1e-4, atol=1e-4)
    assert found[..., 4].any()
