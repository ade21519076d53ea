"""``torch.export`` programs: read, checked, and never run as code unless trusted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_networks
import torch
from torch.export import Dim

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError, OptionError

IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 24).reshape(2, 3, 16, 24)
MODEL, WEIGHTS, SAMPLE = "models/model.json", "data/weights/model_weights_config.json", "data/sample_inputs/model.pt"


def export(path: Path, network: torch.nn.Module | None = None, **options: Any) -> Path:
    network = small_networks.ReversedDict().eval() if network is None else network
    torch.export.save(torch.export.export(network, (IMAGE,), **options), path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with a free batch, as its owner saved it."""
    return export(tmp_path_factory.mktemp("program") / "model.pt2", dynamic_shapes=({0: Dim("n", min=1, max=64)},))


SHAPES = [
    pytest.param(None, (2, 3, 16, 24), (16, 24), id="fixed"),
    pytest.param(({0: Dim("n")},), (None, 3, 16, 24), (16, 24), id="free-batch"),
    pytest.param(({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},), (None, 3, None, None), None, id="free-size"),
]


@pytest.mark.parametrize(("shapes", "input_shape", "image_size"), SHAPES)
@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
def test_a_program_is_read_and_its_shape_is_known(
    name: str, shapes: Any, input_shape: tuple[int | None, ...], image_size: tuple[int, int] | None, tmp_path: Path
) -> None:
    loaded = load_checkpoint(export(tmp_path / name, dynamic_shapes=shapes))
    assert loaded.kind == "program"
    assert loaded.program is not None
    assert (loaded.input_shape, loaded.image_size, loaded.default_tasks) == (input_shape, image_size, None)
    written = ", ".join("any" if size is None else str(size) for size in input_shape)
    assert loaded.description == f"a torch.export program for images ({written})"
    with torch.inference_mode():
        found, expected = loaded.network(IMAGE), small_networks.ReversedDict().eval()(IMAGE)
    assert list(found) == ["race", "age", "gender"]
    torch.testing.assert_close(found, expected)


def test_the_program_brings_its_own_network(program: Path) -> None:
    with pytest.raises(OptionError, match="--model does not apply; leave it out"):
        load_checkpoint(program, model="small_networks:Shared")


class TwoInputs(small_networks.Shared):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> object:  # type: ignore[override]
        return super().forward(x + y)


def two_inputs(path: Path) -> Path:
    torch.export.save(torch.export.export(TwoInputs().eval(), (IMAGE, IMAGE)), path)
    return path


def by_keyword(path: Path) -> Path:
    torch.export.save(torch.export.export(small_networks.Shared().eval(), (), {"x": IMAGE}), path)
    return path


def no_image(path: Path) -> Path:
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(1, 4),)), path)
    return path


def half(path: Path) -> Path:
    torch.export.save(torch.export.export(small_networks.Shared().eval().half(), (IMAGE.half(),)), path)
    return path


def diverged(path: Path) -> Path:
    network = small_networks.Shared().eval()
    network.race.weight.data[1, 2] = float("nan")
    return export(path, network)


def with_dropout(path: Path) -> Path:
    return export(path, torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Dropout()).train())


BAD = [
    pytest.param(two_inputs, "takes 2 inputs .*one batch of images", id="two-inputs"),
    pytest.param(by_keyword, r"takes 'x' by keyword", id="keyword"),
    pytest.param(no_image, r"of shapes \[\(1, 4\)\]; one batch of images", id="no-image"),
    pytest.param(half, r"is float16; export the program after network\.float\(\)", id="half"),
    pytest.param(diverged, r"'race\.weight' has 1 of 32 values", id="nan"),
    pytest.param(
        lambda path: export(path, small_networks.Shared().train()),
        r"training mode \(batch_norm.*eval\(\)",
        id="batch-norm",
    ),
    pytest.param(with_dropout, r"training mode \(dropout", id="dropout"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_programs_that_cannot_be_used(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path / "model.pt2")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")


def rewrite(source: Path, target: Path, records: dict[str, bytes | None]) -> Path:
    """Copy a program with some records changed, added or (None) left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            if name.partition("/")[2] not in records:
                new.writestr(name, old.read(name))
        for name, content in records.items():
            if content is not None:
                new.writestr(f"{root}/{name}", content)
    return target


def record(source: Path, name: str) -> Any:
    with zipfile.ZipFile(source) as archive:
        root = archive.namelist()[0].partition("/")[0]
        return json.loads(archive.read(f"{root}/{name}"))


def test_a_damaged_program_is_an_error_in_words(program: Path, tmp_path: Path) -> None:
    cut = shutil.copy(program, tmp_path / "cut.pt2")
    os.truncate(cut, cut.stat().st_size // 2)
    cases = {
        cut: "truncated or damaged",
        rewrite(program, tmp_path / "no_json.pt2", {MODEL: b"{"}): "a damaged torch.export program",
        rewrite(program, tmp_path / "no_model.pt2", {MODEL: b"{}"}): "cannot read this program",
        rewrite(program, tmp_path / "no_weights.pt2", {WEIGHTS: None}): "cannot read this program",
    }
    for path, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)


# What an attacker can hide in a program. Each attack makes a folder when torch.export.load reads the file as it is: that is
# tried too, so that no test passes because its attack is broken.


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def code(trace: Path) -> str:
    return f"__import__('os').mkdir({str(trace)!r})"


Records = dict[str, bytes | None]


def pickled_sample(program: Path, trace: Path) -> Records:
    return {SAMPLE: saved(((torch.zeros(2, 3, 16, 24), Payload(trace)), {}))}


def pickled_weight(program: Path, trace: Path) -> Records:
    config = record(program, WEIGHTS)
    entry = config["config"]["age.bias"]
    entry["use_pickle"] = True
    return {WEIGHTS: json.dumps(config).encode(), "data/weights/" + entry["path_name"]: saved(Payload(trace))}


def size_expression(program: Path, trace: Path) -> Records:
    text = json.dumps(record(program, MODEL))
    attack = json.dumps(code(trace) + " or Integer(2)")
    return {MODEL: text.replace(json.dumps("Symbol('s77', positive=True, integer=True)"), attack).encode()}


ATTACKS = [pickled_sample, pickled_weight, size_expression]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.filterwarnings("ignore")
def test_code_in_a_program_never_runs_without_trust(
    attack: Callable[[Path, Path], Records], program: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    path = rewrite(program, tmp_path / "attack.pt2", attack(program, trace))
    with pytest.raises(CheckpointError, match=r"would run code in it \(.*mkdir.*nothing was run"):
        load_checkpoint(path)
    assert not trace.exists()
    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert trace.is_dir()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("data/aotinductor/model/model.so", "a native library"),
        ("data/constants/opaque_obj_0", "a pickled object"),
        ("data/constants/OPAQUE_OBJ_0", "a pickled object"),
        ("data/constants/custom_obj_0", "a pickled script object"),
        ("data/constants/model.pt", "constants as PyTorch 2.8 pickled them"),
        ("models/other.json", "another program"),
        ("MODELS/model.json", "another program"),
        ("executorch/program.pte", "an unknown record"),
        ("extra/../model.pt", "an unknown record"),
    ],
)
def test_records_that_hold_code_are_refused(name: str, what: str, program: Path, tmp_path: Path) -> None:
    path = rewrite(program, tmp_path / "attack.pt2", {name: b"\x7fELF"})
    with pytest.raises(CheckpointError, match=f"would run code in it \\({what}, {name}\\)"):
        load_checkpoint(path)


def test_the_environment_is_as_it_was(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "0"):
        if before is not None:
            monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", before)
        load_checkpoint(program)
        assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before
