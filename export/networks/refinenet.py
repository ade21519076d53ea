"""A network with per-pixel outputs: MobileNet-v2, a Light-Weight RefineNet decoder that all tasks share, a small head per task.

After the description in "Real-Time Joint Semantic Segmentation and Depth Estimation Using Asymmetric Annotations" (Nekrasov,
Dharmasiri, Spek, Drummond, Shen, Reid, ICRA 2019, arXiv 1809.04766). The encoder is that of "MobileNetV2: Inverted
Residuals and Linear Bottlenecks" (Sandler et al., CVPR 2018, arXiv 1801.04381), the decoder that of "Light-Weight RefineNet for
Real-Time Semantic Segmentation" (Nekrasov, Shen, Reid, BMVC 2018, arXiv 1810.03272). No weights come with it.

The functions without required parameters are factories for ``--model mtl_deploy.export.networks.refinenet:nyud`` and the like.
Unlike its neighbour this module imports torch at once, so that a network can be pickled; only ``--model`` and training code
import it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4  # input pixels per output pixel, on each side
MULTIPLE = 32  # the encoder's largest stride: sides that are multiples of it halve evenly all the way down

STEM = 32  # channels of the first convolution
STAGES = (  # (expansion t, channels c, blocks n, stride s of the first block): table 2 of MobileNet-v2
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
SCALES = ((5, 6), (3, 4), (2,), (1,))  # stages whose features meet, from 1/32 of the image to 1/4
POOLINGS = 4  # in one chained residual pooling
HEAD_STD = 0.01  # of the weights of a head's last convolution, so that training starts from small outputs


class InvertedResidual(nn.Module):
    """MobileNet-v2's block: 1x1 to ``t`` times the channels, depthwise 3x3, 1x1 to few; the input is added where it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            *_normalised(inputs, hidden, 1),  # even if t is 1: the paper's network has it
            nn.ReLU6(inplace=True),
            *_normalised(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU6(inplace=True),
            *_normalised(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, inputs, h, w)`` to ``(N, outputs, h / stride, w / stride)``."""
        changed: Tensor = self.layers(features)
        return features + changed if self.residual else changed


class ChainedResidualPooling(nn.Module):
    """Max pooling 5x5 and a 1x1 convolution, each applied to the previous result and added to the sum."""

    def __init__(self, channels: int, *, depthwise: bool = False) -> None:
        super().__init__()
        groups = channels if depthwise else 1
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 1, groups=groups, bias=False) for _ in range(POOLINGS)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, channels, h, w)`` to the same shape."""
        total = link = features
        for convolution in self.convolutions:
            link = convolution(self.pool(link))
            total = total + link
        return total


class RefineNet(nn.Module):
    """The network. ``forward`` takes ``(N, 3, H, W) float32`` and returns a dict of raw outputs ``(N, channels, H / 4, W / 4)``.

    Sides that are not multiples of 32 work too: each scale is resized to the next, and an output's sides are those of the image
    divided by 4, rounded up.

    Args:
        heads: channels of the output, by task; the outputs come in this order.
        width: factor for the encoder's channels, which are rounded to multiples of 8.
        decoder: channels of the decoder.
    """

    def __init__(self, heads: Mapping[str, int], *, width: float = 1.0, decoder: int = 256) -> None:
        super().__init__()
        channels = _scaled(STEM, width)
        self.stem = nn.Sequential(*_normalised(3, channels, 3, stride=2), nn.ReLU6(inplace=True))
        self.stages = nn.ModuleList()
        given = []
        for expansion, wanted, blocks, stride in STAGES:
            outputs = _scaled(wanted, width)
            sizes = [channels, *[outputs] * (blocks - 1)]
            self.stages.append(
                nn.Sequential(
                    *(InvertedResidual(size, outputs, expansion, 1 if i else stride) for i, size in enumerate(sizes))
                )
            )
            given.append(channels := outputs)
        self.laterals = nn.ModuleDict(
            {str(stage): nn.Conv2d(given[stage], decoder, 1, bias=False) for scale in SCALES for stage in scale}
        )
        last = len(SCALES) - 1
        self.poolings = nn.ModuleList(ChainedResidualPooling(decoder, depthwise=i == last) for i in range(len(SCALES)))
        self.adapters = nn.ModuleList(nn.Conv2d(decoder, decoder, 1, bias=False) for _ in range(last))
        self.heads = nn.ModuleDict({name: _head(decoder, size) for name, size in heads.items()})
        _initialise(self)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Run the network on ``(N, 3, H, W) float32``; raw outputs ``(N, channels, H / 4, W / 4) float32`` by task."""
        shared = self.decode(self.encode(image))
        return {name: head(shared) for name, head in self.heads.items()}

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of each stage, finest first."""
        features = self.stem(image)
        found = []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found

    def decode(self, features: list[Tensor]) -> Tensor:
        """Join the features of the stages, coarsest first, to ``(N, decoder, H / 4, W / 4)``."""
        coarser: Tensor | None = None
        for i, scale in enumerate(SCALES):
            joined = self.laterals[str(scale[0])](features[scale[0]])
            for stage in scale[1:]:
                joined = joined + self.laterals[str(stage)](features[stage])
            if coarser is not None:
                up = self.adapters[i - 1](coarser)
                joined = joined + functional.interpolate(
                    up, size=joined.shape[-2:], mode="bilinear", align_corners=False
                )
            coarser = self.poolings[i](functional.relu6(joined))
        assert coarser is not None
        return coarser


def build(heads: Mapping[str, int], *, width: float = 1.0, decoder: int = 256) -> RefineNet:
    """Build the network with fresh weights; see :class:`RefineNet`."""
    return RefineNet(heads, width=width, decoder=decoder)


def joint(
    segmentation: int = 40, depth: bool = True, normals: bool = False, *, width: float = 1.0, decoder: int = 256
) -> RefineNet:
    """Build it for the paper's tasks: ``segmentation`` (number of classes; 0: none), ``depth`` and ``normals``."""
    sizes = {"segmentation": segmentation, "depth": int(depth), "normals": 3 * int(normals)}
    return build({name: size for name, size in sizes.items() if size}, width=width, decoder=decoder)


def nyud() -> RefineNet:
    """Build the paper's network for NYUDv2: 40 classes and depth."""
    return joint()


def nyud_normals() -> RefineNet:
    """Build the paper's network for NYUDv2 with surface normals as the third task."""
    return joint(normals=True)


def kitti() -> RefineNet:
    """Build the paper's network for KITTI: 6 classes and depth."""
    return joint(segmentation=6)


def cityscapes() -> RefineNet:
    """Build the network for Cityscapes: 19 classes and depth."""
    return joint(segmentation=19)


def small() -> RefineNet:
    """Build a narrow one that trains in minutes on a CPU: 6 classes, depth and normals, as in ``examples/scenes``."""
    return joint(segmentation=6, normals=True, width=0.5, decoder=64)


def _normalised(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _head(channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, groups=channels, bias=False),
        nn.ReLU6(inplace=True),
        nn.Conv2d(channels, size, 3, padding=1),
    )


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)


def _initialise(network: RefineNet) -> None:
    """Set Kaiming normal weights; depthwise 1x1 convolutions, which have one input each, start as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if module.groups > 1 and module.kernel_size == (1, 1):
                nn.init.ones_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:  # only a head's last convolution has one
                nn.init.normal_(module.weight, std=HEAD_STD)
                nn.init.zeros_(module.bias)
    for weight in network.poolings.parameters():  # otherwise the sum of the links would grow fivefold at each scale
        weight.data.mul_(1 / POOLINGS)
