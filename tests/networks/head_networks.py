"""A small network with heads of values: landmarks and a box of one face, a rotation, an embedding."""

from __future__ import annotations

import torch
from torch import nn

POINTS = ("left_eye", "right_eye", "nose")
SIDE = 32

TASKS = """\
[[task]]
name = "landmarks"
kind = "vector"
names = ["left_eye", "right_eye", "nose"]
order = "pairs"
frame = "unit"
scale = 0.25
offset = 0.5
normaliser = ["left_eye", "right_eye"]
[[task]]
name = "box"
kind = "vector"
names = ["left", "top", "right", "bottom"]
frame = "input"
scales = [8, 8, 8, 8]
offsets = [4, 4, 28, 28]
[[task]]
name = "gaze"
kind = "vector"
names = ["yaw", "distance"]
units = ["degrees", "metres"]
scales = [30, 1]
[[task]]
name = "pose"
kind = "rotation"
[[task]]
name = "identity"
kind = "embedding"
unit_length = true
"""


class Heads(nn.Module):
    """A trunk of two convolutions, and five heads.

    Returns a dict: landmarks ``(N, 3, 2)``, box ``(N, 4)``, gaze ``(N, 2)``, pose ``(N, 6)``, identity ``(N, 16, 1, 1)``.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.landmarks, self.box, self.gaze, self.pose, self.identity = (
            nn.Linear(16 * 64, size) for size in (6, 4, 2, 6, 16)
        )

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs for images ``(N, 3, 32, 32)``."""
        found = self.features(image).flatten(1)
        return {
            "landmarks": self.landmarks(found).reshape(-1, 3, 2),
            "box": self.box(found),
            "gaze": self.gaze(found),
            "pose": self.pose(found),
            "identity": self.identity(found)[..., None, None],
        }
