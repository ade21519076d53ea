"""The work of real networks, counted from their graphs and by hand."""

from __future__ import annotations

from collections import Counter

import onnx
import onnx_ir as ir
import pytest
import torch
import torchvision
from torch import nn

from mtl_deploy.bench.sections.where.parts import BACKBONE, BORDERS, assign, head
from mtl_deploy.calibration.fp16.typing import to_half
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.export.graph import passes
from mtl_deploy.export.graph.cost import cost, multiply_adds
from mtl_deploy.export.graph.opset import NotExpressibleError, write_opset
from mtl_deploy.export.graph.sizes import at_size
from mtl_deploy.export.graph.split import sharing
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.runtime.onnx_format.graph import read_graph

PLACES = 16  # 4 x 4 behind the stem
STEM = PLACES * 8 * 27


class Deformable(nn.Module):
    work = PLACES * (8 * 18 * 9 + 8 * 9 * 9 + 8 * 12 * 9)  # offsets, mask, the deformable convolution

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.mask = nn.Conv2d(8, 18, 3, padding=1), nn.Conv2d(8, 9, 3, padding=1)
        self.conv = torchvision.ops.DeformConv2d(8, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x, self.offset(x), self.mask(x).sigmoid()).mean((2, 3))


class Recurrent(nn.Module):
    def __init__(self, layer: nn.RNNBase, work: int) -> None:
        super().__init__()
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        self.layer, self.linear, self.work = layer, nn.Linear(width, 1), work + width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.layer(x.flatten(2).transpose(1, 2))[0][:, -1])


class Einsums(nn.Module):
    work = PLACES * 8 * 5 + PLACES * 5 * 4

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(8, 5)), nn.Parameter(torch.randn(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.einsum("nchw,ck->nkhw", x, self.first).relu()
        return torch.einsum("nkhw,kd->ndhw", x, self.second).mean((2, 3))


class Encoder(nn.Module):
    # queries, keys and values; queries by keys and their weights by values; the projection; the two layers behind
    work = 2 * (PLACES * 8 * 24 + 2 * PLACES * PLACES * 8 + PLACES * 8 * 8 + 2 * PLACES * 8 * 16)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(2).transpose(1, 2)).mean(1)


class TwoTasks(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.stem, self.layers, self.linear = nn.Conv2d(3, 8, 3, 4, 1), layers, nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x).relu()
        return self.layers(x), self.linear(x.mean((2, 3)))


HEADS = [
    pytest.param(Deformable, 19, {"DeformConv": 1}, id="deformable-convolution"),
    pytest.param(
        lambda: Recurrent(nn.LSTM(8, 6, batch_first=True), PLACES * 4 * 6 * (8 + 6)), 18, {"LSTM": 1}, id="lstm"
    ),
    pytest.param(
        lambda: Recurrent(
            nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True),
            PLACES * 2 * 4 * 6 * (8 + 6) + PLACES * 2 * 4 * 6 * (12 + 6),
        ),
        18,
        {"LSTM": 2},
        id="lstm-of-two-layers-and-directions",
    ),
    pytest.param(lambda: Recurrent(nn.GRU(8, 6, batch_first=True), PLACES * 3 * 6 * (8 + 6)), 18, {"GRU": 1}, id="gru"),
    pytest.param(Einsums, 18, {"Einsum": 2}, id="einsum"),
    pytest.param(Encoder, 18, {"MatMul": 10}, id="transformer-encoder"),
    pytest.param(Encoder, 23, {"Attention": 2}, id="transformer-encoder-with-attention-operators"),
]


def traced(network: nn.Module, opset: int) -> ir.Model:
    """Return a network's graph as the exporter goes on with it, with the sizes of one image."""
    torch.manual_seed(0)
    found = trace(network.eval(), 16, 16, opset=opset).model
    merged = passes.merge_copies(found)
    passes.clean(found)
    passes.infer_shapes(found)
    found = at_size(found)
    assert merged.before.multiply_adds == merged.after.multiply_adds == sharing(found).shared.multiply_adds
    return found


@pytest.mark.parametrize(("make", "opset", "operators"), HEADS)
def test_a_heads_work_is_what_is_counted_by_hand_and_all_rooms_know_its_layers(
    make: type[nn.Module], opset: int, operators: dict[str, int]
) -> None:
    layers = make()
    model = traced(TwoTasks(layers), opset)
    first, second = (str(output.name) for output in model.graph.outputs)

    found = Counter(node.op_type for node in model.graph)
    assert {name: found[name] for name in operators} == operators
    shares = sharing(model)
    assert shares.backbone.multiply_adds == STEM
    assert shares.heads[first].multiply_adds == layers.work
    assert shares.heads[second].multiply_adds == 16
    assert shares.shared.multiply_adds == STEM + layers.work + 16
    assert shares.ideal_ratio == pytest.approx((2 * STEM + layers.work + 16) / (STEM + layers.work + 16))

    proto = ir.to_proto(model)
    worked = {str(node.name) for node in model.graph if multiply_adds(node)}
    kinds = {str(node.name): node.op_type for node in model.graph}

    placement = place(proto, "tensorrt", heads=True)
    assert {*placement.nodes, *placement.kept} == worked
    assert set(operators) - {"MatMul"} == {kinds[name] for name in placement.kept} - {"MatMul"}  # each with its reason
    typed = to_half(proto, {})
    assert not any("before any weighted layer" in typed.kept.get(name, "") for name in worked)
    parts = dict(zip((node.name for node in model.graph), assign(read_graph(proto.SerializeToString())), strict=True))
    assert all(parts[name] == head(first) for name, kind in kinds.items() if kind in set(operators) - {"MatMul"})


def test_a_network_that_begins_with_an_operator_of_the_table_has_its_backbone_there() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.heads = nn.Parameter(torch.randn(3, 4)), nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 3)])

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = torch.einsum("nchw,ck->nkhw", x / 255, self.weight).relu().mean((2, 3))
            return tuple(layer(x) for layer in self.heads)

    model = traced(First(), 18)
    parts = dict(
        zip(
            (node.op_type for node in model.graph),
            assign(read_graph(ir.to_proto(model).SerializeToString())),
            strict=True,
        )
    )
    assert parts["Einsum"] == BACKBONE
    assert parts["Div"] == BORDERS


class Branching(nn.Module):
    """A head with two layers in either branch, one of them more expensive; what a branch alone needs is made outside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other = nn.Conv2d(3, 8, 3, 4, 1), nn.Linear(8, 2)
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.narrow = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.stem(x).relu()
        z = torch.cond(x.sum() > 0, self.wide, self.narrow, (y,))
        return z.mean((2, 3)), self.other(y.mean((2, 3)))


def test_what_is_inside_a_branch_is_work_and_has_parameters_and_needs_what_it_reads() -> None:
    model = traced(Branching(), 18)
    first = str(model.graph.outputs[0].name)
    shares = sharing(model)
    assert shares.heads[first].multiply_adds == 2 * PLACES * 8 * 72
    assert shares.heads[first].parameters >= 2 * (8 * 72 + 8) + 2 * (64 + 8)
    assert shares.backbone.multiply_adds == STEM  # read inside of the branches only
    assert shares.shared.multiply_adds == STEM + 2 * PLACES * 8 * 72 + 16
    parts = assign(read_graph(ir.to_proto(model).SerializeToString()))
    assert dict(zip((node.op_type for node in model.graph), parts, strict=True))["If"] == head(first)


@pytest.mark.parametrize(("trips", "times"), [(7, 7), (None, 1)])
def test_a_loops_body_counts_as_often_as_it_runs(trips: int | None, times: int) -> None:
    text = f"""
        <ir_version: 8, opset_import: ["": 18]>
        loops (float[1, 5, 4] x, int64 given) => (float[1, 5, 4] y, float[1, 5, 4] z)
        <float[4, 4] w, int64 seven = {{{trips or 0}}}, bool yes = {{1}}>
        {{
            y = Loop({"seven" if trips else "given"}, yes, x) <body = body (int64 i, bool before, float[1, 5, 4] a) =>
                (bool after, float[1, 5, 4] b) {{ after = Identity(before) b = MatMul(a, w) }}>
            ignored, z = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                body = step (float[1, 4] state, float[1, 4] row) => (float[1, 4] next, float[1, 4] out)
                {{ next = Identity(state) out = MatMul(row, w) }}> (begin, x)
        }}
    """
    text = text.replace("bool yes = {1}>", "bool yes = {1}, float[1, 4] begin>")
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), data_prop=True))
    loop, scan = model.graph
    assert multiply_adds(loop) == times * 5 * 4 * 4
    assert multiply_adds(scan) == 5 * 4 * 4


def test_the_opset_rises_where_an_operator_needs_it_and_says_so() -> None:
    with pytest.raises(NotExpressibleError, match=r"DeformConv, an operator of opset 19 and later; leave --opset out"):
        trace(TwoTasks(Deformable()).eval(), 16, 16, opset=18)
    traced = trace(TwoTasks(Deformable()).eval(), 16, 16)
    assert traced.model.opset_imports[""] == 19
    assert "opset 19, since DeformConv came with it" in traced.description
    assert write_opset(traced.model, None) == 19


def test_what_cannot_be_counted_is_left_out_and_named() -> None:
    known = onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, [1, 2, 3])
    weight = onnx.helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, [1, 3, 4])
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["a", "b"], ["c"], name="product"),
            onnx.helper.make_node("MatMul", ["d", "e"], ["f"], name="other"),
        ],
        "free",
        [
            *(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", "k", "k"]) for name in "ab"),
            known,
            weight,
        ],
        [
            onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["n", "k", "k"]),
            onnx.helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, [1, 2, 4]),
        ],
    )
    found = cost(ir.from_proto(onnx.helper.make_model(graph)).graph)
    assert (found.multiply_adds, found.uncounted) == (2 * 3 * 4, ("MatMul",))
    assert "leave out 1 MatMul" in found.notes[0]
    assert multiply_adds(ir.from_proto(onnx.helper.make_model(graph)).graph[0]) == 0
