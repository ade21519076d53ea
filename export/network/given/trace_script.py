"""From TorchScript to a raw graph, by the exporter of torch.onnx that reads TorchScript."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn

from mtl_deploy.export.graph.trace import TracedGraph
from mtl_deploy.export.network.network import Network
from mtl_deploy.export.network.outputs import Key, flatten_outputs
from mtl_deploy.runtime.errors import TraceError

from .entry import Entry, find_entry
from .take import take
from .tidy import prepare

_OPSET = 17
_WHERE = "the script's graph"


class _Rows(nn.Module):
    """Returns the outputs that tasks ask for, as a flat tuple: the exporter writes lists and dicts as sequences."""

    def __init__(self, script: nn.Module, keys: tuple[Key, ...]) -> None:
        super().__init__()
        self.script, self.keys = script, keys

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = flatten_outputs(self.script(images), batch=len(images))
        return tuple(outputs[key] for key in self.keys)


@dataclass
class _Exported:
    """A script's graph with what the script itself computes."""

    model: onnx.ModelProto
    entry: Entry
    batch: int | None
    where: str
    answers: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]

    def __call__(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        step = self.batch or len(images)
        parts = [self.answers(images[start : start + step]) for start in range(0, len(images), step)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def trace_script(network: Network, *, opset: int | None = None, threads: int | None = None) -> TracedGraph:
    """Export a trace or script with ``torch.onnx.export(dynamo=False)``; its batch is free where that changes no answer.

    Args:
        network: whose file held TorchScript.
        opset: the one wanted in the end.
        threads: for ONNX Runtime; None: one per core.

    Raises:
        TraceError: PyTorch cannot export it.
    """
    preprocessing = network.preprocessing
    names = tuple(task.name for task in network.tasks)
    keys = tuple(task.output if task.output is not None else task.name for task in network.tasks)
    content, batch = _export(_Rows(network.loaded.network, keys).eval(), network)
    model = onnx.load_from_string(content)
    prepare(model, _WHERE)
    outputs = [value.name for value in model.graph.output]
    renamed = dict(zip(names, outputs, strict=True))

    def answers(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {renamed[name]: value for name, value in network(images).items()}

    given = _Exported(model, find_entry(model, _WHERE), batch, _WHERE, answers)
    return take(given, outputs, preprocessing, opset=opset, threads=threads)


def _export(rows: nn.Module, network: Network) -> tuple[bytes, int | None]:
    """Return the exporter's file, and the only batch that the script takes; None if it takes any."""
    preprocessing = network.preprocessing
    size = preprocessing.height, preprocessing.width
    sides = {2: "height", 3: "width"} if preprocessing.multiple else {}
    batch: int | None = None
    try:
        network(torch.zeros(2, 3, *size))
    except TraceError:
        batch = 1
    images = torch.zeros(batch or 2, 3, *size)
    file: Any = io.BytesIO()
    settings: dict[str, Any] = {
        "dynamic_axes": {"given": {**({} if batch else {0: "batch"}), **sides}},
        "input_names": ["given"],
    }
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")  # torch deprecates both TorchScript and this exporter
            flat = torch.jit.trace(rows, images, check_trace=False)  # type: ignore[no-untyped-call]
            torch.onnx.export(flat, (images,), file, dynamo=False, opset_version=_OPSET, **settings)
    except Exception as error:  # the script's own code runs here, and the exporter raises errors of many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
        raise TraceError(
            f"torch.onnx cannot export this script ({reason}); start from the network behind it: its state_dict with --model "
            "package.module:factory, or torch.export.save"
        ) from error
    return file.getvalue(), batch
