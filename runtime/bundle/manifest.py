"""The bundle: the folder ``NAME.mtl/`` that holds a deployment, described by its ``manifest.json``.

``docs/bundle.md`` is the format as one page of MUST and MAY.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.console.mistaken import no_bundle
from mtl_deploy.runtime.errors import BundleError, IntegrityError
from mtl_deploy.runtime.files.json_schema import check
from mtl_deploy.runtime.files.reading import DocumentError, describe, parse_json, read_bytes, shown
from mtl_deploy.runtime.onnx_format.check import check_graph

from .artifact import Artifact as Artifact
from .artifact import Part as Part
from .schema import MANIFEST as MANIFEST_SCHEMA
from .signature import Signature
from .tasks import Task

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SIGNATURE_FILE = f"{MANIFEST}.sig"
MEASURED_FILE = "measured.json"
UNLISTED = (SIGNATURE_FILE, MEASURED_FILE)  # files of a bundle that its manifest does not list
FORMER = ".mtl-former"  # what a replacement file by file has displaced, until it is done (replacing/in_place.py)
SUFFIX = ".mtl"
PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")
"""Of artifacts, in the order of tables: ``int8`` is TensorRT's style, ``int8-cpu`` the one that processors run fastest."""
_DEEPEST = 3  # folders from a file to its bundle's
ENGINE_SUFFIXES = (".trt", ".engine", ".plan")


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
        name: the deployment's name, the folder's without ``.mtl``.
        signature: tasks, preprocessing and form of the outputs, common to all artifacts.
        artifacts: every file that runs by itself.
        parts: the files of networks that are cut into parts, precision by precision and backend by backend, each after those whose
            outputs it takes; empty where the bundle was not split.
        sharing: copies of the backbone found in the network, multiply-adds and parameters of the network, the shared graph,
            the backbone, each head and each separate model, and the ideal ratio of separate to shared work.
        verification: one row per artifact and task: errors against the PyTorch network.
        provenance: checkpoint and its SHA-256, how it was read, versions of the libraries, the command.
        reference: ``path``, ``sha256`` and ``size_bytes`` of the generated images with PyTorch's outputs, which engines are
            verified with on the device; empty where the bundle has none.
        calibration: of the INT8 graphs: the cached ranges' ``path`` and ``sha256``, the data, the method, what was kept in
            higher precision.
        accuracy: of each task in each precision, as :mod:`mtl_deploy.calibration.accuracy.matrix` gives it.
    """

    name: str
    signature: Signature
    artifacts: tuple[Artifact, ...]
    sharing: dict[str, Any] = field(default_factory=dict)
    verification: tuple[dict[str, Any], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    @property
    def files(self) -> tuple[Artifact, ...]:
        """Every runnable file: artifacts and parts."""
        return (*self.artifacts, *self.parts)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order of the network's outputs."""
        return self.signature.tasks

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What a quick export (``mtl-export --quick``) neither checked nor made; empty for every other bundle."""
        return tuple(self.provenance.get("unchecked", ()))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``manifest.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "signature": self.signature.to_dict(),
            "artifacts": [artifact.to_dict() for artifact in self.artifacts],
            "sharing": self.sharing,
            "verification": list(self.verification),
            "provenance": self.provenance,
            "reference": self.reference,
            "calibration": self.calibration,
            "accuracy": self.accuracy,
            **({"parts": [part.to_dict() for part in self.parts]} if self.parts else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Manifest:
        """Read :meth:`to_dict`'s result back. Fields that this release does not know are ignored.

        Raises:
            BundleError: another schema version, or a malformed manifest: the error names the place in it.
        """
        if data.get("schema_version") != SCHEMA_VERSION:
            raise BundleError(
                f"{where}: schema version {shown(data.get('schema_version'))}, this release reads {SCHEMA_VERSION}; "
                "export again, or install the release that wrote it"
            )
        try:
            check(data, MANIFEST_SCHEMA)
        except DocumentError as error:
            raise BundleError(
                f"{where}: malformed manifest: {error}; copy the bundle again, or export again"
            ) from error
        artifacts = tuple(Artifact.from_dict(item) for item in data["artifacts"])
        manifest = cls(
            name=data["name"],
            signature=Signature.from_dict(data["signature"], f"{where}: signature"),
            artifacts=artifacts,
            sharing=dict(data.get("sharing", {})),
            verification=tuple(data.get("verification", ())),
            provenance=dict(data.get("provenance", {})),
            reference=dict(data.get("reference", {})),
            calibration=dict(data.get("calibration", {})),
            accuracy=dict(data.get("accuracy", {})),
            parts=tuple(Part.from_dict(item) for item in data.get("parts", ())),
        )
        others = [record["path"] for record in (manifest.reference, manifest.calibration) if "path" in record]
        for path in [*(artifact.path for artifact in manifest.files), *others]:
            _check_inside(path, where)
        for part in manifest.parts:
            for border in (*part.inputs, *part.outputs):
                if len(border.one) != len(border.more):
                    raise BundleError(f"{where}: {part.path}: {border.name!r} is of no shape; export again")
        for artifact in manifest.files:
            if artifact.batch_max is not None and artifact.batch_max < artifact.batch_min:
                raise BundleError(
                    f"{where}: {artifact.path} takes batches from {artifact.batch_min} to {artifact.batch_max}, which is no range; "
                    "export again"
                )
        return manifest


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def read(self, artifact: Artifact) -> bytes:
        """Return an artifact's bytes, once their SHA-256 is checked against the manifest's.

        The bytes that are checked are those that are returned, so a file that changes in between cannot slip through.

        Raises:
            BundleError: the file is missing or unreadable, or a graph that
                :func:`~mtl_deploy.runtime.onnx_format.check.check_graph` refuses, such as one that reads weights from another file.
            IntegrityError: its content is not the one that the manifest describes.
        """
        content = self.read_checked(artifact.path, artifact.sha256)
        if artifact.backend == "onnxruntime":
            check_graph(content, str(self.path / artifact.path))
        return content

    def read_checked(self, path: str, sha256: str) -> bytes:
        """Return the bytes of any file of the bundle, once their SHA-256 is checked against the given one.

        Raises:
            BundleError: the file is missing or unreadable.
            IntegrityError: its content differs.
        """
        file = self.path / path
        try:
            content = read_bytes(file, None)
        except OSError as error:
            raise BundleError(f"{file}: {describe(error)}; copy the bundle again, as a whole folder") from error
        if (found := hashlib.sha256(content).hexdigest()) != sha256:
            with suppress(OSError):  # displaced, while this bundle is replaced file by file
                former = read_bytes(self.path / FORMER / path, None)
                if hashlib.sha256(former).hexdigest() == sha256:
                    return former
            raise IntegrityError(
                f"{file}: SHA-256 is {found[:12]}..., the manifest says {str(sha256)[:12]}...; "
                "the file was changed or copied badly: copy the bundle again, or export again"
            )
        return content


def _check_inside(path: str, where: str) -> None:
    pure = Path(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise BundleError(f"{where}: artifact path {path!r} leaves the bundle; do not use this file")


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle: its folder or the ``manifest.json`` in it. No artifact is read yet.

    Raises:
        BundleError: there is no readable manifest of a known schema.
    """
    folder = Path(path)
    if folder.name == MANIFEST:
        folder = folder.parent
    file = folder / MANIFEST
    try:
        data = parse_json(_content_of(folder))
    except FileNotFoundError as error:
        raise BundleError(no_bundle(folder)) from error
    except NotADirectoryError as error:
        raise BundleError(no_bundle(folder)) from error
    except OSError as error:
        raise BundleError(f"{file}: {describe(error)}") from error
    except DocumentError as error:
        raise BundleError(f"{file}: {error}; copy the bundle again, or export again") from error
    if not isinstance(data, dict):
        raise BundleError(f"{file}: a manifest is a JSON object, this is {type(data).__name__}")
    return Bundle(folder, Manifest.from_dict(data, str(file)))


def _content_of(folder: Path) -> bytes:
    """Return the manifest's bytes; if the folder is exchanged for another while it is read, those of the new one."""
    while True:
        before = _state(folder)
        try:
            return read_bytes(folder / MANIFEST)
        except FileNotFoundError:
            if _state(folder) == before:
                raise


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (
        (found.st_dev, found.st_ino)
        if file.is_dir()
        else (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    )


def manifest_state(path: str | os.PathLike[str]) -> tuple[tuple[int, ...] | None, ...]:
    """Return a value that changes when the bundle at a path, or around it, is replaced: which files its folder and manifest are."""
    file = Path(path)
    folders = [file, *list(file.parents)[:_DEEPEST]]
    return tuple(_state(place) for folder in folders for place in (folder, folder / MANIFEST))


def find_bundle(artifact: str | os.PathLike[str]) -> tuple[Bundle, Artifact] | None:
    """Return the bundle that a file lies in, and the file's entry there; None where it lies in none.

    Raises:
        BundleError: it lies in a bundle whose manifest cannot be used.
    """
    file = Path(artifact).resolve()
    for folder in list(file.parents)[:_DEEPEST]:  # the bundle itself, its separate/, or its split/fp32/
        if (folder / MANIFEST).is_file():
            bundle = open_bundle(folder)
            for entry in bundle.manifest.files:
                if (folder / entry.path).resolve() == file:
                    return bundle, entry
    return None


def digest(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, read in pieces."""
    sha = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
