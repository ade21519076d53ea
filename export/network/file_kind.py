"""What kind of file something is, from its first bytes and, in a zip archive, its entries; nothing in it is run."""

from __future__ import annotations

import zipfile
from enum import Enum
from pathlib import Path

from mtl_deploy.runtime.errors import CheckpointError
from mtl_deploy.runtime.files.reading import open_file

_ZIP = b"PK\x03\x04"
_LEGACY_TORCH = (
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's magic number, pickled (torch/serialization.py)
)
_PICKLE = b"\x80"
_WEIGHTS = "save the weights with torch.save(network.state_dict(), 'model.pt')"

_STRANGERS = (  # first bytes, what that is, what to do
    (b"\xff\xd8\xff", "a JPEG image", _WEIGHTS),
    (b"\x89PNG", "a PNG image", _WEIGHTS),
    (b"ftrt", "a TensorRT engine", "give the checkpoint that it was built from"),
    (b"ptrt", "a TensorRT engine", "give the checkpoint that it was built from"),
    (b"\x89HDF", "an HDF5 file (Keras?)", "only PyTorch networks can be exported"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and give the checkpoint inside"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file with: git lfs pull"),
    (b"<!DOCTYPE", "an HTML page", "the download went wrong: fetch the file itself"),
    (b"<html", "an HTML page", "the download went wrong: fetch the file itself"),
)


class FileKind(Enum):
    """A file that may hold a network."""

    TORCH = "torch.save"
    LEGACY_TORCH = "torch.save before PyTorch 1.6"
    PROGRAM = "torch.export.save"
    SAFETENSORS = "safetensors"
    TORCHSCRIPT = "torch.jit.save"
    ONNX = "an ONNX graph"


def file_kind(file: Path) -> FileKind:
    """Return what kind of checkpoint a file is.

    Raises:
        CheckpointError: it cannot be read, is empty, truncated, or no checkpoint.
    """
    try:
        with open_file(file) as stream:
            head = stream.read(512)
    except IsADirectoryError as error:
        raise CheckpointError(f"{file}: a folder; give the checkpoint file inside it") from error
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}; check the path") from error
    if not head:
        raise CheckpointError(f"{file}: an empty file; save the checkpoint again")
    if head.startswith(_ZIP):
        return _archive_kind(file)
    if head.startswith(_LEGACY_TORCH):
        return FileKind.LEGACY_TORCH
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:  # header length, then a JSON header
        return FileKind.SAFETENSORS
    if _is_onnx(file, head):
        return FileKind.ONNX
    raise _stranger(file, head)


def _archive_kind(file: Path) -> FileKind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            whole = sum(entry.file_size for entry in archive.infolist())
        size = file.stat().st_size
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{file}: the archive is truncated or damaged ({error}); copy or download it again, or save it again"
        ) from error
    entries = {name.partition("/")[2] for name in names}
    if "serialized_exported_program.json" in names or "serialized_exported_program.json" in entries:
        raise CheckpointError(
            f"{file}: a torch.export program as PyTorch 2.7 or older saved it; export and save it again"
        )
    if "archive_format" in entries:
        return FileKind.PROGRAM
    if "constants.pkl" in entries:
        return FileKind.TORCHSCRIPT
    if whole > size:  # torch.save compresses nothing; its reader would unpack any amount
        raise CheckpointError(
            f"{file}: a compressed archive ({size} bytes hold {whole}), which torch.save does not write; save it again"
        )
    if "data.pkl" in entries:
        return FileKind.TORCH
    raise CheckpointError(f"{file}: a zip archive, but not one that torch.save wrote; {_WEIGHTS}")


def _stranger(file: Path, head: bytes) -> CheckpointError:
    if file.suffix in (".engine", ".plan", ".trt"):
        return CheckpointError(f"{file}: a TensorRT engine; give the checkpoint that it was built from")
    for magic, what, remedy in _STRANGERS:
        if head.startswith(magic):
            return CheckpointError(f"{file}: {what}, not a checkpoint; {remedy}")
    if head.startswith(_PICKLE):
        return CheckpointError(f"{file}: a pickle that torch.save did not write; {_WEIGHTS}")
    if file.name.endswith(".index.json") or (head.lstrip().startswith(b"{") and b'"weight_map"' in head):
        return CheckpointError(
            f"{file}: an index of weights in several files (shards); put them together in one: torch.save({{name: tensor for file "
            "in files for name, tensor in torch.load(file).items()}, 'model.pt'), with safetensors.torch.load_file for .safetensors"
        )
    what = "a text file" if _is_text(head) else "of an unknown format"
    return CheckpointError(f"{file}: {what}, not a checkpoint; {_WEIGHTS}")


def _is_onnx(file: Path, head: bytes) -> bool:
    # ModelProto (onnx.proto) begins with ir_version (1), a small number; producer_name (2), graph (7) or opset_import (8)
    # follow
    looks_like_model = len(head) > 2 and head[0] == 0x08 and head[1] < 0x40 and head[2] in (0x12, 0x3A, 0x42)
    named = file.suffix == ".onnx" and not any(head.startswith(magic) for magic, _, _ in _STRANGERS)
    return named or looks_like_model


def _is_text(head: bytes) -> bool:
    return not any(byte < 9 or 13 < byte < 32 for byte in head)  # no control characters except white space
