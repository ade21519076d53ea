"""What a profile says of a shared artifact's parts: real sessions of ONNX Runtime, and layers of engines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.sections.where import engine_profile
from mtl_deploy.bench.sections.where import graph_profile as profile_module
from mtl_deploy.bench.sections.where.engine_profile import layer_parts, profile_engine
from mtl_deploy.bench.sections.where.graph_profile import Profile, profile_graph
from mtl_deploy.bench.sections.where.parts import assign, ideal_bytes, shares, weight_bytes
from mtl_deploy.runtime.backends.onnxruntime.profile import ProfiledBackend
from mtl_deploy.runtime.backends.tensorrt.profile import Layer, LayerTimes, make_profiler
from mtl_deploy.runtime.errors import BackendError, IntegrityError, RunError
from mtl_deploy.runtime.loading import load
from mtl_deploy.runtime.onnx_format.graph import OnnxGraph, read_graph

CPU = Settings(("CPU",), 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
HEADS = ("head age", "head gender", "head race")
MakeBundle = Callable[..., Path]


def profile(file: Path, images: np.ndarray = IMAGES) -> Profile:
    return profile_graph(None, file, images, CPU, slot_s=0.02)


def by_name(graph: OnnxGraph) -> dict[str, str]:
    """Return the parts of a graph's nodes by what they compute first."""
    return {node.outputs[0]: part for node, part in zip(graph.nodes, assign(graph), strict=True)}


def test_every_node_belongs_to_the_part_that_it_was_made_for(make_bundle: MakeBundle) -> None:
    found = by_name(read_graph((make_bundle(work=2) / "fp32.onnx").read_bytes()))
    assert found == {
        **dict.fromkeys(("cast", "scaled", "planes"), "borders"),
        **dict.fromkeys(("conv0", "conv1", "pooled", "features"), "backbone"),
        **dict.fromkeys(("age_logits", "age_scaled", "age"), "head age"),
        **dict.fromkeys(("gender_logits", "gender"), "head gender"),
        **dict.fromkeys(("race_logits", "race"), "head race"),
    }


def test_a_graph_of_one_task_is_all_backbone_and_borders(make_bundle: MakeBundle) -> None:
    found = by_name(read_graph((make_bundle(work=1) / "separate" / "age.onnx").read_bytes()))
    assert set(found.values()) == {"borders", "backbone"}
    assert found["age"] == "backbone"


def graph_of(*nodes: onnx.NodeProto, outputs: tuple[str, ...]) -> OnnxGraph:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", *outputs)]
    weights = [
        numpy_helper.from_array(np.ones((4, 4), np.float32), "w"),
        numpy_helper.from_array(np.ones(3, np.int8), "z"),
    ]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], weights)
    return read_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def test_what_no_task_needs_and_what_two_of_three_share() -> None:
    graph = graph_of(
        helper.make_node("Relu", ["image"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Relu", ["y"], ["branch"]),
        helper.make_node("Relu", ["y"], ["unused"]),
        helper.make_node("Neg", ["branch"], ["a"]),
        helper.make_node("Abs", ["branch"], ["b"]),
        helper.make_node("Abs", ["y"], ["c"]),
        outputs=("a", "b", "c"),
    )
    assert assign(graph) == ["borders", "backbone", "backbone", "unassigned", "head a", "head b", "head c"]
    assert weight_bytes(graph) == 64  # z is read by no node


def test_a_backbone_without_weights_is_no_border() -> None:
    graph = graph_of(
        helper.make_node("Relu", ["image"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Abs", ["x"], ["b"]),
        outputs=("a", "b"),
    )
    assert assign(graph) == ["backbone", "head a", "head b"]


def test_weights_are_counted_by_their_types(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(work=1)
    graphs = {name: read_graph((bundle / name).read_bytes()) for name in ("fp32.onnx", "separate/age.onnx")}
    kernel, scale = 81, 1
    assert weight_bytes(graphs["fp32.onnx"]) == 4 * (scale + kernel + 3 + 3 + 9 + 2)
    assert weight_bytes(graphs["separate/age.onnx"]) == 4 * (scale + kernel + 3 + 2)
    ideal = ideal_bytes(graphs["fp32.onnx"], [graphs["separate/age.onnx"]] * 3)
    assert ideal == pytest.approx(3 * 87 / 99)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("FLOAT16", 20),
        ("BFLOAT16", 20),
        ("INT8", 10),
        ("UINT8", 10),
        ("BOOL", 10),
        ("INT64", 80),
        ("INT4", 5),
        ("DOUBLE", 80),
    ],
)
def test_bytes_of_each_type(kind: str, count: int) -> None:
    raw = helper.make_tensor("w", getattr(TensorProto, kind), [10], bytes(count), raw=True)
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["a"])], "g", [], [], [raw])
    assert weight_bytes(read_graph(helper.make_model(graph).SerializeToString())) == count


def test_a_real_profile_adds_up(make_bundle: MakeBundle) -> None:
    found = profile(make_bundle(work=6) / "fp32.onnx")
    assert found.source == "ONNX Runtime's profile"
    assert found.calls >= 3 * profile_module.MIN_CALLS
    names = [part.name for part in found.parts]
    assert names == ["borders", "backbone", *HEADS, "between nodes"]
    assert [part.task for part in found.parts] == [None, None, "age", "gender", "race", None]
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    for part in found.parts:
        assert part.ms.low <= part.ms.value <= part.ms.high
        assert len(part.operators) <= 5
        assert sum(one.share for one in part.operators) <= part.share * 1.5 + 1e-3  # medians of parts of a part
    operators = {part.name: {one.type for one in part.operators} for part in found.parts}
    assert operators["borders"] == {"Cast", "Mul", "Transpose"}
    assert "Conv" in operators["backbone"]
    assert {"Gemm", "Softmax"} <= operators["head race"]
    assert shares(found.parts).keys() == {"backbone", *HEADS}
    assert sum(shares(found.parts).values()) == pytest.approx(1)


def test_a_residual_networks_profile_finds_its_fused_nodes(article_bundle: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    found = profile(article_bundle / "fp32.onnx", images)
    assert {part.name for part in found.parts} >= {"borders", "backbone", "between nodes"}
    assert len([part for part in found.parts if part.task]) == 3
    assert not [part for part in found.parts if part.name == "unassigned"]
    backbone = next(part for part in found.parts if part.name == "backbone")
    assert backbone.operators[0].type == "Conv"


def test_times_are_those_of_the_calls_after_the_warm_up(make_bundle: MakeBundle, tmp_path: Path) -> None:
    backend = ProfiledBackend((make_bundle(work=1) / "fp32.onnx").read_bytes, providers=["CPU"], threads=1)
    folder = Path(backend._folder.name)
    names = [spec.name for spec in backend.outputs]
    for _ in range(4):
        backend.run({"image": IMAGES}, names)
    times = backend.node_times(1)
    assert times.shape == (3, len(backend.graph.nodes))
    assert (times >= 0).all()
    assert not folder.exists()
    with pytest.raises(RunError, match="has been read"):
        backend.node_times()


def test_a_profile_without_calls_is_refused(make_bundle: MakeBundle) -> None:
    backend = ProfiledBackend((make_bundle() / "fp32.onnx").read_bytes, providers=["CPU"])
    with pytest.raises(RunError, match="holds no call"):
        backend.node_times()


def test_another_provider_is_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BackendError, match="CUDA does not run there; profile with provider CPU"):
        profile_graph(None, make_bundle() / "fp32.onnx", IMAGES, Settings(("CUDA", "CPU")))


def test_a_changed_graph_is_not_profiled(make_bundle: MakeBundle) -> None:
    file = make_bundle() / "fp32.onnx"
    file.write_bytes(file.read_bytes() + b"\x08\x08")
    with pytest.raises(IntegrityError):
        profile(file)


def test_the_body_of_an_if_is_in_its_own_time() -> None:
    def branch(op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        nodes = [helper.make_node(op, ["image"], ["t"]), helper.make_node("Relu", ["t"], ["out"])]
        return helper.make_graph(nodes, op, [], [out])

    nodes = [
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["chosen"], "choice", then_branch=branch("Neg"), else_branch=branch("Abs")
        ),
        helper.make_node("Relu", ["chosen"], ["a"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("image", "a")]
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    backend = ProfiledBackend(lambda: model.SerializeToString(), providers=["CPU"], threads=1)
    for sign in (1, -1):
        backend.run({"image": sign * np.ones(4, np.float32)}, ["a"])
    assert backend.node_times().shape == (2, 4)


# engines


@pytest.fixture
def source(make_bundle: MakeBundle, tmp_path: Path) -> OnnxGraph:
    """The tiny graph with a name for every node: n.OUTPUT."""
    model = onnx.load_from_string((make_bundle(tmp_path / "source.mtl", work=3) / "fp32.onnx").read_bytes())
    for node in model.graph.node:
        node.name = f"n.{node.output[0]}"
    return read_graph(model.SerializeToString())


@pytest.mark.parametrize(
    ("layer", "part", "kind"),
    [
        ("n.conv0", "backbone", "Conv"),
        ("n.cast + n.scaled + n.planes", "borders", "Cast"),
        ("n.planes + n.conv0", "backbone", "Conv"),
        ("n.age_logits + n.age_scaled + n.age", "head age", "Gemm"),
        ("PWN(PWN(n.age_scaled), n.age)", "head age", "Mul"),
        ("n.age_logits || n.gender_logits", "unassigned", "Gemm"),
        ("n.features + n.race_logits", "unassigned", "Gemm"),
        ("{ForeignNode[n.conv0...n.features]}", "backbone", "Conv"),
        ("{ForeignNode[n.race_logits...n.race]}", "head race", "Gemm"),
        ("{ForeignNode[n.cast...n.race]}", "unassigned", "Conv"),
        ("Reformatting CopyNode for Input Tensor 0 to n.conv1", "backbone", "Reformat"),
        ("Reformatting CopyNode for Output Tensor 0 to n.conv1 + n.conv2", "backbone", "Reformat"),
        ("Reformatting CopyNode for Network Input image", "unassigned", "Reformat"),
        ("__myl_Res_0x1234", "unassigned", "other"),
        ("n.conv", "unassigned", "other"),
    ],
)
def test_layers_are_brought_back_to_nodes(source: OnnxGraph, layer: str, part: str, kind: str) -> None:
    assert layer_parts(source, [layer], []) == {layer: (part, kind)}


def test_the_inspectors_metadata_is_believed_first(source: OnnxGraph) -> None:
    layers = [
        Layer("__myl_Conv_0", "[ONNX Layer: n.conv1]\x1e[ONNX Layer: n.conv2]", "gemm"),
        Layer("__myl_Move_1", "", "move"),
        Layer("__myl_Both_2", "[ONNX Layer: n.age]\x1e[ONNX Layer: n.race]", "kgen"),
    ]
    assert layer_parts(source, [layer.name for layer in layers], layers) == {
        "__myl_Conv_0": ("backbone", "Conv"),
        "__myl_Move_1": ("unassigned", "move"),
        "__myl_Both_2": ("unassigned", "Add"),
    }


@pytest.fixture
def engine(gpu: Any, engine_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shared engine on the simulated GPU, whose library reports the layers' times that stand in ``reported``."""
    monkeypatch.setattr(engine_profile, "CALLS", 4)
    with load(engine_bundle(work=2) / "fp32.trt") as model:
        yield model.backend


LAYERS = [
    ("n.cast + n.scaled + n.planes", 0.25),
    ("n.conv0", 1.0),
    ("n.conv1", 1.5),
    ("n.conv1", 0.5),
    ("n.age_logits + n.age_scaled + n.age", 0.5),
    ("mystery", 0.25),
]


def test_an_engines_profile_adds_up(engine: Any, source: OnnxGraph) -> None:
    sys.modules["tensorrt"].reported = LAYERS  # type: ignore[attr-defined]
    found = profile_engine(engine, source, IMAGES)
    assert found.source == "TensorRT 10.3.0's profiler"
    assert found.calls == 12
    assert found.call_ms == 4
    assert {part.name: (part.ms.value, part.share) for part in found.parts} == {
        "borders": (0.25, 0.0625),
        "backbone": (3.0, 0.75),
        "head age": (0.5, 0.125),
        "unassigned": (0.25, 0.0625),
    }
    (warning,) = found.warnings
    assert warning.startswith("6 % of the engine's time is in layers that TensorRT 10.3.0 names after no nodes")


def test_a_library_that_reports_nothing_is_an_error(engine: Any, source: OnnxGraph) -> None:
    with pytest.raises(RunError, match="reported no layer's time"):
        profile_engine(engine, source, IMAGES)


def test_the_inspector_is_asked_where_there_is_one(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    described = [{"Name": "a", "Metadata": "[ONNX Layer: n.conv0]", "LayerType": "gemm"}, "b"]
    with closing(LayerTimes(engine, IMAGES)) as times:
        assert {(layer.type, layer.metadata[:13]) for layer in times.layers()} == {("CaskConvolution", "[ONNX Layer: ")}
        inspector = SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": described}))
        kind = type(engine.loaded.engine)
        monkeypatch.setattr(kind, "create_engine_inspector", lambda self: inspector, raising=False)
        monkeypatch.setattr(
            sys.modules["tensorrt"], "LayerInformationFormat", SimpleNamespace(JSON="json"), raising=False
        )
        assert times.layers() == [Layer("a", "[ONNX Layer: n.conv0]", "gemm"), Layer("b")]
    with pytest.raises(RunError, match="closed"):
        times.measure()


def test_the_real_librarys_profiler_can_be_given() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: mtl-deploy[tensorrt-rtx]")
    reported: list[tuple[str, float]] = []
    made = make_profiler(trt, lambda name, ms: reported.append((name, ms)))
    assert isinstance(made, trt.IProfiler)
    made.report_layer_time("conv1", 0.5)
    assert reported == [("conv1", 0.5)]
    assert hasattr(trt.IExecutionContext, "profiler")
    assert hasattr(trt.ICudaEngine, "create_engine_inspector")
    assert hasattr(trt.LayerInformationFormat, "JSON")
