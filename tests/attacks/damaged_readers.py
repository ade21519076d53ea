"""How each kind of damaged file is read: through what a user calls. What is raised beyond MtlError is a fault."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from mtl_deploy.runtime.errors import MtlError
from tests.attacks import mutations
from tests.attacks.damaged_bases import photos

Damage = Callable[[bytes, Random], bytes]


class NotJson(Exception):
    """A command printed something else than it promises."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: for the figures.
        share: of all cases, as parts of their sum.
        bases: the sound files, below the folder of bases.
        damages: what is done to them.
        read: reads a damaged file; gets the folder of bases, the sound file and its damaged content, and a folder to work in.
    """

    name: str
    share: int
    bases: tuple[str, ...]
    damages: tuple[Damage, ...]
    read: Callable[[Path, Path, bytes, Path], None]


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """A refusal is what is wanted of a reader."""
    with contextlib.suppress(MtlError):
        yield


def command(main: Callable[[list[str]], int], *arguments: object, as_json: bool = False) -> None:
    """Run a command in this process; where it ends well and promises JSON, check that it is."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main([str(argument) for argument in arguments])
    if "\x1b" in out.getvalue():
        raise NotJson("an escape sequence reached standard output")
    if code == 0 and as_json:
        try:
            json.loads(out.getvalue(), parse_constant=_refused)
        except ValueError as error:
            raise NotJson(str(error)) from error


def _refused(name: str) -> None:
    raise ValueError(f"{name} in a JSON document")


def _copied(bases: Path, base: Path, content: bytes, work: Path, **named: str) -> Path:
    """Copy the bundle around a sound file, put the damaged one in its place, and let the manifest know its hash."""
    bundle = work / "model.mtl"
    relative = base.relative_to(bases)
    shutil.copytree(bases / relative.parts[0], bundle)
    inside = Path(*relative.parts[1:])
    (bundle / inside).write_bytes(content)
    if inside.name != "manifest.json":
        file = bundle / "manifest.json"
        file.write_text(file.read_text().replace(_sha(base.read_bytes()), _sha(content)))
    return bundle


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_manifest(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.bench.contestants.pair import find_pair
    from mtl_deploy.calibration.observe import cache
    from mtl_deploy.export.report import report
    from mtl_deploy.runtime.bundle.manifest import find_bundle, open_bundle
    from mtl_deploy.runtime.bundle.reference import read
    from mtl_deploy.runtime.bundle.writing import write_manifest
    from mtl_deploy.runtime.cli import main

    bundle = _copied(bases, base, content, work)
    command(main, bundle, photos(bases)[0], "--json", as_json=True)
    with refusing():
        opened = open_bundle(bundle)
        with refusing():
            report(opened)
        with refusing():
            read(opened)
        with refusing():
            cache.read(opened, cache.CacheKey("", ""))
        with refusing():
            find_pair(bundle, None, ("CPU",), "onnxruntime")
        with refusing():
            find_bundle(bundle / "fp32.onnx")
        (work / "again").mkdir()
        write_manifest(work / "again", opened.manifest)


def read_graph(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.runtime.cli import main
    from mtl_deploy.runtime.onnx_format.cut import cut
    from mtl_deploy.runtime.onnx_format.graph import read_graph as read

    bundle = _copied(bases, base, content, work)
    lone = work / "lone.onnx"
    lone.write_bytes(content)
    picture = photos(bases)[0]
    command(main, lone, picture, "--json", "--provider", "CPU", "--threads", "1", as_json=True)
    command(main, bundle, picture, "--provider", "CPU", "--threads", "1", "--show", work / "shown.png")
    with refusing():
        for node in read(content).all_nodes():
            str(node.attributes)
    with refusing():
        cut(content, ["age"])


def calibrate_graph(bases: Path, base: Path, content: bytes, work: Path) -> None:
    """Quantize a bundle whose graph is damaged, as ``mtl-calibrate`` does."""
    from mtl_deploy.calibration.cli import main

    bundle = _copied(bases, base, content, work)
    (work / "photos").mkdir()
    for photo in photos(bases)[:3]:
        shutil.copy(photo, work / "photos")
    options = ["--threads", "1", "--quiet", "--no-measure", "--json"]
    command(main, bundle, "--calibration-data", work / "photos", *options, as_json=True)


def read_reference(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.runtime.bundle.manifest import open_bundle
    from mtl_deploy.runtime.bundle.reference import read

    with refusing():
        read(open_bundle(_copied(bases, base, content, work)))


def read_cache(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.calibration.observe import cache
    from mtl_deploy.runtime.bundle.manifest import open_bundle

    opened = open_bundle(_copied(bases, base, content, work))
    document = json.loads(base.read_text())
    found, _ = cache.read(opened, cache.CacheKey(document["graph_sha256"], document["data_digest"]))
    for methods in () if found is None else found.ranges.values():
        for tensors in methods.values():
            for one in tensors.values():
                one.asymmetric()


def read_measured(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.bench.contestants.pair import find_pair
    from mtl_deploy.bench.record import int8_notes
    from mtl_deploy.calibration.report import report
    from mtl_deploy.runtime.bundle.manifest import open_bundle
    from mtl_deploy.runtime.cli import main
    from mtl_deploy.runtime.doctor.cli import main as doctor

    bundle = _copied(bases, base, content, work)
    command(main, bundle, photos(bases)[0], "--precision", "int8", "--threads", "1", "--json", as_json=True)
    command(doctor, bundle, "--json", as_json=True)
    with refusing():
        report(open_bundle(bundle))
    with refusing():
        int8_notes(find_pair(bundle, "int8", None, None, 1), 1, None)


def read_tasks(bases: Path, base: Path, content: bytes, work: Path) -> None:
    import torch

    from mtl_deploy.export.forward.binding import bind_tasks
    from mtl_deploy.export.network.task_file import read_task_file

    (work / "tasks.toml").write_bytes(content)
    with refusing():
        tasks = read_task_file(work / "tasks.toml")
        outputs = [torch.zeros(2, size) for size in (1, 1, 4)]
        bind_tasks(tasks, None, (*outputs, torch.zeros(2, 1, 4, 4)), 2, (16, 16))


def _data(bases: Path, source: Path, labels: Path | None = None, bundle: str = "tiny.mtl") -> None:
    from mtl_deploy.calibration.data.dataset import load_data
    from mtl_deploy.runtime.bundle.manifest import open_bundle

    signature = open_bundle(bases / bundle).manifest.signature
    with refusing():
        found = load_data(source, signature.preprocessing, signature.tasks, samples=8, labels=labels)
        for truth in found.dense.values():
            for position in range(len(truth)):
                with refusing():
                    truth.read(position)


def read_table(bases: Path, base: Path, content: bytes, work: Path) -> None:
    (work / "labels.csv").write_bytes(content)
    _data(bases, bases / "photos", work / "labels.csv")


def read_list(bases: Path, base: Path, content: bytes, work: Path) -> None:
    (work / "list.txt").write_bytes(content)
    (work / "photos").symlink_to(bases / "photos")
    _data(bases, work / "list.txt")


def read_data(bases: Path, base: Path, content: bytes, work: Path) -> None:
    file = work / base.name
    file.write_bytes(content)
    _data(bases, file)


def read_image(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
    from mtl_deploy.runtime.images.loading import load_pixels, original_pixels

    file = work / base.name
    file.write_bytes(content)
    with refusing():
        load_pixels(file, Preprocessing(32, 32))
    with refusing():
        original_pixels(file)


def read_labels(bases: Path, base: Path, content: bytes, work: Path) -> None:
    """Read a picture or an array as the truth of dense tasks."""
    suffix = ".npy" if base.suffix == ".npy" else ".png"
    for task in ("seg", "depth", "normals"):
        (work / "labels" / task).mkdir(parents=True)
        (work / "labels" / task / f"a{suffix}").write_bytes(content)
    _data(bases, bases / "photos", work / "labels", "dense.mtl")


def read_result(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.bench.cli import main

    (work / "damaged.json").write_bytes(content)
    command(main, "report", work / "damaged.json", "-o", work / "report.html")
    if len(content) % 2:
        command(main, "compare", base, work / "damaged.json", "--json", "-", as_json=True)
    else:
        command(main, "compare", work / "damaged.json", base)


def read_checkpoint(bases: Path, base: Path, content: bytes, work: Path) -> None:
    from mtl_deploy.export.network.checkpoint import load_checkpoint

    file = work / base.name
    file.write_bytes(content)
    with refusing():
        load_checkpoint(file)
    if file.suffix != ".pt2":
        with refusing():
            load_checkpoint(file, model="tests.networks.small_networks:Shared")


def kinds() -> tuple[Kind, ...]:
    """Return all of them."""
    raw = mutations.damaged_bytes
    pictures = tuple(f"photos/{name}" for name in PICTURES)
    return (
        Kind("manifests", 15, ("whole.mtl/manifest.json", "tiny.mtl/manifest.json", "dense.mtl/manifest.json"),
             (mutations.damaged_json, mutations.damaged_json, mutations.damaged_json, raw), read_manifest),
        Kind("graphs", 12, ("tiny.mtl/fp32.onnx", "dense.mtl/fp32.onnx", "whole.mtl/fp32.onnx"),
             (mutations.damaged_onnx, mutations.damaged_onnx, raw), read_graph),
        Kind("graphs to quantize", 2, ("tiny.mtl/fp32.onnx", "dense.mtl/fp32.onnx", "whole.mtl/fp32.onnx"),
             (mutations.damaged_onnx, mutations.damaged_onnx, raw), calibrate_graph),
        Kind("references", 8, ("whole.mtl/reference.npz",), (mutations.damaged_arrays, raw), read_reference),
        Kind("caches", 6, ("whole.mtl/calibration.json",), (mutations.damaged_json, raw), read_cache),
        Kind("measurements", 3, ("whole.mtl/measured.json",), (mutations.damaged_json, raw), read_measured),
        Kind("task files", 10, ("tasks.toml",), (mutations.damaged_toml, mutations.damaged_toml, raw), read_tasks),
        Kind("tables", 6, ("labels.csv",), (mutations.damaged_csv, mutations.damaged_csv, raw), read_table),
        Kind("lists", 2, ("list.txt",), (raw,), read_list),
        Kind("arrays", 6, ("images.npz",), (mutations.damaged_arrays, raw), read_data),
        Kind("array files", 3, ("images.npy",), (raw,), read_data),
        Kind("images", 16, pictures, (raw,), read_image),
        Kind("label pictures", 3, ("photos/a.png", "photos/m.png", "images.npy"), (raw,), read_labels),
        Kind("results", 10, ("result.json",), (mutations.damaged_json, mutations.damaged_json, raw), read_result),
        Kind("checkpoints", 8, tuple(f"checkpoints/{name}" for name in CHECKPOINTS), (raw,), read_checkpoint),
    )  # fmt: skip


PICTURES = (
    "a.png",
    "b.gif",
    "c.jpg",
    "d.jpg",
    "e.webp",
    "f.bmp",
    "g.ppm",
    "h.tiff",
    "i.tiff",
    "j.tiff",
    "k.tiff",
    "l.tiff",
    "m.png",
    "n.webp",
)
CHECKPOINTS = ("weights.pt", "legacy.pt", "weights.safetensors", "program.pt2")


def case(kind: Kind, seed: int, number: int, bases: Path, work: Path) -> Callable[[], Any]:
    """Return a function that reads one damaged file; the same seed and number damage the same file in the same way."""
    random = Random(f"{seed} {kind.name} {number}")
    base = bases / random.choice(kind.bases)
    content = random.choice(kind.damages)(base.read_bytes(), random)
    return partial(kind.read, bases, base, content, work)
