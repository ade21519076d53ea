"""One small network in the files that people have: wrapped, profiled, averaged, tied, pickled, traced, prepared for quantization.

The network is ``small_networks:Shared`` where nothing else is said, its heads in the order age, gender, race.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_networks import Shared
from torch import nn
from wild_traps import ExtraState, Tied

State = dict[str, Any]


def network() -> nn.Module:
    """Return the network that the files hold, in eval mode."""
    return Shared().eval()


def wrapped(part: str) -> Callable[[Path], Path]:
    """Return a writer of names with a wrapper's part inside, as ``backbone._orig_mod.0.weight``."""

    def write(path: Path) -> Path:
        state = {
            name.replace("backbone.", f"backbone.{part}.", 1): value for name, value in network().state_dict().items()
        }
        torch.save(state, path)
        return path

    return write


def profiled(path: Path) -> Path:
    """Write what ``thop.profile`` leaves behind: two counters per module, in float64."""
    counted = network()
    for module in list(counted.modules()):
        module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
        module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    torch.save(counted.state_dict(), path)
    return path


def lightning(path: Path) -> Path:
    """Write a LightningModule: the network as ``model``, a weighted criterion, a metric's counter and a teacher beside it."""
    state = {f"model.{name}": value for name, value in network().state_dict().items()}
    teacher = {f"teacher.backbone.{place}": torch.zeros(2) for place in range(3)}
    others = {"criterion.weight": torch.ones(4), "accuracy.total": torch.tensor(7), **teacher}
    torch.save({"state_dict": {**others, **state}, "epoch": 3, "pytorch-lightning_version": "2.4.0"}, path)
    return path


def averaged(path: Path) -> Path:
    """Write weights and their moving average, whose values are 0.9 of the weights."""
    state = network().state_dict()
    ema = {name: value * 0.9 if value.is_floating_point() else value for name, value in state.items()}
    torch.save({"model": state, "ema": {"module": ema, "updates": 100}, "optimizer": {"state": {}}}, path)
    return path


def average_alone(path: Path) -> Path:
    """Write an ``AveragedModel``: ``module.`` before each name, and a count."""
    torch.save(torch.optim.swa_utils.AveragedModel(network()).state_dict(), path)
    return path


def tied(path: Path) -> Path:
    """Write tied layers with ``save_model``, which keeps one name of the two (the network is ``wild_traps:Tied``)."""
    from safetensors.torch import save_model

    save_model(Tied().eval(), str(path))
    return path


def extra(path: Path) -> Path:
    """Write a state dict with an entry that is no tensor (the network is ``wild_traps:ExtraState``)."""
    torch.save(ExtraState().state_dict(), path)
    return path


def whole(path: Path) -> Path:
    """Write a pickled network inside a checkpoint."""
    torch.save({"epoch": 3, "model": network()}, path)
    return path


def traced(path: Path) -> Path:
    """Write a TorchScript trace of one image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what it still reads
        torch.jit.trace(network(), torch.zeros(1, 3, 64, 64)).save(path)
    return path


def scripted(path: Path) -> Path:
    """Write a TorchScript script, of a plain network, since ``forward`` here has no types that it knows."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = Shared()
            self.backbone, self.age, self.gender = inner.backbone, inner.age, inner.gender

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.backbone(x)
            if features.shape[0] > 2:
                features = features * 1.0
            return self.age(features), self.gender(features)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Plain().eval()).save(path)
    return path


def qat(path: Path) -> Path:
    """Write a network that ``torch.ao``'s FX mode has prepared and trained: fake quantizers, BatchNorm inside convolutions."""
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        prepared: Any = prepare_qat_fx(Shared().train(), get_default_qat_qconfig_mapping("x86"), (images,))
        prepared(images)
    torch.save(prepared.eval().state_dict(), path)
    return path


def exported(path: Path, *, batch: int | None = None, opset: int = 18) -> Path:
    """Write somebody else's ONNX file: float NCHW in, outputs under their own names; ``batch`` fixes it."""
    images = torch.zeros(batch or 2, 3, 64, 64)
    free = {} if batch else {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            copy.deepcopy(network()), (images,), dynamo=True, opset_version=opset, verbose=False, **free
        )
    assert program is not None
    program.save(path)
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "compiled.pt": wrapped("_orig_mod"),
    "parallel_inside.pt": wrapped("module"),
    "checkpointed.pt": wrapped("_checkpoint_wrapped_module"),
    "both.pt": wrapped("_checkpoint_wrapped_module._orig_mod"),
    "profiled.pt": profiled,
    "lightning.ckpt": lightning,
    "averaged.pt": averaged,
    "average_alone.pt": average_alone,
    "tied.safetensors": tied,
    "extra.pt": extra,
    "whole.pt": whole,
    "traced.pt": traced,
    "scripted.pt": scripted,
    "qat.pt": qat,
    "model.onnx": exported,
}
