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

from mtl_deploy.export.forward.running import run
from mtl_deploy.export.graph.causes import named_line
from mtl_deploy.export.graph.trace import TracedGraph
from mtl_deploy.export.network.network import Network
from mtl_deploy.runtime.errors import TraceError

from .entry import Entry, find_entry
from .take import take
from .tidy import prepare

_OPSET = 17
_WHERE = "the script's graph"


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
        whole = torch.cat([images, images[-1:].expand(-len(images) % step, -1, -1, -1)])
        parts = [self.answers(whole[start : start + step]) for start in range(0, len(whole), step)]
        return {name: torch.cat([part[name] for part in parts])[: len(images)] for name in parts[0]}


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
    content = _export(network)
    model = onnx.load_from_string(content)
    prepare(model, _WHERE)
    outputs = [value.name for value in model.graph.output]

    def answers(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return dict(zip(outputs, run(network.selected, images), strict=True))

    given = _Exported(model, find_entry(model, _WHERE), network.batch, _WHERE, answers)
    return take(given, outputs, preprocessing, opset=opset, threads=threads)


def _export(network: Network) -> bytes:
    """Return the exporter's file."""
    preprocessing, batch = network.preprocessing, network.batch
    sides = {2: "height", 3: "width"} if preprocessing.multiple else {}
    images = torch.zeros(batch or 2, preprocessing.channel_count, preprocessing.height, preprocessing.width)
    file: Any = io.BytesIO()
    settings: dict[str, Any] = {
        "dynamic_axes": {"given": {**({} if batch else {0: "batch"}), **sides}},
        "input_names": ["given"],
    }
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")  # torch deprecates both TorchScript and this exporter
            flat = torch.jit.trace(network.selected.eval(), images, check_trace=False)  # type: ignore[no-untyped-call]
            torch.onnx.export(flat, (images,), file, dynamo=False, opset_version=_OPSET, **settings)
    except Exception as error:  # the script's own code runs here, and the exporter raises errors of many kinds
        raise TraceError(
            f"torch.onnx cannot export this script ({named_line(error, 300)}); start from the network behind it: its state_dict "
            "with --model package.module:factory, or torch.export.save"
        ) from error
    content: bytes = file.getvalue()
    return content
