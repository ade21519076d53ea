"""Public networks with a value per pixel, rebuilt small: how they end and what they return is theirs.

Written anew from the papers and from what the repositories' networks return; nothing of their code is in here.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional


def down(before: int, after: int, *, act: type[nn.Module] = nn.ReLU6) -> nn.Sequential:
    """Return a convolution of stride 2 with BatchNorm."""
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), act())


class Up(nn.Module):
    """A transposed convolution, BatchNorm and PReLU: twice as large."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(before, after, 2, stride=2, bias=False)
        self.bn, self.act = nn.BatchNorm2d(after, eps=1e-3), nn.PReLU(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.deconv(x)))


class TwinLiteNet(nn.Module):
    """Drivable area and lane lines with two attentions between them (chequanghuy/TwinLiteNet).

    Returns a tuple: two maps ``(N, 2, H, W)``, which went through a PReLU, so that they are logits all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*(down(a, b, act=nn.ReLU) for a, b in ((3, 8), (8, 8), (8, 8))))
        self.query, self.key, self.value = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 8, 1)
        self.gamma = nn.Parameter(torch.full((1,), 0.3))
        self.up_1, self.up_2 = (nn.Sequential(Up(8, 8), Up(8, 4)) for _ in range(2))
        self.classifier_1, self.classifier_2 = Up(4, 2), Up(4, 2)

    def position(self, x: torch.Tensor) -> torch.Tensor:
        """Attend from every place to every place."""
        batch, channels, height, width = x.size()
        query = self.query(x).view(batch, -1, width * height).permute(0, 2, 1)
        attention = torch.softmax(torch.bmm(query, self.key(x).view(batch, -1, width * height)), dim=-1)
        out = torch.bmm(self.value(x).view(batch, -1, width * height), attention.permute(0, 2, 1))
        return self.gamma * out.view(batch, channels, height, width) + x

    def channel(self, x: torch.Tensor) -> torch.Tensor:
        """Attend from every channel to every channel."""
        batch, channels, height, width = x.size()
        flat = x.view(batch, channels, -1)
        energy = torch.bmm(flat, flat.permute(0, 2, 1))
        energy = torch.max(energy, -1, keepdim=True)[0].expand_as(energy) - energy
        return self.gamma * torch.bmm(energy.softmax(-1), flat).view(batch, channels, height, width) + x

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.encoder(x)
        x = self.position(x) + self.channel(x)
        return self.classifier_1(self.up_1(x)), self.classifier_2(self.up_2(x))


class RefineNet(nn.Module):
    """Light-Weight RefineNet with three heads (DrSleep/multi-task-refinenet).

    Maps are brought to the size of another map by an ``nn.Upsample`` made in ``forward``; chained pooling has names that begin
    with a digit.

    Returns a tuple: segmentation ``(N, 40, H / 4, W / 4)`` logits, depth ``(N, 1, H / 4, W / 4)`` in metres, normals
    ``(N, 3, H / 4, W / 4)`` of any length.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer3, self.layer8 = nn.Sequential(down(3, 8), down(8, 8)), nn.Sequential(down(8, 8), down(8, 8))
        self.conv3, self.conv8 = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        for step in (1, 2):
            setattr(self, f"{step}_outvar_dimred", nn.Conv2d(8, 8, 1, bias=False))
        self.maxpool, self.relu = nn.MaxPool2d(5, 1, 2), nn.ReLU6(inplace=True)
        self.pre_depth, self.pre_segm, self.pre_normal = (nn.Conv2d(8, 8, 1, groups=8, bias=False) for _ in range(3))
        self.segm, self.depth, self.normal = (nn.Conv2d(8, size, 3, padding=1) for size in (40, 1, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fine = self.layer3(x)
        top = coarse = self.conv8(self.layer8(fine))
        for step in (1, 2):
            top = getattr(self, f"{step}_outvar_dimred")(self.maxpool(top))
            coarse = coarse + top
        coarse = nn.Upsample(size=fine.size()[2:], mode="bilinear", align_corners=False)(coarse)
        fine = self.relu(self.conv3(fine) + coarse)
        heads = ((self.pre_segm, self.segm), (self.pre_depth, self.depth), (self.pre_normal, self.normal))
        return tuple(head(self.relu(before(fine))) for before, head in heads)


class MTINet(nn.Module):
    """Distillation between tasks with deep supervision (SimonVandenhende/Multi-Task-Learning-PyTorch).

    Returns a dict: ``deep_supervision``, a dict of scales of dicts of maps and features; ``initial_depth``, a map at stride 4;
    ``semseg`` ``(N, 5, H, W)`` logits, ``depth`` ``(N, 1, H, W)``, ``normals`` ``(N, 3, H, W)``, ``edge`` ``(N, 1, H, W)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes = {"semseg": 5, "depth": 1, "normals": 3, "edge": 1}
        self.stages = nn.ModuleList([nn.Sequential(down(3, 8), down(8, 8)), down(8, 8)])
        self.refinement = nn.ModuleDict({task: nn.Conv2d(8, 8, 1) for task in self.sizes})
        self.decoders = nn.ModuleDict({task: nn.Conv2d(8, size, 1) for task, size in self.sizes.items()})
        self.heads = nn.ModuleDict({task: nn.Conv2d(16, size, 1) for task, size in self.sizes.items()})

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        img_size = x.size()[-2:]
        out: dict[str, object] = {}
        scales = []
        for stage in self.stages:
            x = stage(x)
            features = {task: layer(x).relu() for task, layer in self.refinement.items()}
            decoded = {task: self.decoders[task](value) for task, value in features.items()}
            scales.append({**{f"features_{task}": value for task, value in features.items()}, **decoded})
        out["deep_supervision"] = {f"scale_{place}": scale for place, scale in enumerate(scales)}
        out["initial_depth"] = scales[0]["depth"]
        for task in self.sizes:
            fine, coarse = (scale[f"features_{task}"] for scale in scales)
            coarse = functional.interpolate(coarse, fine.shape[-2:], mode="bilinear")
            maps = self.heads[task](torch.cat([fine, coarse], 1))
            out[task] = functional.interpolate(maps, img_size, mode="bilinear")
        return out


class MTAN(nn.Module):
    """SegNet with an attention per task (lorenmt/mtan): unpools by the places of the maxima, returns its loss weights.

    Returns a tuple: a list of segmentation ``(N, 13, H, W)`` after a log-softmax, depth ``(N, 1, H, W)`` and normals
    ``(N, 3, H, W)`` of unit length; and ``logsigma`` ``(3,)``, a parameter.
    """

    def __init__(self, *, unpool: bool = True) -> None:
        super().__init__()
        self.unpool = unpool
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.decoder = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.down_sampling, self.up_sampling = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)
        self.att = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Sigmoid()) for _ in range(3))
        self.pred = nn.ModuleList(nn.Conv2d(8, size, 1) for size in (13, 1, 3))
        self.logsigma = nn.Parameter(torch.full((3,), -0.5))

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        x = self.encoder(x)
        pooled, indices = self.down_sampling(x)
        large = self.up_sampling(pooled, indices) if self.unpool else functional.interpolate(pooled, scale_factor=2)
        x = self.decoder(large)
        seg, depth, normals = (pred(att(x) * x) for att, pred in zip(self.att, self.pred, strict=True))
        normals = normals / torch.norm(normals, p=2, dim=1, keepdim=True)
        return [functional.log_softmax(seg, dim=1), depth, normals], self.logsigma


class ModelOutput(OrderedDict[str, object]):
    """As transformers has it: a dict that also gives its values by attribute and by position, and leaves None out."""

    def __init__(self, **values: object) -> None:
        super().__init__((name, value) for name, value in values.items() if value is not None)

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getitem__(name)
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: object) -> object:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]  # type: ignore[index]


class SegFormer(nn.Module):
    """A network in the manner of transformers, with depth added, as people do (NVlabs/SegFormer's head at stride 4).

    Takes ``pixel_values``, ``labels`` and switches. Returns a :class:`ModelOutput`: ``logits`` ``(N, 5, H / 4, W / 4)``,
    ``predicted_depth`` ``(N, H / 4, W / 4)``, ``hidden_states``, a tuple of two maps; ``loss`` is None and left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(down(3, 8), down(8, 8)), down(8, 8)])
        self.classifier, self.depth = nn.Conv2d(16, 5, 1), nn.Conv2d(16, 1, 1)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = True,
        return_dict: bool = True,
    ) -> ModelOutput:
        states, x = (), pixel_values
        for stage in self.stages:
            x = stage(x)
            states = (*states, x)  # type: ignore[assignment]
        fine, coarse = states
        coarse = functional.interpolate(coarse, size=fine.size()[2:], mode="bilinear", align_corners=False)
        maps = torch.cat([fine, coarse], 1)
        depth = self.depth(maps).squeeze(dim=1)
        return ModelOutput(loss=None, logits=self.classifier(maps), predicted_depth=depth, hidden_states=states)


class RGBD(nn.Module):
    """Colour and depth in four channels, or in two inputs (as TUI-NICR/ESANet takes them).

    Pools to odd sizes, as a pyramid pooling module does. Returns a tuple of segmentation at three strides, ``(N, 6, H, W)``,
    ``(N, 6, H / 4, W / 4)`` and ``(N, 6, H / 8, W / 8)``, and one logit ``(N, 1)``: a kitchen or not.
    """

    def __init__(self, *, inputs: int = 1) -> None:
        super().__init__()
        self.inputs = inputs
        self.stem, self.deep = nn.Sequential(down(4, 8), down(8, 8)), down(8, 8)
        self.side_4, self.side_8, self.scene = nn.Conv2d(16, 6, 1), nn.Conv2d(8, 6, 1), nn.Linear(8, 1)

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = torch.cat(images, 1)
        fine = self.stem(x)
        deep = self.deep(fine)
        for bins in (1, 5):
            pooled = functional.adaptive_avg_pool2d(deep, bins)
            deep = deep + functional.interpolate(pooled, size=deep.shape[2:], mode="nearest")
        large = functional.interpolate(deep, size=fine.shape[2:], mode="nearest")
        side = self.side_4(torch.cat([fine, large], 1))
        whole = functional.interpolate(side, size=x.shape[2:], mode="bilinear", align_corners=False)
        return whole, side, self.side_8(deep), self.scene(deep.mean((2, 3)))


class Flow(nn.Module):
    """Flow and depth of two images with settings beside them (as autonomousvision/unimatch takes them).

    Takes two images ``(N, 3, H, W)``, a string and lists. Returns a dict: ``flow_preds``, a list of maps ``(N, 2, H, W)``, the
    last the best; ``depth`` ``(N, H, W)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.flow = nn.Sequential(down(3, 8), down(8, 8)), nn.Conv2d(16, 3, 1)

    def forward(
        self, img0: torch.Tensor, img1: torch.Tensor, attn_type: str, corr_radius_list: list[int], task: str = "flow"
    ) -> dict[str, object]:
        features = self.backbone(torch.cat((img0, img1), dim=0))
        first, second = torch.chunk(features, 2, 0)
        maps = self.flow(torch.cat([first, second * (corr_radius_list[0] if attn_type == "swin" else 1)], 1))
        large = functional.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=True) * 4
        return {"flow_preds": [large[:, :2] / 2, large[:, :2]], "depth": large[:, 2]}
