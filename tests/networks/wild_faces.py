"""Public networks of faces, rebuilt small: how they end and what they return is theirs, their trunks are a convolution or two.

Written anew from the papers and from what the repositories' networks return; nothing of their code is in here.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def trunk(channels: int = 3, width: int = 8) -> nn.Sequential:
    """Return convolutions with BatchNorm of stride 32 in all, as a ResNet has."""
    layers: list[nn.Module] = []
    for _ in range(5):
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*layers)


class FairFace(nn.Module):
    """A ResNet-34 whose ``fc`` packs three tasks (dchen236/FairFace, ``predict.py``).

    Returns one tensor ``(N, 18)`` of logits: race in columns 0 to 7, gender 7 to 9, age group 9 to 18.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.avgpool, self.fc = trunk(), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 18)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


class HopeNet(nn.Module):
    """Head pose as three distributions over 66 bins of 3 degrees (natanielruiz/deep-head-pose).

    Its ``AvgPool2d`` is as large as the last map, so that the image's size is fixed. ``fc_finetune`` is in the file and unused.

    Returns a tuple of yaw, pitch and roll, each ``(N, 66)`` logits; the angle is ``sum(softmax * 3 * bin) - 99``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.avgpool = trunk(), nn.AvgPool2d(2)
        self.fc_yaw, self.fc_pitch, self.fc_roll = (nn.Linear(8, 66) for _ in range(3))
        self.fc_finetune = nn.Linear(8 + 3, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.avgpool(self.layers(x))
        x = x.view(x.size(0), -1)
        return self.fc_yaw(x), self.fc_pitch(x), self.fc_roll(x)


class Outlook(nn.Module):
    """Outlook attention of VOLO: each place weights the 3x3 values around it, which ``fold`` adds up again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.v, self.attn, self.proj = (
            nn.Linear(width, width, bias=False),
            nn.Linear(width, 81),
            nn.Linear(width, width),
        )
        self.unfold, self.pool = nn.Unfold(3, padding=1, stride=2), nn.AvgPool2d(2, 2, ceil_mode=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        rows, columns = -(-height // 2), -(-width // 2)
        value = self.unfold(self.v(x).permute(0, 3, 1, 2))
        value = value.reshape(batch, channels, 9, rows * columns).permute(0, 3, 2, 1)
        weight = self.attn(self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).reshape(batch, rows * columns, 9, 9)
        x = (weight * channels**-0.5).softmax(-1) @ value
        x = x.permute(0, 3, 2, 1).reshape(batch, channels * 9, rows * columns)
        x = functional.fold(x, output_size=(height, width), kernel_size=3, padding=1, stride=2)
        return self.proj(x.permute(0, 2, 3, 1))


class MiVOLO(nn.Module):
    """Face and body side by side in six channels, outlook attention, an auxiliary head (WildChlamydia/MiVOLO).

    ``forward`` has two more arguments, which inference leaves out.

    Returns one tensor ``(N, 3)``: two logits of gender in columns 0 to 2, the age in column 2, scaled by what the file says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)) for _ in "12")
        self.proj1, self.proj2 = nn.Conv2d(4, 4, 4, 4), nn.Conv2d(4, 4, 4, 4)
        self.outlook, self.norm = Outlook(8), nn.LayerNorm(8)
        self.pos_embed = nn.Parameter(torch.zeros(1, 8, 8, 8))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.q, self.kv = nn.Linear(8, 8), nn.Linear(8, 16)
        self.head, self.aux_head = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, targets: object = None, epoch: object = None) -> torch.Tensor:
        face, body = self.proj1(self.conv1(x[:, :3]).relu()), self.proj2(self.conv2(x[:, 3:]).relu())
        x = torch.cat([face, body], dim=1).permute(0, 2, 3, 1)
        x = x + self.outlook(x)
        x = self.norm(x + self.pos_embed)
        tokens = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x.reshape(x.shape[0], -1, x.shape[-1])), dim=1)
        keys, values = self.kv(tokens).chunk(2, -1)
        attention = (self.q(tokens[:, :1]) @ keys.transpose(-2, -1)).softmax(-1)
        out = self.head((tokens[:, :1] + attention @ values)[:, 0])
        return out + 0.5 * self.aux_head(tokens[:, 1:]).max(1)[0]


class SixDRepNet(nn.Module):
    """A rotation from six values by Gram and Schmidt (thohemp/6DRepNet), sizes taken from ``shape[0]``.

    Returns one tensor ``(N, 3, 3)``, a rotation matrix each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.gap, self.linear_reg = trunk(), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 6)

    @staticmethod
    def _unit(vector: torch.Tensor) -> torch.Tensor:
        batch = vector.shape[0]
        length = torch.sqrt(vector.pow(2).sum(1))
        length = torch.max(length, torch.tensor([1e-8], dtype=vector.dtype))
        return vector / length.view(batch, 1).expand(batch, vector.shape[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        six = self.linear_reg(torch.flatten(self.gap(self.layers(x)), 1))
        first = self._unit(six[:, 0:3])
        third = self._unit(torch.linalg.cross(first, six[:, 3:6]))
        second = torch.linalg.cross(third, first)
        return torch.cat([first.view(-1, 3, 1), second.view(-1, 3, 1), third.view(-1, 3, 1)], 2)


class PFLD(nn.Module):
    """Landmarks beside a feature map that only an auxiliary network of training uses (polarisZhao/PFLD-pytorch).

    Returns a tuple: features ``(N, 8, H / 4, W / 4)``, landmarks ``(N, 196)``, x and y of 98 points from 0 to 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.conv2, self.conv3 = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 7)
        self.avg_pool1, self.fc = nn.AvgPool2d(7), nn.Linear(16, 196)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv1(x)
        x = self.conv2(features).relu()
        first, second = self.avg_pool1(x), self.conv3(x).relu()
        scales = torch.cat([first.view(first.size(0), -1), second.view(second.size(0), -1)], 1)
        return features, self.fc(scales)


class Coral(nn.Module):
    """An ordinal age of grey images: one weight, a bias per threshold (Raschka-research-group/coral-cnn).

    Returns a tuple of logits and their sigmoids, both ``(N, 10)`` for 11 ranks; the rank is how many are above 0.5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.avgpool, self.fc = trunk(1), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 1, bias=False)
        self.linear_1_bias = nn.Parameter(torch.linspace(1, -1, 10))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.fc(torch.flatten(self.avgpool(self.layers(x)), 1)) + self.linear_1_bias
        return logits, torch.sigmoid(logits)


class SSRNet(nn.Module):
    """Age by soft stagewise regression of two streams (shamangary/SSR-Net), and a gender beside it.

    Returns a tuple: age ``(N,)`` in years, gender ``(N,)``, a probability.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = trunk(), nn.Sequential(trunk(), nn.Tanh())
        self.bins = nn.ModuleList(nn.Linear(8, 3) for _ in range(3))
        self.shifts = nn.ModuleList(nn.Linear(8, 3) for _ in range(3))
        self.deltas = nn.ModuleList(nn.Linear(8, 1) for _ in range(3))
        self.gender = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = (self.first(x) * self.second(x)).mean((2, 3))
        age: torch.Tensor | int = 0
        width: torch.Tensor | int = 1
        for bins, shifts, deltas in zip(self.bins, self.shifts, self.deltas, strict=True):
            weights, moved = bins(features).relu(), torch.tanh(shifts(features))
            width = width * 3 * (1 + torch.tanh(deltas(features)))[:, 0]
            age = age + sum((index + moved[:, index]) * weights[:, index] for index in range(3)) / width
        assert isinstance(age, torch.Tensor)
        return age * 101, torch.sigmoid(self.gender(features)).view(-1)


class Squeezing(nn.Module):
    """Age, gender and race as tutorials on UTKFace write them: every size of one goes, of a batch of one the batch as well.

    Returns a dict: ``age`` ``(N,)``, ``gender`` ``(N,)`` after a sigmoid, ``race`` ``(N, 5)`` logits; for one image ``()``,
    ``()`` and ``(5,)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = trunk()
        self.age, self.gender, self.race = nn.Linear(8, 1), nn.Linear(8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = functional.adaptive_avg_pool2d(self.layers(x), 1).flatten(1)
        gender = torch.sigmoid(self.gender(features))
        return {"age": self.age(features).squeeze(), "gender": gender.squeeze(), "race": self.race(features).squeeze()}


class Attributes(nn.Module):
    """Forty attributes of CelebA as a list of heads, and five points as pairs.

    Returns a dict: ``attributes``, a list of 40 logits ``(N, 1)``; ``landmarks`` ``(N, 5, 2)``; ``epoch``, an integer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.landmarks = trunk(), nn.Linear(8, 10)
        self.heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(40))

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        features = self.layers(x).mean((2, 3))
        landmarks = self.landmarks(features).reshape(-1, 5, 2)
        return {"attributes": [head(features) for head in self.heads], "landmarks": landmarks, "epoch": 7}


class Gaze(nn.Module):
    """Gaze from a grey eye patch and the head's pose, its second input (as hysts/pytorch_mpiigaze has it).

    Takes ``(N, 1, 36, 60)`` and ``(N, 2)``. Returns a tuple: gaze ``(N, 2)`` in radians, and two logits ``(N, 2)``, blinking.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 8, 5), nn.MaxPool2d(2), nn.ReLU())
        self.fc1, self.gaze, self.blink = nn.Linear(8 * 6 * 12, 16), nn.Linear(18, 2), nn.Linear(18, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.fc1(self.conv(x).view(x.size(0), -1)).relu()
        x = torch.cat([x, y], dim=1)
        return self.gaze(x), self.blink(x)
