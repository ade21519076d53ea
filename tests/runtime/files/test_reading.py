"""Documents with traps, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.files.arrays import map_array, read_archive, read_array
from mtl_deploy.runtime.files.reading import DocumentError, open_file, parse_json, read_bytes
from tests.attacks.mutations import damaged_arrays


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested deeper|not valid JSON"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
        ('{"a": [1, 9999999999999999999]}', r"a\[1\]: a number of more than 64 bits"),
        ('{"a": {"b": 1e999}}', r"a\.b: inf is not a finite number"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('["\\ud800"]', r"\[0\]: text with half of a surrogate pair"),
        ('{"\\udc80": 1}', "half of a surrogate pair"),
        (b'"\xff"', r"not UTF-8 text \(byte 1\)"),
        ("{", "not valid JSON"),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_traps_are_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_json(text)


def test_what_json_may_hold_is_read() -> None:
    assert parse_json('{"a": [1.5, -9223372036854775807, "\\ud83d\\ude00", null, ' + "[" * 60 + "]" * 60 + "]}")["a"][
        :3
    ] == [
        1.5,
        -(2**63 - 1),
        "\U0001f600",
    ]


def test_pipes_devices_and_sockets_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="Not a regular file"):
            open_file(path)
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    with pytest.raises(OSError, match="no file can have this name"):
        open_file("a\0b")
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(BundleError, match="Not a regular file"):
        open_bundle(tmp_path)


def test_what_commands_are_given_is_a_file(tmp_path: Path) -> None:
    from mtl_deploy.calibration.data.dataset import load_data
    from mtl_deploy.export.network.file_kind import file_kind
    from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
    from mtl_deploy.runtime.errors import CheckpointError, ImageError

    for name in ("model.pt", "images.npz", "images.npy"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="Not a regular file"):
        file_kind(tmp_path / "model.pt")
    for name in ("images.npz", "images.npy"):
        with pytest.raises(ImageError, match="Not a regular file"):
            load_data(tmp_path / name, Preprocessing(8, 8), ())


def test_files_are_bounded(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(300 << 20)
    with pytest.raises(OSError, match="larger than 256 MiB"):
        read_bytes(tmp_path / "large")
    with pytest.raises(OSError, match="larger than 1 MiB"):
        read_bytes("/dev/zero", 1 << 20, regular=False)
    assert len(read_bytes(tmp_path / "large", None)) == 300 << 20


def test_archives_of_arrays_are_bounded_and_hold_no_objects(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros(64 << 20, np.uint8), others=np.zeros(3))
    with pytest.raises(DocumentError, match="take 64 MiB unpacked; at most 32 MiB are read"):
        read_archive(tmp_path / "bomb.npz", {"images"}, 32 << 20)
    arrays, others = read_archive(tmp_path / "bomb.npz", {"others"}, 32 << 20)
    assert (list(arrays), others) == (["others"], ["images"])
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for read in (map_array, read_array):
        with pytest.raises(DocumentError, match="cannot be read as an array"):
            read(tmp_path / "objects.npy")
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04N.")
    with pytest.raises(DocumentError, match="not an array in numpy's format"):
        read_array(tmp_path / "pickle.npy")
    np.savez(tmp_path / "objects.npz", images=np.array([{}], object))
    with pytest.raises(DocumentError, match="Object arrays cannot be loaded"):
        read_archive(tmp_path / "objects.npz", {"images"})


def test_text_arrays_hold_characters() -> None:
    import io

    stream = io.BytesIO()
    np.savez(stream, words=np.array(["ab"]))
    content = stream.getvalue()
    place = content.index("ab".encode("utf-32-le"))
    stored = bytearray(content)
    stored[place + 2] = 0x7F  # beyond U+10FFFF; the archive's checksum must fit
    import zlib

    start = content.index(b"\x93NUMPY")
    size = len(content[start : content.index(b"PK\x01\x02")])
    for signature, offset in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        at = content.index(signature) + offset
        stored[at : at + 4] = zlib.crc32(bytes(stored[start : start + size])).to_bytes(4, "little")
    with pytest.raises(DocumentError, match="array 'words': text with invalid characters"):
        read_archive(bytes(stored), {"words"})


def test_damaged_archives_fail_in_one_way() -> None:
    import io
    from random import Random

    stream = io.BytesIO()
    np.savez(stream, images=np.zeros((2, 3, 3, 3), np.uint8), margins=np.zeros(4, np.float16))
    refused = 0
    for number in range(60):
        try:
            read_archive(damaged_arrays(stream.getvalue(), Random(number)), {"images", "margins"})
        except DocumentError:  # noqa: PERF203 - some are read
            refused += 1
    assert refused > 10
