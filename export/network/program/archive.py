"""A program's zip archive: read record by record, checked, and rewritten, so that torch never opens the file itself.

``torch.export.load`` finds records with its own reader, which ignores case, takes the first of several records with the same name,
and falls back to older formats when it fails. A check that reads the file with a different reader than the one that loads it can
be deceived. So each record is read only once, here; names, sizes and JSON are compared with what the format may hold
(``torch/csrc/export/pt2_archive_constants.h``), and what passes is written to a fresh archive in memory, which torch reads.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from typing import BinaryIO

from .fields import Json, MalformedError, RefusedError, UnusableError
from .schema import clean_program, clean_tensors

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
SAMPLE = "data/sample_inputs/model.pt"
_FORMAT = {"archive_format": b"pt2", "archive_version": b"0"}
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id|\.format_version|\.storage_alignment|"
    r"models/model\.json|data/sample_inputs/model\.pt|"
    r"data/weights/(model_weights_config\.json|weight_[0-9]{1,6})|data/constants/(model_constants_config\.json|tensor_[0-9]{1,6})|"
    r"extra/[A-Za-z0-9_][A-Za-z0-9_. -]{0,200}",  # the user's own text, which is not read
)
_TELLING = (  # what a record is, if its name says so
    ("data/aotinductor/", "a native library"),
    ("data/constants/opaque_obj", "a pickled object"),
    ("data/constants/custom_obj", "a pickled script object"),
    ("data/weights/model.pt", "weights as PyTorch 2.8 pickled them"),
    ("data/constants/model.pt", "constants as PyTorch 2.8 pickled them"),
    ("models/", "another program"),
)
_ROOT = re.compile(r"[A-Za-z0-9_.@ +-]{1,255}")
_MOST_RECORDS = 100_000
_MOST_JSON = 64 << 20  # bytes of a record; a network of 2,000 operators takes 5 MB
_MOST_DIGITS = 20


def checked_archive(stream: BinaryIO, check_pickle: Callable[[bytes], None]) -> tuple[io.BytesIO, list[str]]:
    """Return a fresh archive with the records of a program that pass, and the inputs that are passed by keyword.

    Args:
        stream: the file, at its beginning. Each byte of a record is read once.
        check_pickle: called with each record that is a pickle; raises RefusedError if it holds more than tensors. None is kept.

    Raises:
        RefusedError: a record, or something in it, is not known to be harmless; the message names it.
        MalformedError: the archive is damaged, or not what torch writes.
        UnusableError: the program is in training mode, or not on the CPU.
    """
    try:
        with zipfile.ZipFile(stream) as source:
            records = _records(source, stream)
            return _rewritten(source, records, check_pickle)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RecursionError, UnicodeError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}") from error


def _records(source: zipfile.ZipFile, stream: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's entries by record, after checking that the format may hold each of them."""
    entries = source.infolist()
    if not 0 < len(entries) <= _MOST_RECORDS:
        raise MalformedError(f"{len(entries)} records")
    root = entries[0].filename.partition("/")[0]
    if not _ROOT.fullmatch(root) or ".." in root:
        raise RefusedError(f"records in a folder {root[:80]!r}")
    records: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        folder, _, record = entry.orig_filename.partition("/")
        if folder != root:
            raise RefusedError(f"record {entry.orig_filename[:80]!r} is not in the folder {root!r} with the others")
        if not _KNOWN.fullmatch(record):
            lowered = record.lower()
            told = next((what for start, what in _TELLING if lowered.startswith(start)), "an unknown record")
            raise RefusedError(f"{told}, {record[:80]}")
        if record in records:
            raise RefusedError(f"record {record[:80]} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1 or entry.file_size != entry.compress_size:
            raise RefusedError(f"record {record[:80]} is compressed or encrypted, which torch does not do")
        records[record] = entry
    if sum(entry.file_size for entry in entries) > stream.seek(0, io.SEEK_END):
        raise RefusedError("records that overlap")
    return records


def _rewritten(
    source: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], check_pickle: Callable[[bytes], None]
) -> tuple[io.BytesIO, list[str]]:
    for record, content in _FORMAT.items():
        if record not in records or source.read(records[record]) != content:
            raise MalformedError(f"{record} is not {content.decode()}")
    if "byteorder" in records and source.read(records["byteorder"]) != b"little":
        raise UnusableError("its weights are big-endian; save it again on a little-endian machine")
    model, keywords = clean_program(_json(source, records, MODEL))
    documents = {MODEL: model}
    for record, folder in ((WEIGHTS, "data/weights/"), (CONSTANTS, "data/constants/")):
        sizes = {
            name.removeprefix(folder): entry.file_size for name, entry in records.items() if name.startswith(folder)
        }
        config = _json(source, records, record)
        for pickled in _pickles(config):
            if (entry := records.get(f"{folder}{pickled}")) is not None:
                check_pickle(source.read(entry))  # the error says what it asks for
        documents[record] = clean_tensors(config, record, sizes)
    _refuse_nesting({path for record in (WEIGHTS, CONSTANTS) for path in documents[record]["config"]})
    if SAMPLE in records:
        check_pickle(source.read(records[SAMPLE]))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as target:
        for record, content in {**_FORMAT, SAMPLE: b"", "byteorder": b"little", ".data/version": b"6\n"}.items():
            target.writestr(f"model/{record}", content)
        for record, document in documents.items():
            target.writestr(f"model/{record}", json.dumps(document, allow_nan=False))
            folder = record.rpartition("/")[0]
            for name in sorted({tensor["path_name"] for tensor in document.get("config", {}).values()}):
                entry = records[f"{folder}/{name}"]
                place = zipfile.ZipInfo(f"model/{folder}/{name}")
                with (
                    source.open(entry) as read,
                    target.open(place, "w", force_zip64=entry.file_size >= 1 << 31) as written,
                ):
                    shutil.copyfileobj(read, written, 1 << 20)
    made.seek(0)
    return made, keywords


def _refuse_nesting(paths: set[str]) -> None:
    """Refuse a tensor whose path leads through another tensor: it would become an attribute of a tensor, not of a module."""
    for path in paths:
        parts = path.split(".")
        for length in range(1, len(parts)):
            if (outer := ".".join(parts[:length])) in paths:
                raise RefusedError(f"tensor {path[:80]!r} inside tensor {outer[:80]!r}")


def _pickles(config: Json) -> list[str]:
    tensors = config.get("config") if isinstance(config, dict) else None
    found = tensors.values() if isinstance(tensors, dict) else ()
    return [
        str(tensor.get("path_name"))
        for tensor in found
        if isinstance(tensor, dict) and tensor.get("use_pickle") is True
    ]


def _json(source: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], record: str) -> Json:
    if record not in records:
        raise MalformedError(f"{record} is missing")
    if records[record].file_size > _MOST_JSON:
        raise RefusedError(f"{record} has {records[record].file_size} bytes, more than {_MOST_JSON}")
    try:
        return json.loads(
            source.read(records[record]).decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=_small,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, RefusedError):
            raise
        raise MalformedError(f"{record} is not JSON: {error}") from error


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RefusedError("an object with a repeated field")
    return found


def _small(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise RefusedError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
