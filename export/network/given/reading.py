"""Reading somebody else's ONNX file: bounded, with weights that lie in files beside it, and nothing outside its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import numpy_helper

from mtl_deploy.runtime.bundle.manifest import digest
from mtl_deploy.runtime.errors import BundleError, CheckpointError
from mtl_deploy.runtime.files.reading import open_file, read_bytes, shown
from mtl_deploy.runtime.onnx_format.check import MOST_BYTES, check_graph


@dataclass(frozen=True)
class GivenFile:
    """An ONNX file with all its weights.

    Attributes:
        model: holds every tensor itself.
        sha256: of the file; where files beside it hold weights, of its content followed by their SHA-256 in hexadecimal, in the
            order of their names.
        beside: the names of those files.
    """

    model: onnx.ModelProto
    sha256: str
    beside: tuple[str, ...]


def read_onnx(file: Path) -> GivenFile:
    """Read an ONNX file; weights outside it must lie in its own folder or below, and are 2 GiB at most together.

    Raises:
        CheckpointError: it is damaged, too large, names a file outside its folder, or a tensor does not fit the file that it is
            in, or its own shape.
    """
    try:
        content = read_bytes(file, MOST_BYTES)
        check_graph(content, str(file), beside=True)
        model = onnx.ModelProto.FromString(content)
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}; check the path") from error
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    except (DecodeError, RecursionError) as error:
        raise CheckpointError(f"{file}: not an ONNX file, or damaged; copy or download it again") from error
    if not _is_text(model):
        raise CheckpointError(f"{file}: a name in it is not UTF-8, so it is damaged; copy or download it again")
    beside = _take_in(model, file, len(content))
    _require_whole(model, str(file))
    parts = [digest(file.parent / name) for name in beside]
    whole = hashlib.sha256(content)
    for part in parts:
        whole.update(part.encode())
    return GivenFile(model, whole.hexdigest(), beside)


def messages(message: Message) -> Iterator[Any]:
    """Yield a message and every message in it, in order, parents first: graphs in nodes, functions, tensors in attributes."""
    rest = [message]
    while rest:
        found = rest.pop()
        yield found
        inner: list[Message] = []
        for field, value in found.ListFields():
            if field.type == field.TYPE_MESSAGE:
                inner.extend([value] if isinstance(value, Message) else value)
        rest.extend(reversed(inner))


def _is_text(model: onnx.ModelProto) -> bool:
    """Return whether every name is one: protobuf hands over what is not UTF-8 as bytes."""
    for found in messages(model):
        for field, value in found.ListFields():
            if field.type == field.TYPE_STRING and any(
                isinstance(each, bytes) for each in ([value] if isinstance(value, (str, bytes)) else value)
            ):
                return False
    return True


def _require_whole(model: onnx.ModelProto, file: str) -> None:
    """Check that every tensor holds as much as its shape and type say: whoever reads one later need not fear that it does not."""
    node = ""
    for found in messages(model):
        if isinstance(found, onnx.NodeProto):
            node = found.name or found.op_type
        if isinstance(found, onnx.TensorProto) and not _is_whole(found):
            named = f"tensor {shown(found.name)}" if found.name else f"the tensor in node {shown(node)}"
            kinds = onnx.TensorProto.DataType
            kind = kinds.Name(found.data_type) if found.data_type in kinds.values() else f"type {found.data_type}"
            raise CheckpointError(
                f"{file}: {named} does not hold what it states, {kind} of shape {list(found.dims)}; copy or download the file "
                "again, or export it again"
            )


def _is_whole(tensor: onnx.TensorProto) -> bool:
    if any(side < 0 for side in tensor.dims):
        return False
    try:
        return numpy_helper.to_array(tensor).shape == tuple(tensor.dims)
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError):
        return False


def _take_in(model: onnx.ModelProto, file: Path, held: int) -> tuple[str, ...]:
    """Copy tensors from the files that hold them into the model, in place; return the names of these files."""
    names: dict[str, None] = {}
    for tensor in messages(model):
        if not isinstance(tensor, onnx.TensorProto) or not _is_outside(tensor):
            continue
        where = f"{file}: tensor {shown(tensor.name)}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        place = _inside(file.parent, location, where)
        size = _size(tensor, where)
        try:
            start, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
        except ValueError as error:
            raise CheckpointError(
                f"{where}: its place in {shown(location)} is not a number; export it again"
            ) from error
        if start < 0 or length != size:
            raise CheckpointError(
                f"{where}: {size} bytes, but {length} from {start} of {shown(location)}; export it again"
            )
        held += size
        if held > MOST_BYTES:
            raise CheckpointError(
                f"{file}: with its weights larger than {MOST_BYTES >> 30} GiB, which one ONNX file cannot hold"
            )
        tensor.raw_data = _read_part(place, start, size, where, location)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        names[location] = None
    return tuple(sorted(names))


def _is_outside(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _inside(folder: Path, location: str, where: str) -> Path:
    """Return the file that a location names, which must lie in the folder."""
    path = PurePosixPath(location)
    plain = (
        bool(location) and not path.is_absolute() and ".." not in path.parts and not set(location) & {"\\", "\0", ":"}
    )
    place = folder / path
    if not plain or not place.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"{where} lies in {shown(location)}, outside the graph's folder, and was not read; put the weights beside the graph"
        )
    return place


def _size(tensor: onnx.TensorProto, where: str) -> int:
    try:
        bits = int(ir.DataType(tensor.data_type).bitwidth)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: of a type that cannot lie in another file; export it again") from error
    if any(side < 0 for side in tensor.dims):
        raise CheckpointError(f"{where}: of shape {list(tensor.dims)}; export it again")
    return -(-int(prod(tensor.dims)) * bits // 8)


def _read_part(place: Path, start: int, size: int, where: str, location: str) -> bytes:
    try:
        with open_file(place) as stream:
            stream.seek(0, 2)
            whole = stream.tell()
            if start + size <= whole:
                stream.seek(start)
                return stream.read(size)
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "cannot be read"
        raise CheckpointError(
            f"{where} lies in {shown(location)} beside the graph: {reason}; copy that file next to the graph too"
        ) from error
    raise CheckpointError(f"{where}: {shown(location)} has {whole} bytes and ends before it; copy that file again")
