"""The network with per-pixel outputs: its size and work as published, its shapes, and that it trains and exports."""

from __future__ import annotations

import pickle

import pytest
import torch

from mtl_deploy.export.graph.cost import cost
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.export.network.factory import make_network
from mtl_deploy.export.networks import refinenet

MODULE = "mtl_deploy.export.networks.refinenet"


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("factory", "sizes", "count"),
    [
        ("nyud", {"segmentation": 40, "depth": 1}, 3_070_057),
        ("nyud_normals", {"segmentation": 40, "depth": 1, "normals": 3}, 3_077_228),
        ("kitti", {"segmentation": 6, "depth": 1}, 3_070_057 - 34 * (9 * 256 + 1)),
        ("cityscapes", {"segmentation": 19, "depth": 1}, 3_070_057 - 21 * (9 * 256 + 1)),
    ],
)
def test_factories_build_the_papers_networks(factory: str, sizes: dict[str, int], count: int) -> None:
    with torch.device("meta"):
        network = make_network(f"{MODULE}:{factory}")
        outputs = network.eval()(torch.empty(1, 3, 64, 96))
    assert parameters(network) == count
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        task: (1, size, 16, 24) for task, size in sizes.items()
    }


def test_two_tasks_at_640x480_take_the_published_work() -> None:
    work = 0

    def count(module: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal work
        work += output.numel() * module.weight[0].numel()

    with torch.device("meta"):
        network = refinenet.nyud().eval()
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(count)
        network(torch.empty(1, 3, 480, 640))
    assert work == 5_940_288_000


def test_the_features_have_the_strides_and_channels_of_the_description() -> None:
    with torch.device("meta"):
        network = refinenet.nyud()
        features = network.encode(torch.empty(2, 3, 96, 64))
    found = [(tensor.shape[1], 96 // tensor.shape[2]) for tensor in features]
    assert found == [(16, 2), (24, 4), (32, 8), (64, 16), (96, 16), (160, 32), (320, 32)]
    assert not any(lateral.bias is not None for lateral in network.laterals.values())
    depthwise = [convolution.groups for pooling in network.poolings for convolution in pooling.convolutions]
    assert depthwise == [1] * 12 + [256] * 4


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47), (90, 130), (1, 1)])
def test_any_size_works_and_outputs_have_a_quarter_of_it_rounded_up(height: int, width: int) -> None:
    outputs = refinenet.small().eval()(torch.randn(1, 3, height, width))
    assert set(outputs) == {"segmentation", "depth", "normals"}
    for output in outputs.values():
        assert output.shape[2:] == (-(-height // 4), -(-width // 4))
        assert output.isfinite().all()


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    network = refinenet.small().eval()
    images = torch.randn(3, 3, 64, 64)
    together, alone = network(images), network(images[1:2])
    assert set(alone) == set(together) == {"segmentation", "depth", "normals"}
    for task, output in alone.items():
        torch.testing.assert_close(output, together[task][1:2], rtol=1e-4, atol=1e-6)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = refinenet.small().train()
    outputs = network(torch.randn(2, 3, 64, 96))
    sum(output.square().mean() for output in outputs.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_fresh_features_neither_vanish_nor_explode() -> None:
    torch.manual_seed(0)
    network = refinenet.nyud().train()
    with torch.no_grad():
        shared = network.decode(network.encode(torch.randn(2, 3, 64, 96)))
    assert 0.1 < shared.std() < 20


def test_its_weights_go_from_one_to_another() -> None:
    torch.manual_seed(0)
    first, second = refinenet.small().eval(), refinenet.small().eval()
    second.load_state_dict(first.state_dict())
    third = pickle.loads(pickle.dumps(first))
    image = torch.randn(1, 3, 32, 64)
    wanted = first(image)
    assert set(wanted) == {"segmentation", "depth", "normals"}
    for other in (second(image), third(image)):
        assert set(other) == set(wanted)
        for task, output in wanted.items():
            torch.testing.assert_close(other[task], output, rtol=0, atol=0)


def test_tasks_and_widths_can_be_chosen() -> None:
    assert list(refinenet.joint(segmentation=0, normals=True, width=0.25, decoder=16).heads) == ["depth", "normals"]
    network = refinenet.build({"disparity": 2, "edges": 1}, width=0.25, decoder=16).eval()
    outputs = network(torch.randn(1, 3, 32, 32))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "disparity": (1, 2, 8, 8),
        "edges": (1, 1, 8, 8),
    }


def test_it_traces_to_one_pass_with_its_own_cost() -> None:
    network = refinenet.small().eval()
    traced = trace(network, 64, 96)
    assert traced.batch is None
    graph = traced.model.graph
    assert [tuple(output.shape)[1:] for output in graph.outputs] == [(6, 16, 24), (1, 16, 24), (3, 16, 24)]
    counted = [0]

    def count(module: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        counted[0] += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, 64, 96))
    assert cost(graph).multiply_adds == counted[0]
    kinds = [node.op_type for node in graph]
    assert kinds.count("Resize") == 3
    assert kinds.count("MaxPool") == 16
    for node in graph:
        if node.op_type == "Resize":
            assert node.attributes["mode"].as_string() == "linear"
            assert node.attributes["coordinate_transformation_mode"].as_string() in ("half_pixel", "pytorch_half_pixel")
