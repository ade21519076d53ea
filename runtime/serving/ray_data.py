"""Labelling many images with Ray Data: a folder, or Parquet files with images, in; Parquet files with predictions out.

The images are cut into parts, in the order of their paths. Each part becomes one file, which appears whole or not at all, whichever
worker makes it and however often: so nothing is lost and nothing is there twice when workers die, and a run that was stopped goes
on where it was. It needs Ray (``pip install 'mtl-deploy[ray]'``); bundle, images and output are at the same paths on every node.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.bundle.manifest import MANIFEST, open_bundle
from mtl_deploy.runtime.errors import BackendError, OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.images.files import images_in
from mtl_deploy.runtime.loading import load

from .answers import answers
from .columns import Cell, cells

PART = 256  # images per part
RUN = "_run.json"
BROKEN = "_broken.jsonl"
_BATCH = 16
_BYTES = ("bytes", "image")  # columns of Parquet files that hold encoded images


@dataclass(frozen=True)
class Part:
    """Images that become one file.

    Attributes:
        number: of the part.
        source: a folder, whose files ``names`` are, or a Parquet file.
        names: paths below the folder; empty for Parquet.
        row_group: of the Parquet file.
    """

    number: int
    source: str
    names: tuple[str, ...] = ()
    row_group: int = 0

    @property
    def file(self) -> str:
        """The name of the part's file."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Labelled:
    """What a run has done.

    Attributes:
        images: in all parts.
        broken: those that could not be read.
        parts: files.
        resumed: files that an earlier run had made.
    """

    images: int
    broken: int
    parts: int
    resumed: int


def label(
    bundle: Path,
    source: Path,
    output: Path,
    *,
    tasks: Sequence[str] | None = None,
    precision: str | None = None,
    backend: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    part: int = PART,
) -> Labelled:
    """Label all images of a folder or of Parquet files.

    Ray is started on this machine, unless the environment says where it runs (``RAY_ADDRESS``) or it has been started.

    Args:
        bundle: to run.
        source: a folder of images, a Parquet file or a folder of them. Parquet has a column ``bytes`` or ``image`` with image files
            (or structs with ``bytes``), and may have a column ``path``.
        output: a folder for the parts: a row per image, in the order of paths: ``path``, the tasks' columns as
            :func:`~mtl_deploy.runtime.serving.columns.cells` gives them, and ``error``, why an image could not be read.
        tasks: which to compute; None: all.
        precision: as for :func:`~mtl_deploy.runtime.load`.
        backend: likewise.
        workers: how many work at once; None: as many as the cluster's processors allow.
        threads: of each worker, which asks Ray for as many processors.
        part: images per part; Parquet's row groups are the parts there.

    Raises:
        OptionError: there are no images, or the output belongs to another run.
        BackendError: Ray is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
        import ray
    except ImportError as error:
        raise BackendError(f"labelling with Ray needs {error.name}: pip install 'mtl-deploy[ray]'") from error

    parts = list(_parts(source, part))
    if not parts:
        raise OptionError(f"{source}: no images in it")
    _begin(output, bundle, parts, {"tasks": None if tasks is None else list(tasks), "precision": precision})
    left = [one for one in parts if not (output / one.file).is_file()]
    if left:
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        made = ray.data.from_items([asdict(one) for one in left], override_num_blocks=len(left)).map_batches(
            Worker,
            fn_constructor_kwargs={
                "bundle": str(bundle.absolute()),
                "output": str(output.absolute()),
                "options": {"tasks": tasks, "precision": precision, "backend": backend, "threads": threads},
            },
            batch_size=1,
            num_cpus=threads,
            compute=ray.data.ActorPoolStrategy(size=workers)
            if workers
            else ray.data.ActorPoolStrategy(min_size=1, max_size=len(left)),
        )
        for _ in made.iter_rows():
            pass
    return _end(output, parts, resumed=len(parts) - len(left))


class Worker:
    """Labels parts; Ray makes one per worker.

    Args:
        bundle: its path.
        output: the folder for the files.
        options: for :func:`~mtl_deploy.runtime.load`.
    """

    def __init__(self, bundle: str, output: str, options: dict[str, Any]) -> None:
        self._model = load(bundle, spinning=False, **options)
        self._names = [task.name for task in self._model.tasks]
        self._output = Path(output)
        of = self._model.signature.preprocessing
        shape = (of.height, of.width) if of.channel_count == 1 else (of.height, of.width, of.channel_count)
        self._columns = cells(self._model.predict(np.zeros(shape, np.uint8)))  # so that all parts have the same types

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the files of parts, and return their numbers."""
        for index in range(len(batch["number"])):
            names = tuple(batch["names"][index])
            part = Part(int(batch["number"][index]), str(batch["source"][index]), names, int(batch["row_group"][index]))
            disk.replace_file(self._output / part.file, self._content(part))
        return {"number": batch["number"]}

    def _content(self, part: Part) -> bytes:
        import pyarrow
        import pyarrow.parquet

        rows: list[dict[str, Cell]] = []
        for paths, images in _batches(part):
            for path, answer in zip(paths, answers(self._model, images, self._names), strict=True):
                error = None if answer.error is None else str(answer.error)
                rows.append({"path": path} | cells(answer.predictions) | {"error": error})
        kinds: dict[type, Any] = {str: pyarrow.string(), bytes: pyarrow.binary()}
        types = {name: kinds.get(type(cell), pyarrow.float64()) for name, cell in self._columns.items()}
        types = {"path": pyarrow.string(), **types, "error": pyarrow.string()}
        table = pyarrow.table(
            {name: [row.get(name) for row in rows] for name in types}, schema=pyarrow.schema(list(types.items()))
        )
        stream = io.BytesIO()
        pyarrow.parquet.write_table(table, stream)
        return stream.getvalue()


def _batches(part: Part) -> Iterator[tuple[list[str], list[Any]]]:
    """Yield the part's paths and images, a few at a time."""
    if part.names:
        for start in range(0, len(part.names), _BATCH):
            names = list(part.names[start : start + _BATCH])
            yield names, [Path(part.source) / name for name in names]
        return
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(part.source)
    column, columns = _columns(file.schema_arrow.names, part.source)
    rows = file.read_row_group(part.row_group, columns=columns).to_pylist()
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        images = [row[column]["bytes"] if isinstance(row[column], dict) else row[column] for row in some]
        first = f"{Path(part.source).name}#{part.row_group}/"
        paths = [str(row.get("path") or f"{first}{start + place}") for place, row in enumerate(some)]
        yield paths, images


def _columns(names: Sequence[str], source: str) -> tuple[str, list[str]]:
    for column in _BYTES:
        if column in names:
            return column, [name for name in ("path", column) if name in names]
    raise OptionError(f"{source}: no column {' or '.join(_BYTES)} with images; its columns are {', '.join(names)}")


def _parts(source: Path, size: int) -> Iterator[Part]:
    tables = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if tables:
        import pyarrow.parquet

        number = 0
        for table in tables:
            file = pyarrow.parquet.ParquetFile(table)
            _columns(file.schema_arrow.names, str(table))
            for group in range(file.num_row_groups):
                yield Part(number, str(table.absolute()), row_group=group)
                number += 1
        return
    names = [path.relative_to(source).as_posix() for path in images_in(source)]
    for number, start in enumerate(range(0, len(names), size)):
        yield Part(number, str(source.absolute()), tuple(names[start : start + size]))


def _begin(output: Path, bundle: Path, parts: Sequence[Part], options: dict[str, Any]) -> None:
    """Note what the output is of, or check that it is of the same run."""
    listed = hashlib.sha256(json.dumps([asdict(one) for one in parts]).encode()).hexdigest()
    manifest = open_bundle(bundle).path / MANIFEST
    run = {"images": listed, "bundle": hashlib.sha256(manifest.read_bytes()).hexdigest(), **options}
    file = output / RUN
    if file.is_file():
        if json.loads(file.read_text(encoding="utf-8")) != run:
            raise OptionError(
                f"{output} holds results of other images, another bundle or other options; choose another folder"
            )
        return
    if output.exists() and any(output.iterdir()):
        raise OptionError(f"{output} is not empty, and no run of this command has begun there; choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    disk.replace_file(file, json.dumps(run, indent=2).encode())


def _end(output: Path, parts: Sequence[Part], *, resumed: int) -> Labelled:
    """Count, and list what could not be read."""
    import pyarrow.compute
    import pyarrow.parquet

    images, broken = 0, []
    for part in parts:
        table = pyarrow.parquet.read_table(output / part.file, columns=["path", "error"])
        images += table.num_rows
        broken += table.filter(pyarrow.compute.is_valid(table["error"])).to_pylist()
    text = "".join(json.dumps(row, ensure_ascii=False) + os.linesep for row in broken)
    for left in output.glob(".part-*.partial"):  # of workers that were killed
        left.unlink(missing_ok=True)
    disk.replace_file(output / BROKEN, text.encode("utf-8", "surrogateescape"))
    return Labelled(images, len(broken), len(parts), resumed)
