"""Rows of a single level end in a column of strides that are all equal, which is no sign of an untrained head."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from mtl_deploy.export.cli import main

ONE_LEVEL = """
import torch

class OneLevel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.boxes, self.scores, self.age = torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(8, 2, 1), torch.nn.Linear(8, 1)

    def forward(self, images):
        found = self.backbone(images)
        return torch.nn.functional.softplus(self.boxes(found)), self.scores(found), self.age(found.mean((2, 3)))

def dead():
    network = OneLevel()
    torch.nn.init.zeros_(network.boxes.weight)
    return network
"""
ONE_LEVEL_TASKS = """
[[task]]
name = "found"
kind = "detection"
output = [0, 1]
parts = ["boxes", "scores"]
format = "ltrb"
strides = [8]
scores = "sigmoid"
labels = ["car", "bus"]

[[task]]
name = "age"
kind = "regression"
output = 2
"""


@pytest.mark.parametrize("form", [["--nms", "graph"], ["--outputs", "logits"]])
def test_the_stride_of_a_single_level_is_not_taken_for_an_untrained_head(
    form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"one_level_{form[1]}"
    (tmp_path / f"{name}.py").write_text(ONE_LEVEL)
    (tmp_path / "tasks.toml").write_text(ONE_LEVEL_TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = importlib.import_module(name)
    said = {}
    for factory in ("OneLevel", "dead"):
        torch.save(getattr(made, factory)().state_dict(), f"{factory}.pt")
        common = [
            "--tasks",
            "tasks.toml",
            "--image-size",
            "64",
            "--precision",
            "fp32",
            "--engine",
            "none",
            "--no-separate",
        ]
        assert main([f"{factory}.pt", "--model", f"{name}:{factory}", *common, *form]) == 0
        said[factory] = "task 'found' is constant" in capsys.readouterr().out
    assert said == {"OneLevel": False, "dead": True}
