"""A network with heads of very different cost: classes, and a decoder with skip connections that two dense tasks share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Decoder(nn.Module):
    """From four stages of a backbone to a map at the first one's size."""

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)

    def forward(self, stages: list[torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor | None = None
        for stage, lateral, smooth in reversed(list(zip(stages, self.lateral, self.smooth, strict=True))):
            own = lateral(stage)
            if found is not None:
                own = own + functional.interpolate(found, scale_factor=2.0, mode="bilinear", align_corners=False)
            found = functional.relu(smooth(own))
        assert found is not None
        return found


class Uneven(nn.Module):
    """``kind`` (4 classes of the image) and ``size`` (a regression) from the last stage; ``seg`` and ``depth`` from a decoder.

    Args:
        width: of the first stage; each further one has twice as many channels.
        decoder: channels of the decoder.
    """

    def __init__(self, width: int = 8, decoder: int = 16) -> None:
        super().__init__()
        torch.manual_seed(5)
        widths = tuple(width * 2**stage for stage in range(4))
        self.stages = nn.ModuleList(_block(before, after) for before, after in zip((3, *widths), widths, strict=False))
        self.decoder = Decoder(widths, decoder)
        self.kind, self.size = nn.Linear(widths[-1], 4), nn.Linear(widths[-1], 1)
        self.seg = nn.Sequential(nn.Conv2d(decoder, decoder, 3, padding=1), nn.ReLU(), nn.Conv2d(decoder, 5, 1))
        self.depth = nn.Conv2d(decoder, 1, 3, padding=1)
        for head in (self.seg[-1], self.depth, self.kind, self.size):
            nn.init.normal_(head.weight, std=0.5)

    def forward(self, x: torch.Tensor) -> object:
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        pooled = x.mean((2, 3))
        maps = self.decoder(stages)
        return {"kind": self.kind(pooled), "size": self.size(pooled), "seg": self.seg(maps), "depth": self.depth(maps)}


class Windows(nn.Module):
    """A small transformer: ``a`` from all tokens, ``b`` and ``c`` from a block that works on windows, folded into the batch."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.block, self.window = (
            nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, dropout=0.0) for _ in range(2)
        )
        self.a, self.b, self.c = nn.Linear(width, 4), nn.Linear(width, 1), nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> object:
        tokens = self.block(self.patch(x).flatten(2).transpose(1, 2))
        count, width = tokens.shape[1], tokens.shape[2]
        windows = self.window(tokens.reshape(-1, count // 2, width)).mean(1).reshape(-1, 2, width)
        return {"a": self.a(tokens.mean(1)), "b": self.b(windows.mean(1)), "c": self.c(windows.amax(1))}
