"""Seeded damage to files: bytes, JSON, TOML, CSV, ONNX and archives of arrays, with values that programs trip over."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

EXTREMES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 255, 65536, 10**12, 2**31, 2**63 - 1, 2**63, 10**400, -(10**12), 0.5, -0.0, 1e-320, 1e308,
    -1e308, float("nan"), float("inf"), float("-inf"), "", " ", "\0", "a\0b", "\ud800", "..", "../../etc/passwd", "/etc/passwd",
    "a\\b", "\x1b[31mred", "\u202egnp.exe", "line\nbreak", "x" * 5000, "nan", "1e999", "8.x", [], {}, [[]], [None], {"": None},
    [1, 2, 3], ["a", "a"],
)  # fmt: skip


def damaged_bytes(content: bytes, random: Random) -> bytes:
    """Return bytes that are flipped, cut, repeated, or overwritten with extreme integers, once or several times."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        place = random.randrange(len(data)) if data else 0
        if random.random() < 0.5:
            place = min(place, random.randrange(256))  # headers
        span = random.choice((1, 2, 4, 8, 64, 1024))
        kind = random.randrange(8)
        if not data:
            data += random.randbytes(8)
        elif kind == 0:
            data[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[place] = random.randrange(256)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + span]
        elif kind == 4:
            data[place:place] = data[place : place + span]
        elif kind == 5:
            data[place:place] = random.randbytes(span)
        elif kind == 6:
            value = random.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 1 << 24))
            data[place : place + 4] = value.to_bytes(4, random.choice(("little", "big")))
        else:
            data[place : place + span] = bytes([random.choice((0, 0xFF, 0x80))]) * span
    return bytes(data)


def damaged_json(content: bytes, random: Random) -> bytes:
    """Return a JSON document with values replaced, fields left out, renamed or swapped, or nested too deep."""
    document = json.loads(content)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        with contextlib.suppress(RecursionError):
            document = _edited(document, random)
    try:
        text = json.dumps(document)
    except RecursionError:  # damaged more than once
        return content
    if random.random() < 0.1:
        text = _nested(text, random)
    return text.encode("utf-8", "surrogatepass")


def _nested(text: str, random: Random) -> str:
    depth = random.choice((70, 900, 5000, 100_000))
    deep = random.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "9" * 5000))
    numbers = list(re.finditer(r"(?<=[ \[:])(\d+(\.\d+)?|null|true)(?=[,\]}])", text))
    if not numbers:
        return deep
    found = random.choice(numbers)
    return text[: found.start()] + deep + text[found.end() :]


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in a document; of long lists only the first and the last."""
    found = [path]
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*path, key))
    elif isinstance(document, list):
        chosen = range(len(document)) if len(document) < 8 else (0, 1, len(document) - 1)
        for position in chosen:
            found += places(document[position], (*path, position))
    return found


def _edited(document: Any, random: Random) -> Any:
    paths = [path for path in places(document) if path]
    if not paths:
        return _extreme(random)
    path = random.choice(paths)
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    kind = random.randrange(6)
    if kind == 0:
        del owner[path[-1]]
    elif kind == 1 and isinstance(owner, dict):
        owner[str(random.choice(EXTREMES))[:100]] = owner.pop(path[-1])
    elif kind == 2:
        value: Any = document
        for key in random.choice(paths):
            value = value[key] if not isinstance(value, (int, float, str, bool, type(None))) else value
        owner[path[-1]] = json.loads(json.dumps(value))
    elif kind == 3 and isinstance(owner[path[-1]], (int, float)) and not isinstance(owner[path[-1]], bool):
        owner[path[-1]] = owner[path[-1]] * random.choice((-1, 0, 2, 1000, 1e9, 0.5))
    elif kind == 4 and isinstance(owner, list):
        owner *= random.choice((2, 50))
    else:
        owner[path[-1]] = _extreme(random)
    return document


def _extreme(random: Random) -> Any:
    return copy.deepcopy(random.choice(EXTREMES))


_TOML = (
    "true", "-1", "0", "0.5", "9" * 5000, "1e999", "nan", "inf", "1979-05-27", "07:32:00", '""', '"a\\u0000b"', '"\\u001b[31m"',
    "[]", "{}", "[1, 2]", '["a", "a"]', "[" * 2000 + "]" * 2000, "{a = {b = 1}}", "9223372036854775808", "'x'",
    '"' + "y" * 5000 + '"', "1979-99-99",
)  # fmt: skip


def damaged_toml(content: bytes, random: Random) -> bytes:
    """Return a task file with other values, fields or tables."""
    lines = content.decode().splitlines()
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(lines))
        line = lines[place]
        kind = random.randrange(5)
        if "=" in line and kind < 3:
            lines[place] = line.partition("=")[0] + "= " + random.choice(_TOML)
        elif kind == 3:
            lines.insert(place, random.choice(lines))
        else:
            field = random.choice(
                ("stride", "labels", "scale", "size", "valid_range", "output", "upsample", "threshold", "unit")
            )
            lines.insert(place + 1, f"{field} = {random.choice(_TOML)}")
    return "\n".join(lines).encode()


_CELLS = (
    "",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e30",
    "-1",
    "0x10",
    "9" * 5000,
    "\0",
    "\x1b[31m",
    '"',
    "a,b",
    "\n",
    "../x.png",
    "1 2 3",
    "é",
    "\uff11\uff12",
)


def damaged_csv(content: bytes, random: Random) -> bytes:
    """Return a table with other cells, rows of other lengths, or columns called otherwise."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(random.choice((1, 2, 5, 20))):
        row = rows[random.randrange(len(rows))]
        kind = random.randrange(5)
        if row and kind < 3:
            row[random.randrange(len(row))] = random.choice(_CELLS)
        elif kind == 3:
            row.append(random.choice(_CELLS))
        else:
            rows.insert(random.randrange(len(rows)), list(random.choice(rows)))
    return random.choice(("\n", "\r\n", "\r")).join(",".join(row) for row in rows).encode()


def damaged_onnx(content: bytes, random: Random) -> bytes:
    """Return a graph whose outputs, types, sizes, weights or metadata are others."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    for _ in range(random.choice((1, 1, 2, 3))):
        kind = random.randrange(9)
        if kind <= 2:
            prop = random.choice(model.metadata_props)
            raw = prop.value.encode()
            damage = random.choice((damaged_json, damaged_json, damaged_bytes))
            try:
                prop.value = damage(raw, random).decode()
            except (ValueError, RecursionError):  # damaged twice
                prop.value = "\x1b" + prop.value
        elif kind == 3:
            value = random.choice([*graph.output, *graph.input])
            value.type.tensor_type.elem_type = random.randrange(0, 20)
        elif kind == 4:
            value = random.choice([*graph.output, *graph.input])
            for dim in value.type.tensor_type.shape.dim:
                if random.random() < 0.5:
                    dim.dim_value = random.choice((0, 1, 3, 7, -1, 10**6, 2**40))
        elif kind == 5 and graph.node:
            node = random.choice(graph.node)
            node.op_type = random.choice(
                ("Relu", "Identity", "Shape", "Exp", "Log", "If", "Nonsense", "SequenceConstruct", "Cast")
            )
        elif kind == 6 and graph.node:
            del graph.node[random.randrange(len(graph.node))]
        elif kind == 7 and graph.initializer:
            tensor = random.choice(graph.initializer)
            if tensor.raw_data:
                tensor.raw_data = damaged_bytes(tensor.raw_data, random)
            elif tensor.dims:
                tensor.dims[0] = random.choice((0, -1, 10**9))
        else:
            value = random.choice(graph.output)
            value.name = random.choice(("image", "", "age", "other", "x" * 1000))
    return bytes(model.SerializeToString())


def damaged_arrays(content: bytes, random: Random) -> bytes:
    """Return an archive of arrays with other types, shapes or members, or an array as other bytes."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    name = random.choice(sorted(arrays))
    array = arrays[name]
    kind = random.choice((1, 2, 3, 4, 5, 7, 8)) if array.dtype.kind == "U" else random.randrange(9)
    raw: Callable[[bytes], bytes] | None = None
    if kind == 0:
        arrays[name] = array.astype(random.choice(("f8", "f2", "i8", "u1", "c8", "U5", "?", "M8[s]")))
    elif kind == 1:
        arrays[name] = array[: random.randrange(max(len(array), 1))] if array.ndim else array
    elif kind == 2:
        arrays[name] = np.array([{"a": 1}, None], object)
    elif kind == 3:
        arrays[name] = np.zeros(random.choice(((0,), (1,), (2, 0, 3), (1, 1, 1, 1, 1))), array.dtype)
    elif kind == 4:
        del arrays[name]
    elif kind == 5:
        arrays[name] = np.zeros(2, [("a", "i4"), ("b", "f4")])
    elif kind == 6:
        arrays[name] = array.astype("f4") * np.float32(random.choice((np.nan, np.inf, 1e38)))
    elif kind == 7:
        raw = lambda data: damaged_bytes(data, random)  # noqa: E731
    else:
        raw = lambda data: re.sub(rb"'shape': \([^)]*\)", b"'shape': (99999999999, 99999,)", data)  # noqa: E731
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in arrays.items():
            one = io.BytesIO()
            np.lib.format.write_array(one, np.asarray(value), allow_pickle=True)
            data = one.getvalue()
            archive.writestr(f"{key}.npy", raw(data) if raw and key == name else data)
    return stream.getvalue()
