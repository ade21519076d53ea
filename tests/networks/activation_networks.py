"""Small networks whose forward has already applied what a decoder applies: sigmoid, softmax, log-softmax, in many forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from small_networks import Shared, backbone
from torch import nn
from torch.nn import functional

Form = Callable[[torch.Tensor], torch.Tensor]


class Probabilities(nn.Module):
    """Every activation that a task can have, over heads of one, two and four values; logits and a regression in 0..1 beside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.backbone = backbone()
        sizes = {"gender": 1, "smile": 2, "hat": 2, "race": 4, "mood": 4, "traits": 4, "plain": 4, "quality": 1}
        self.heads = nn.ModuleDict({name: nn.Linear(8, size) for name, size in sizes.items()})
        for head in self.heads.values():
            nn.init.normal_(head.weight, std=4.0)

    def forward(self, x: torch.Tensor) -> Mapping[str, torch.Tensor]:
        features = self.backbone(x)
        raw = {name: head(features) for name, head in self.heads.items()}
        return {
            "gender": torch.sigmoid(raw["gender"]),
            "smile": torch.softmax(raw["smile"], 1),
            "hat": torch.log_softmax(raw["hat"], 1),
            "race": torch.softmax(raw["race"], -1),
            "mood": functional.log_softmax(raw["mood"], dim=1),
            "traits": torch.sigmoid(raw["traits"]),
            "plain": raw["plain"],
            "quality": torch.sigmoid(raw["quality"]),
        }


TASKS = (
    "gender=binary:male,female",
    "smile=binary:no,yes",
    "hat=binary:no,yes",
    "race=multiclass:a,b,c,d",
    "mood=multiclass:a,b,c,d",
    "traits=multiclass:a,b,c,d",
    "plain=multiclass:a,b,c,d",
    "quality=regression:points;scale=100;offset=1",
)
ACTIVATIONS = {
    "gender": "sigmoid",
    "smile": "softmax",
    "hat": "log_softmax",
    "race": "softmax",
    "mood": "log_softmax",
    "traits": "sigmoid",
    "plain": "none",
}


def probabilities(outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what the class heads of :class:`Probabilities` say, ``(N, classes)``; one value is the positive class's."""
    applied: dict[str, Form] = {"log_softmax": torch.exp, "none": lambda value: value.softmax(1)}
    found = {name: applied.get(how, torch.clone)(outputs[name]) for name, how in ACTIVATIONS.items()}
    found["gender"] = torch.cat([1 - found["gender"], found["gender"]], 1)
    return found


class ONet(nn.Module):
    """The shape of MTCNN's last network (Zhang et al. 2016, https://arxiv.org/abs/1604.02878), narrower: box, landmarks, face."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.trunk = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.MaxPool2d(3, 2, ceil_mode=True)),
            *(nn.Conv2d(8, 16, 3), nn.PReLU(16), nn.MaxPool2d(3, 2, ceil_mode=True)),
            *(nn.Conv2d(16, 16, 3), nn.PReLU(16), nn.MaxPool2d(2, 2, ceil_mode=True)),
            *(nn.Conv2d(16, 32, 2), nn.PReLU(32)),
        )
        self.dense, self.prelu = nn.Linear(288, 32), nn.PReLU(32)
        self.face, self.box, self.landmarks = nn.Linear(32, 2), nn.Linear(32, 4), nn.Linear(32, 10)
        nn.init.normal_(self.face.weight, std=2.0)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.trunk(x).permute(0, 3, 2, 1).contiguous()
        x = self.prelu(self.dense(x.view(x.shape[0], -1)))
        return self.box(x), self.landmarks(x), self.softmax(self.face(x))


class Maps(nn.Module):
    """Segmentations whose last step is a softmax over channels, before and after interpolation, and its logarithm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.first, self.second, self.third = (nn.Conv2d(8, 3, 3, padding=1) for _ in range(3))
        for head in (self.first, self.second, self.third):
            nn.init.normal_(head.weight, std=1.5)

    def forward(self, x: torch.Tensor) -> Mapping[str, torch.Tensor]:
        maps = self.stem(x)
        large = functional.interpolate(
            self.first(maps).softmax(1), scale_factor=4, mode="bilinear", align_corners=False
        )
        return {"large": large, "small": nn.Softmax2d()(self.second(maps)), "logs": self.third(maps).log_softmax(1)}


class Applied(nn.Module):
    """A small network with heads whose values go through functions, and ``last``, which applies none."""

    def __init__(self, forms: Mapping[str, tuple[Form, int]]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.backbone = backbone()
        self.forms = [form for form, _ in forms.values()]
        self.heads = nn.ModuleList(nn.Linear(8, size) for _, size in forms.values())
        for head in self.heads:
            nn.init.normal_(head.weight, std=4.0)
            with torch.no_grad():
                head.bias -= head.weight.sum(1) * 0.2
        self.last = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.backbone(x)
        return (*(form(head(features)) for form, head in zip(self.forms, self.heads, strict=True)), self.last(features))


def clamped() -> nn.Module:
    """Return a network whose first output is clamped to 0..1, by nothing that says sigmoid."""
    return Applied({"clamp": (lambda v: (v / 40 + 0.5).clamp(0, 1), 1)})


class Faces(Shared):
    """Gender and race, whose activations are inside the network or left to who decodes."""

    def __init__(self, *, applied: bool) -> None:
        super().__init__()
        self.applied = applied

    def forward(self, x: torch.Tensor) -> Mapping[str, torch.Tensor]:
        age, gender, race = super().forward(x)  # type: ignore[misc]
        if self.applied:
            gender, race = gender.sigmoid(), race.softmax(1)
        return {"age": age, "gender": gender, "race": race}


def own() -> nn.Module:
    """Return a network that applies sigmoid and softmax itself."""
    return Faces(applied=True)


def ours() -> nn.Module:
    """Return the same network, giving logits."""
    return Faces(applied=False)
