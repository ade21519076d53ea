"""The article's network, rebuilt from shapes: compared with torchvision's own constructors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torchvision

from mtl_deploy.export.networks import article
from mtl_deploy.runtime.errors import CheckpointError

HEADS = (article.Head(hidden=16, size=1), article.Head(hidden=16, size=1), article.Head(hidden=24, size=5))
SMALL = article.Layout(bottleneck=False, blocks=(1, 1, 1, 1), groups=1, width_per_group=64, heads=HEADS)

BACKBONES = [
    ("resnet18", "ResNet-18"),
    ("resnet34", "ResNet-34"),
    ("resnet50", "ResNet-50"),
    ("resnet101", "ResNet-101"),
    ("resnet152", "ResNet-152"),
    ("resnext50_32x4d", "ResNeXt-50 32x4d"),
    ("resnext101_32x8d", "ResNeXt-101 32x8d"),
    ("resnext101_64x4d", "ResNeXt-101 64x4d"),
    ("wide_resnet50_2", "Wide ResNet-50-2"),
    ("wide_resnet101_2", "Wide ResNet-101-2"),
]


def article_shapes(backbone: str, heads: tuple[article.Head, ...] = HEADS) -> dict[str, torch.Size]:
    """Shapes as the article's script makes them, from torchvision's model of that name."""
    with torch.device("meta"):
        net = torchvision.models.get_model(backbone)
    shapes = {f"net.{name}": tensor.shape for name, tensor in net.state_dict().items() if not name.startswith("fc.")}
    for number, head in enumerate(heads, start=1):
        for layer, (rows, columns) in {
            "linear": (head.hidden, net.fc.in_features),
            "final": (head.size, head.hidden),
        }.items():
            shapes[f"net.fc{number}.{layer}.weight"] = torch.Size((rows, columns))
            shapes[f"net.fc{number}.{layer}.bias"] = torch.Size((rows,))
    return shapes


@pytest.mark.parametrize(("backbone", "name"), BACKBONES, ids=[backbone for backbone, _ in BACKBONES])
def test_rebuilds_every_torchvision_resnet_from_its_shapes(backbone: str, name: str) -> None:
    shapes = article_shapes(backbone)
    layout = article.read_layout(shapes)
    with torch.device("meta"):
        rebuilt = article.build(layout).state_dict()
    assert layout.backbone == name
    assert layout.heads == HEADS
    assert {key: tensor.shape for key, tensor in rebuilt.items()} == shapes


def test_head_is_linear_relu_final_and_the_classifier_is_gone() -> None:
    net = article.build(SMALL).get_submodule("net")
    head = net.get_submodule("fc3")
    assert [(name, type(layer).__name__) for name, layer in head.named_children()] == [
        ("linear", "Linear"),
        ("relu1", "ReLU"),
        ("final", "Linear"),
    ]
    assert isinstance(net.get_submodule("fc"), torch.nn.Identity)


def test_forward_runs_the_backbone_once_a_head_and_keeps_their_order() -> None:
    torch.manual_seed(0)
    network = article.build(SMALL).eval()
    net = network.get_submodule("net")
    passes: list[torch.Size] = []
    net.get_submodule("conv1").register_forward_hook(lambda _module, inputs, _output: passes.append(inputs[0].shape))
    image = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        outputs = network(image)
        expected = [net.get_submodule(f"fc{number}")(net(image)) for number in (1, 2, 3)]
    assert passes == [image.shape] * 6  # three of the network's, three of the expectation's
    assert isinstance(outputs, tuple)
    assert [tuple(output.shape) for output in outputs] == [(2, 1), (2, 1), (2, 5)]
    for output, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, reference, rtol=0, atol=0)


def test_the_articles_sizes_have_the_articles_tasks() -> None:
    tasks = SMALL.default_tasks
    assert tasks is not None
    assert [(task.name, task.kind, task.unit, len(task.labels)) for task in tasks] == [
        ("age", "regression", "years", 0),
        ("gender", "binary", None, 2),
        ("race", "multiclass", None, 5),
    ]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 5, 1), (1, 1, 4), (1, 1, 5, 1)], ids=str)
def test_other_sizes_have_no_default_tasks(sizes: tuple[int, ...]) -> None:
    shapes = article_shapes("resnet18", tuple(article.Head(8, size) for size in sizes))
    assert article.read_layout(shapes).default_tasks is None


def without(shapes: Mapping[str, torch.Size], *prefixes: str) -> dict[str, torch.Size]:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}


RESNET50 = article_shapes("resnet50")
BAD_SHAPES = [
    pytest.param(without(RESNET50, "net.fc2", "net.fc3"), "one head, 'net.fc1'", id="one-head"),
    pytest.param(without(RESNET50, "net.fc2"), "fc1, fc3 instead of", id="gap-in-the-heads"),
    pytest.param(without(RESNET50, "net.fc2.final.bias"), "'net.fc2' has the tensors", id="head-without-bias"),
    pytest.param(
        without(RESNET50, "net.fc1.") | {"net.fc1.weight": torch.Size((1, 2048))}, "--model", id="head-of-one-layer"
    ),
    pytest.param(
        RESNET50 | {"net.fc1.linear.weight": torch.Size((16, 2048, 1, 1))},
        "not made of linear",
        id="head-of-convolutions",
    ),
    pytest.param(without(RESNET50, "net.layer1.0.conv2"), "net.layer1.0.conv2.weight' is missing", id="no-conv2"),
    pytest.param(
        RESNET50 | {"net.layer1.0.conv2.weight": torch.Size((64, 128, 3, 3))}, "torchvision's ResNets", id="odd-groups"
    ),
]


@pytest.mark.parametrize(("shapes", "message"), BAD_SHAPES)
def test_refuses_what_it_cannot_rebuild(shapes: dict[str, torch.Size], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        article.read_layout(shapes)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (list(RESNET50), True),
        (list(without(RESNET50, "net.fc")), False),
        ([name.removeprefix("net.") for name in RESNET50], False),
        (["net.backbone.body.layer1.0.conv1.weight", "net.rpn.head.conv.weight"], False),
    ],
    ids=["article", "no-heads", "no-net", "detector"],
)
def test_recognises_only_its_own_names(names: list[str], expected: bool) -> None:
    assert article.recognises(names) is expected
