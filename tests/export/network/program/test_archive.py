"""A program's archive and its JSON: what is refused before torch reads anything, and in which words."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_networks
import torch

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
Records = dict[str, bytes]


@pytest.fixture(scope="module")
def records() -> Records:
    made = io.BytesIO()
    torch.export.save(torch.export.export(small_networks.Shared().eval(), (IMAGE,)), made)
    with zipfile.ZipFile(made) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, records: Records, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in records.items():
            archive.writestr(f"model/{name}", content)
    return path


def changed(records: Records, change: Callable[[Any], object], record: str = MODEL) -> Records:
    document = json.loads(records[record])
    change(document)
    return records | {record: json.dumps(document).encode()}


def nodes(model: Any) -> Any:
    return graph(model)["nodes"]


def graph(model: Any) -> Any:
    return model["graph_module"]["graph"]


def weight(config: Any) -> Any:
    return config["config"]["age.weight"]


CHANGES: list[tuple[str, Callable[[Any], object], str]] = [
    (MODEL, lambda model: model.update(extension={"a": 1}), r"models/model\.json: field 'extension'"),
    (MODEL, lambda model: nodes(model)[0].update(hook="x"), r"nodes\[0\]: field 'hook'"),
    (MODEL, lambda model: nodes(model)[0].update(target="torch.ops.aten.rand.default"), r"nodes\[0\]\.target: 'torch\.ops"),
    (MODEL, lambda model: nodes(model)[0].update(name="x=1"), r"nodes\[0\]\.name: 'x=1'"),
    (MODEL, lambda model: nodes(model)[0]["inputs"][0].update(arg={"as_graph": {}}), "field 'as_graph'"),
    (MODEL, lambda model: nodes(model)[0]["inputs"][0].update(arg={"as_string": "a'b"}), "as_string: \"a'b\""),
    (MODEL, lambda model: nodes(model)[0]["inputs"][0].update(arg={"as_layout": 1}), "as_layout: 1"),
    (MODEL, lambda model: model.update(verifiers=["EDGE"]), r"verifiers\[0\]: 'EDGE'"),
    (MODEL, lambda model: model.update(range_constraints={"u9999999": {"min_val": 0, "max_val": 1}}), "'u9999999'"),
    (MODEL, lambda model: graph(model)["sym_int_values"].update(a={"as_expr": {"expr_str": "exit()"}}), r"exit\(\)"),
    (MODEL, lambda model: graph(model).update(custom_obj_values={"a": {}}), "custom_obj_values"),
    (WEIGHTS, lambda config: weight(config).update(path_name="../weight_0"), r"path_name: '\.\./weight_0'"),
    (WEIGHTS, lambda config: weight(config)["tensor_meta"].update(layout=1), "layout: 1"),
    (WEIGHTS, lambda config: weight(config)["tensor_meta"].update(sizes=[{"as_int": 1 << 40}]), "1099511627776 values in"),
    (WEIGHTS, lambda config: config["config"].update({"age.weight.grad": weight(config)}), "inside tensor 'age.weight'"),
    (WEIGHTS, lambda config: config["config"].update({"__class__": weight(config)}), "'__class__'"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "change", "message"), CHANGES, ids=[message for *_, message in CHANGES])
def test_what_is_not_known_is_named(
    record: str, change: Callable[[Any], object], message: str, records: Records, tmp_path: Path
) -> None:
    path = write(tmp_path / "model.pt2", changed(records, change, record))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert "nothing was run" in str(caught.value)
    assert "--trust-pickle" in str(caught.value)


def test_an_unknown_field_with_nothing_in_it_is_left_out(records: Records, tmp_path: Path) -> None:
    def extend(model: Any) -> None:
        model["later"] = None
        nodes(model)[0]["later"] = []

    assert load_checkpoint(write(tmp_path / "model.pt2", changed(records, extend))).kind == "program"


DAMAGE: list[tuple[str, bytes, str]] = [
    ("number", b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
    ("depth", b"[" * 200_000, "is not JSON"),
    ("twice", b'{"a": 1, "a": 2}', "a repeated field"),
    ("infinity", b'{"a": Infinity}', "is not JSON"),
    ("mark", b"\xef\xbb\xbf{}", "is not JSON"),
    ("bytes", b'{"a": "\xff"}', "UnicodeDecodeError|is not JSON"),
    ("list", b"[]", "is not an object"),
    ("empty", b"", "is not JSON"),
]


@pytest.mark.parametrize(("content", "message"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_json_that_is_none(content: bytes, message: str, records: Records, tmp_path: Path) -> None:
    for record in (MODEL, WEIGHTS):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(write(tmp_path / "model.pt2", records | {record: content}))


def test_a_compressed_program_is_refused(records: Records, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt2", records, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["archive/data/0", "archive/data.pkl"])
def test_a_checkpoint_that_unpacks_to_more_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        if name != "archive/data.pkl":
            archive.writestr(name, bytes(300 << 20))
        else:
            archive.writestr("archive/version", bytes(300 << 20))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="a compressed archive"):
        load_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_records_over_one_another_are_refused(records: Records, tmp_path: Path) -> None:
    """A directory that lists one large record many times makes a small file look large."""
    path = write(tmp_path / "model.pt2", records | {"extra/a": bytes(100_000), "extra/b": b""})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("model/extra/b")
    place = content.rindex(b"model/extra/b") - 46  # its entry in the directory
    size = (100_000_000).to_bytes(4, "little")
    path.write_bytes(content[: place + 20] + size + size + content[place + 28 :])
    assert entry.file_size == 0
    with pytest.raises(CheckpointError, match=r"compressed archive|overlap"):
        load_checkpoint(path)


def test_a_product_of_too_many_sizes_is_refused(records: Records, tmp_path: Path) -> None:
    def square(model: Any) -> None:
        before = "image_size"
        for number in range(40):
            operand = {"as_sym_int": {"as_name": before}}
            before = f"square_{number}"
            nodes(model).append(
                {
                    "target": "_operator.mul",
                    "inputs": [{"name": "a", "arg": operand, "kind": 1}, {"name": "b", "arg": operand, "kind": 1}],
                    "outputs": [{"as_sym_int": {"as_name": before}}],
                    "metadata": {},
                    "name": before,
                }
            )

    with pytest.raises(CheckpointError, match="a product of more sizes than a network needs"):
        load_checkpoint(write(tmp_path / "model.pt2", changed(records, square)))


def test_a_program_on_a_gpu_says_so(records: Records, tmp_path: Path) -> None:
    def move(config: Any) -> None:
        weight(config)["tensor_meta"]["device"]["type"] = "cuda"

    path = write(tmp_path / "model.pt2", changed(records, move, WEIGHTS))
    with pytest.raises(CheckpointError, match=r"is on cuda; export the program after network\.cpu\(\)"):
        load_checkpoint(path)


def test_the_users_own_texts_are_left_out(records: Records, tmp_path: Path) -> None:
    assert load_checkpoint(write(tmp_path / "model.pt2", records | {"extra/notes.txt": b"\xff"})).kind == "program"


def test_torch_never_opens_the_file(records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given an archive in memory, whose records are those that were checked, under names of ours."""
    seen = []
    load = torch.export.load

    def spy(file: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(file)
        with zipfile.ZipFile(file) as archive:
            seen.extend(archive.namelist())
        file.seek(0)
        return load(file, *arguments, **options)

    monkeypatch.setattr(torch.export, "load", spy)
    load_checkpoint(write(tmp_path / "model.pt2", records | {"extra/notes.txt": b"x"}))
    assert isinstance(seen[0], io.BytesIO)
    kept = {name for name in seen[1:] if "weight_" not in name}
    assert kept == {
        "model/archive_format", "model/archive_version", "model/byteorder", "model/.data/version", "model/models/model.json",
        "model/data/sample_inputs/model.pt", "model/data/weights/model_weights_config.json",
        "model/data/constants/model_constants_config.json",
    }  # fmt: skip
