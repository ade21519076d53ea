"""Loading TorchScript: it runs code of its own while it is read, so only a file that the user trusts is."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import torch

from mtl_deploy.export.graph.causes import named_line
from mtl_deploy.runtime.errors import CheckpointError


def load_script(file: Path, *, trust: bool) -> tuple[torch.nn.Module, str]:
    """Load a trace or script that ``torch.jit.save`` wrote, in eval mode, in float32, on the CPU.

    ``torch.jit.load`` compiles the archive's own source code and calls whatever its ``__setstate__`` methods say, with every
    operator that PyTorch has, among them those that read files.

    Args:
        file: its path.
        trust: whether the user trusts the file.

    Returns:
        The network, and a description for people.

    Raises:
        CheckpointError: it is not trusted, or cannot be loaded here.
    """
    if not trust:
        raise CheckpointError(
            f"{file}: a TorchScript archive (torch.jit.save), which runs code of its own while it is read; nothing was run. Pass "
            "--trust-pickle if you trust where the file comes from, or start from the network behind it: its state_dict with "
            "--model package.module:factory, torch.export.save, or torch.onnx.export"
        )
    with contextlib.suppress(ImportError):
        import torchvision  # noqa: F401 - registers the operators that its networks call
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates what it still reads
            with file.open("rb") as stream:  # torch opens no path that is not UTF-8
                script = torch.jit.load(stream, map_location="cpu").eval().float()  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged archive fails anywhere in the reader, or in its own code
        raise CheckpointError(
            f"{file}: torch.jit.load fails ({named_line(error, 200)}); save it again with a PyTorch no newer than this one, or "
            "start from the network behind it with --model package.module:factory"
        ) from error
    for parameter in script.parameters():
        parameter.requires_grad_(False)
    name = getattr(script, "original_name", "") or "network"
    return script, f"a TorchScript archive of {name}"
