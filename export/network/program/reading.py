"""``torch.export`` programs (``.pt2``): reading them without running anything that could be hidden in one.

``torch.export.load`` is not a safe loader: it unpickles some tensors and constants, loads native libraries, evaluates
size expressions and guards as Python, writes names into generated code, and calls any operator. Unless the user trusts the
file, torch never gets the file itself, but an archive that was rewritten from what
:mod:`mtl_deploy.export.network.program.archive` and :mod:`mtl_deploy.export.network.program.schema` know to be harmless.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch

from mtl_deploy.export.graph.causes import named_line
from mtl_deploy.export.network.weights.state_dict import check_finite
from mtl_deploy.runtime.errors import CheckpointError

from .archive import checked_archive
from .code import wanted_global
from .fields import MalformedError, RefusedError, UnusableError

_TRAINING_FLAGS = {  # the position of the argument that means training (aten/src/ATen/native/native_functions.yaml)
    "aten.batch_norm.default": 5,
    "aten._native_batch_norm_legit.default": 5,
    "aten._native_batch_norm_legit_functional.default": 5,
    "aten.dropout.default": 2,
    "aten.native_dropout.default": 2,
}


def load_program(file: Path, *, trust: bool) -> torch.export.ExportedProgram:
    """Read a program that ``torch.export.save`` wrote.

    Args:
        file: the archive.
        trust: let the file run code, including pickles and native libraries in it.

    Raises:
        CheckpointError: the file is damaged, asks for code, comes from an incompatible PyTorch, or its program is in
            training mode, not in float32 on the CPU, or has NaN or infinite weights.
    """
    try:
        with file.open("rb") as stream:
            program = torch.export.load(stream if trust else _checked(file, stream))
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or foreign program fails anywhere in torch's reader
        raise CheckpointError(
            f"{file}: torch {torch.__version__} cannot read this program ({named_line(error, 160)}); export and save it again "
            "with this version of torch"
        ) from error
    try:
        _check(program)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return program


def input_shape(program: torch.export.ExportedProgram) -> tuple[int | None, int | None, int | None, int | None]:
    """Return the shape ``(N, C, H, W)`` of a program's only input; None stands for a free dimension.

    Raises:
        CheckpointError: the program takes several inputs, or something other than a batch of images.
    """
    names = program.graph_signature.user_inputs
    shapes = [
        tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names and hasattr(node.meta.get("val"), "shape")
    ]
    if len(names) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        raise CheckpointError(
            f"the program takes {len(names)} inputs ({', '.join(map(str, names))}) of shapes {shapes}; "
            "one batch of images (N, C, H, W) is supported"
        )
    if program.example_inputs is not None and program.example_inputs[1]:
        raise CheckpointError(_keyword(names[0]))
    batch, channels, height, width = shapes[0]
    return batch, channels, height, width


def _checked(file: Path, stream: BinaryIO) -> BinaryIO:
    try:
        archive, keywords = checked_archive(stream, _check_pickle)
    except RefusedError as error:
        raise CheckpointError(
            f"{file}: reading this program would run code in it ({error}), or do something that no network needs; nothing was run. "
            "Export it again without that, or pass --trust-pickle if you trust where the file comes from"
        ) from error
    except MalformedError as error:
        raise CheckpointError(
            f"{file}: a damaged torch.export program, or one from another version: torch {torch.__version__} cannot read this "
            f"program ({error}); export and save it again with this version of torch"
        ) from error
    except UnusableError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if keywords:
        raise CheckpointError(f"{file}: {_keyword(keywords[0])}")
    return archive


def _keyword(name: str) -> str:
    return (
        f"the program takes {name!r} by keyword; export it with the images by position: "
        "torch.export.export(network, (images,))"
    )


def _check_pickle(content: bytes) -> None:
    """Refuse sample inputs or pickled weights that hold more than tensors in plain containers. They are not used."""
    if not content:
        return
    stream = io.BytesIO(content)
    try:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > len(content):
                    raise RefusedError("a pickle in it is compressed, which torch does not do")
        stream.seek(0)
        torch.load(stream, map_location="cpu", weights_only=True)
    except RefusedError:
        raise
    except pickle.UnpicklingError as error:
        raise RefusedError(f"a pickle in it asks for {wanted_global(error) or 'more than tensors'}") from error
    except Exception as error:  # a damaged pickle fails anywhere in torch's reader
        raise MalformedError(f"a pickle in it: {named_line(error, 160)}") from error


def _check(program: torch.export.ExportedProgram) -> None:
    tensors = {
        name: value
        for name, value in {**program.state_dict, **program.constants}.items()
        if isinstance(value, torch.Tensor)
    }
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            raise CheckpointError(f"tensor {name!r} is on {tensor.device}; export the program after network.cpu()")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise CheckpointError(
                f"tensor {name!r} is {str(tensor.dtype).removeprefix('torch.')}; export the program after "
                "network.float(): lower precisions are made, and verified, later"
            )
    for node in program.graph.nodes:
        place = _TRAINING_FLAGS.get(str(node.target))
        if place is not None and len(node.args) > place and node.args[place] is True:
            raise CheckpointError(
                f"the program was exported in training mode ({node.name}); call network.eval() before "
                "torch.export.export"
            )
    check_finite(tensors)
