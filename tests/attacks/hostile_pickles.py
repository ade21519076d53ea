"""Hostile pickles and checkpoints: each would make a folder if any of it ran. None may run, and each must end with a message."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import MtlError

MUST_BE_ZERO = ("pickles_run", "unclear_errors")
FULL = 300
Make = Callable[[Path], bytes]


class Calls:
    """What calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def callers(trace: Path) -> dict[str, object]:
    """Return objects that make a folder when they are unpickled, by name."""
    code = f"__import__('os').mkdir({str(trace)!r})"
    return {
        "mkdir": Calls(os.mkdir, str(trace)),
        "system": Calls(os.system, f"mkdir {trace}"),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "getattr": Calls(getattr, Calls(__import__, "os"), "mkdir"),
        "map": Calls(list, Calls(map, os.mkdir, [str(trace)])),
        "rebuild": Calls(torch._tensor._rebuild_from_type_v2, os.mkdir, torch.Tensor, (str(trace),), {}),
        "type": Calls(
            torch._tensor._rebuild_from_type_v2, torch._utils._rebuild_parameter, os.mkdir, (str(trace),), {}
        ),
        "wrapped": Calls(
            torch._utils._rebuild_parameter_with_state, Calls(os.mkdir, str(trace)), True, OrderedDict(), {}
        ),
        "load": Calls(torch.load, io.BytesIO(pickle.dumps(Calls(os.mkdir, str(trace))))),
        "storage": Calls(torch.UntypedStorage.from_file, str(trace), True, 64),
        "library": Calls(torch.ops.load_library, str(trace)),
    }


def holders(value: object) -> dict[str, object]:
    """Return checkpoints that hold a value at different places, by name."""
    weights = {"net.conv1.weight": torch.zeros(4, 3, 7, 7), "net.fc1.final.weight": torch.zeros(1, 4)}
    return {
        "alone": value,
        "beside": {"state_dict": weights, "epoch": value},
        "tensor": {"state_dict": weights | {"net.fc2.final.weight": value}},
        "key": {"state_dict": weights, "keys": [(value, value)]},
        "ordered": OrderedDict(weights, extra=value),
    }


def written(value: object) -> dict[str, Make]:
    """Return ways of writing a value into a file, by name."""

    def zipped(protocol: int) -> Make:
        def make(_: Path) -> bytes:
            made = io.BytesIO()
            torch.save(value, made, pickle_protocol=protocol)
            return made.getvalue()

        return make

    def legacy(_: Path) -> bytes:
        made = io.BytesIO()
        torch.save(value, made, _use_new_zipfile_serialization=False)
        return made.getvalue()

    return {f"zip {number}": zipped(number) for number in (2, 3, 4, 5)} | {"legacy": legacy}


def raw(trace: Path) -> dict[str, bytes]:
    """Return archives whose pickle is written by hand: opcodes that ``torch.save`` never writes."""
    path = str(trace).encode()
    text = b"X" + len(path).to_bytes(4, "little") + path
    pickles = {
        "inst": b"(" + b"S'" + path + b"'\n" + b"ios\nmkdir\n.",
        "obj": b"(cos\nmkdir\n" + text + b"o.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + text + b"\x85R.",
        "extension": b"\x80\x02\x82\x01" + text + b"\x85R.",
        "persistent": b"\x80\x02" + text + b"Q.",
        "persistent tuple": b"\x80\x02X\x07\x00\x00\x00storagecos\nmkdir\n" + text + b"\x86" + b"Q.",
        "build": b"\x80\x02ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00__class__cos\nmkdir\nsb.",
        "set item of a list": b"\x80\x02]K\x00" + text + b"s.",
        "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "name with a dot": b"\x80\x02ctorch.serialization\nos.mkdir\n" + text + b"\x85R.",
        "allowed as text": b"\x80\x02ctorch\nstorage.os.mkdir\n" + text + b"\x85R.",
        "size": b"\x80\x02ctorch\nSize\n(K\x01cos\nmkdir\nt\x85R.",
        "getattr of allowed": b"\x80\x02c__builtin__\ngetattr\nctorch\nTensor\nX\x09\x00\x00\x00from_file\x86R.",
        "scalar of objects": b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x01\x00\x00\x00O\x85R"
        + _bytes(pickle.dumps(Calls(os.mkdir, str(trace)), 2)) + b"\x86R.",
        "array of calls": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncos\nmkdir\n" + text + b"\x86R.",
        "namespace of another class": b"\x80\x02cargparse\nNamespace\n)\x81}X\x09\x00\x00\x00__class__cos\nmkdir\nsb.",
        "call of getattr": b"\x80\x02c__builtin__\ngetattr\nctorch\nUntypedStorage\nX\x09\x00\x00\x00from_file\x86R"
        + text + b"\x88K\x40\x87R.",
        "hidden methods": b"\x80\x02ccollections\nOrderedDict\n)RX\x01\x00\x00\x00wK\x01s"
        + b"}X\x05\x00\x00\x00itemsK\x01sX\x03\x00\x00\x00getK\x01sX\x04\x00\x00\x00keysK\x01sb.",
        "nothing": b"",
        "memo": b"\x80\x02h\xff.",
    }  # fmt: skip
    found = {f"raw {name}": _archive(content) for name, content in pickles.items()}
    found |= {f"plain {name}": content for name, content in pickles.items()}
    header = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    return found | {f"legacy {name}": header + content for name, content in pickles.items()}


def _bytes(content: bytes) -> bytes:
    text = content.decode("latin1").encode()
    return b"c_codecs\nencode\nX" + len(text).to_bytes(4, "little") + text + b"X\x06\x00\x00\x00latin1\x86R"


def _archive(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return made.getvalue()


def attacks(trace: Path) -> dict[str, bytes]:
    """Return all hostile files, by name."""
    found = raw(trace)
    for call, value in callers(trace).items():
        for place, checkpoint in holders(value).items():
            for way, make in written(checkpoint).items():
                with suppress(TypeError, pickle.PicklingError):  # a value that this protocol cannot write
                    found[f"{call}, {place}, {way}"] = make(trace)
    return found


def attempt(path: Path) -> str:
    """Load a file as one that is not trusted; return ``refused``, ``loaded`` or ``unclear``."""
    try:
        load_checkpoint(path, model="torchvision.models:resnet18")
    except MtlError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - counted
        return f"unclear: {type(error).__name__}: {error}"
    return "loaded"


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Attack with a share of the full number of pickles, and return the figures."""
    trace, path = folder / "trace", folder / "model.pt"
    found = attacks(trace)
    figures = {"pickles": 0, "refused": 0, "loaded": 0, **dict.fromkeys(MUST_BE_ZERO, 0)}
    for name in random.Random(seed).sample(sorted(found), min(max(1, round(scale * FULL)), len(found))):
        path.write_bytes(found[name])
        outcome = attempt(path)
        figures["pickles"] += 1
        if trace.exists():
            trace.rmdir() if trace.is_dir() else trace.unlink()
            figures["pickles_run"] += 1
            print(f"ran: {name}")
        if outcome in figures:
            figures[outcome] += 1
        else:
            figures["unclear_errors"] += 1
            print(f"{outcome}: {name}")
    return figures
