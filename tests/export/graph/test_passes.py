from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import small_networks
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl_deploy.export.graph import passes
from mtl_deploy.export.graph.cost import cost
from mtl_deploy.export.graph.split import extract, sharing
from mtl_deploy.export.graph.trace import trace


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def run(model: ir.Model, image: np.ndarray) -> list[Any]:
    content = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})


@pytest.mark.parametrize(
    ("network", "copies", "convolutions", "shares"),
    [
        pytest.param(small_networks.Shared, 1, 2, True, id="one-pass"),
        pytest.param(small_networks.Repeating, 3, 2, True, id="the-article's-three-passes"),
        pytest.param(small_networks.Copied, 3, 2, True, id="copied-backbones"),
        pytest.param(small_networks.RepeatedHead, 1, 2, True, id="only-a-head-twice"),
        pytest.param(small_networks.Unshared, 1, 6, False, id="nothing-shared"),
        pytest.param(small_networks.Siamese, 1, 4, True, id="same-weights-on-other-data"),
    ],
)
def test_repeated_work_is_merged_and_counted(network: Any, copies: int, convolutions: int, shares: bool) -> None:
    module = network().eval()
    traced = trace(module, 16, 16)
    merged = passes.merge_copies(traced.model)
    passes.clean(traced.model)
    passes.infer_shapes(traced.model)

    assert merged.copies == copies
    assert operators(traced.model).count("Conv") == convolutions
    assert merged.before.multiply_adds == pytest.approx(copies * merged.after.multiply_adds, rel=0.05)
    assert sharing(traced.model).shares_backbone is shares
    image = torch.randn(5, 3, 16, 16)
    with torch.inference_mode():
        expected = module(image)
    for found, wanted in zip(run(traced.model, image.numpy()), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_batch_norm_is_folded_and_pooling_is_portable() -> None:
    traced = trace(small_networks.Shared().eval(), 16, 16)
    passes.merge_copies(traced.model)
    passes.clean(traced.model)

    assert "BatchNormalization" not in operators(traced.model)
    assert "ReduceMean" not in operators(traced.model)
    assert "GlobalAveragePool" in operators(traced.model)


def test_nothing_of_the_exporting_machine_stays_in_the_graph() -> None:
    traced = trace(small_networks.Shared().eval(), 16, 16)
    passes.merge_copies(traced.model)
    passes.clean(traced.model)

    content = ir.serde.serialize_model(traced.model).SerializeToString()
    assert b"networks.py" not in content
    assert b"site-packages" not in content


def test_multiply_adds_and_parameters_are_those_that_pytorch_counts() -> None:
    import torchvision

    network = torchvision.models.resnet18(num_classes=10).eval()

    class TwoHeads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.network(x)
            return y, y.relu()

    traced = trace(TwoHeads().eval(), 64, 64)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))
    merged = passes.merge_copies(traced.model)

    assert merged.before.multiply_adds == counter.get_total_flops() // 2
    buffers = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    assert merged.before.parameters == sum(p.numel() for p in network.parameters()) + buffers


def test_what_each_task_needs_adds_up() -> None:
    traced = trace(small_networks.Repeating().eval(), 16, 16)
    passes.merge_copies(traced.model)
    passes.clean(traced.model)
    passes.infer_shapes(traced.model)

    shares = sharing(traced.model)
    heads = sum(head.multiply_adds for head in shares.heads.values())
    assert shares.shared.multiply_adds == shares.backbone.multiply_adds + heads
    for task, separate in shares.separate.items():
        assert separate.multiply_adds == shares.backbone.multiply_adds + shares.heads[task].multiply_adds
        alone = extract(traced.model, [task])
        assert cost(alone.graph) == separate
    total = sum(each.multiply_adds for each in shares.separate.values())
    assert shares.ideal_ratio == pytest.approx(total / shares.shared.multiply_adds)


def test_a_separate_graph_computes_what_the_shared_one_does_for_its_task() -> None:
    traced = trace(small_networks.Shared().eval(), 16, 16)
    passes.merge_copies(traced.model)
    passes.clean(traced.model)
    image = np.random.default_rng(0).standard_normal((3, 3, 16, 16), dtype=np.float32)
    together = run(traced.model, image)

    for position, output in enumerate(list(traced.model.graph.outputs)):
        alone = extract(traced.model, [str(output.name)])
        (found,) = run(alone, image)
        np.testing.assert_array_equal(found, together[position])
        heads = [name for name in alone.graph.initializers if name.startswith(("age", "gender", "race"))]
        assert {name.partition(".")[0] for name in heads} == {("age", "gender", "race")[position]}
