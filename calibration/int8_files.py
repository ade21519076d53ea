"""INT8 graphs in a bundle: the graph they are made from, their files, their manifest entries and their reference outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.accuracy.run import BATCH, run_graph
from mtl_deploy.calibration.graph.sizes import images_at_once
from mtl_deploy.calibration.split.stage import Images, costs_of, cut_graph
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, Manifest
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.bundle.writing import write_file, write_hashed
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import BundleError, MtlError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.onnx_format.cut import cut


def fp32_graph(manifest: Manifest) -> Artifact:
    """Return the shared FP32 graph, which INT8 graphs are made from.

    Raises:
        BundleError: there is none.
    """
    for artifact in manifest.artifacts:
        if (artifact.role, artifact.precision, artifact.backend) == ("shared", "fp32", "onnxruntime"):
            return artifact
    raise BundleError("the bundle has no shared fp32 graph to quantize; export the network again")


def write_graphs(
    folder: Path, manifest: Manifest, precision: str, content: bytes, details: dict[str, Any]
) -> list[Artifact]:
    """Write the shared graph of a precision and, where the bundle has separate FP32 graphs, those of its tasks too.

    Args:
        folder: the bundle's.
        manifest: names the FP32 graphs.
        precision: of the graph, as its file is called.
        content: the shared ``.onnx`` file.
        details: for the shared graph's entry.

    Returns:
        the graphs' entries in the manifest.
    """
    written = []
    for artifact in manifest.artifacts:
        if (artifact.precision, artifact.backend) != ("fp32", "onnxruntime"):
            continue
        alone = artifact.role == "separate"
        path = f"separate/{artifact.tasks[0]}.{precision}.onnx" if alone else f"{precision}.onnx"
        own = _for_tasks(content, manifest.signature, artifact.tasks) if alone else content
        sha256 = write_hashed(folder, path, own)
        written.append(
            replace(
                artifact,
                path=path,
                precision=precision,
                opset=_opset(own),
                sha256=sha256,
                size_bytes=len(own),
                details={} if alone else details,
            )
        )
    return written


def _for_tasks(content: bytes, signature: Signature, tasks: Sequence[str]) -> bytes:
    model = onnx.load_from_string(cut(content, tasks))
    onnx.helper.set_model_props(model, {METADATA_KEY: signature.subset(tasks).to_json()})
    alone: bytes = model.SerializeToString(deterministic=True)
    return alone


def _opset(content: bytes) -> int:
    from mtl_deploy.runtime.onnx_format.graph import read_graph

    return int(read_graph(content).opset)


def with_reference(bundle: Bundle, runnable: bytes, batch: int | None, *, like: bytes, threads: int | None) -> Manifest:
    """Add the INT8 graph's outputs to the bundle's reference: an INT8 engine must match that graph, not PyTorch.

    Args:
        bundle: the one that is being written; one without a reference is left as it is.
        runnable: an ``.onnx`` file that gives the INT8 graph's numbers on a CPU.
        batch: the only batch that it takes; None: any.
        like: the FP32 graph, whose tensors say how many images are run at once.
        threads: of ONNX Runtime; None: one per core.

    Returns:
        the bundle's manifest, with the new record of the reference.
    """
    manifest = bundle.manifest
    found = reference.read(bundle)
    if found is None:
        return manifest
    preprocessing = manifest.signature.preprocessing
    most = images_at_once(like, manifest.signature, BATCH)
    given = run_graph(runnable, found.images, preprocessing, batch=batch, most=most, threads=threads)
    packed, record = reference.pack(found.images, found.outputs, given, found.margins, found.floors)
    write_file(bundle.path, reference.PATH, packed)
    return replace(manifest, reference=record)


def with_int8(
    manifest: Manifest,
    artifacts: Sequence[Artifact],
    rows: Sequence[Row],
    matrix: AccuracyMatrix,
    record: dict[str, Any],
) -> Manifest:
    """Return a manifest with the INT8 graphs in it; they replace entries with the same paths."""
    paths = {artifact.path for artifact in artifacts}
    return replace(
        manifest,
        artifacts=(*(item for item in manifest.artifacts if item.path not in paths), *artifacts),
        verification=(
            *(row for row in manifest.verification if row["artifact"] not in paths),
            *(row.to_dict() for row in rows),
        ),
        accuracy=matrix.to_dict(),
        calibration=record,
    )


def with_parts(
    folder: Path, manifest: Manifest, images: Images, *, threads: int | None, progress: Progress
) -> Manifest:
    """Cut the INT8 graphs into parts too, where the FP32 graph is; write them, and return the manifest with them.

    A graph that cannot be cut keeps its place as a whole, and the manifest says why it has no parts.

    Args:
        folder: the bundle's, with the INT8 graphs in it.
        manifest: with the INT8 graphs.
        images: ``(N, H, W, C) uint8``, of the network's default size.
        threads: of ONNX Runtime; None: one per core.
        progress: shows the steps.
    """
    costs = costs_of(manifest.parts)
    if not costs:
        return manifest
    bundle = Bundle(folder, manifest)
    parts = list(manifest.parts)
    cuts, left_out = dict(manifest.sharing.get("cut", {})), dict(manifest.provenance.get("left_out", {}))
    for artifact in manifest.artifacts:
        precision = artifact.precision
        if (artifact.role, artifact.backend) != ("shared", "onnxruntime") or not precision.startswith("int8"):
            continue
        former = [part for part in parts if (part.precision, part.backend) == (precision, "onnxruntime")]
        parts = [part for part in parts if part not in former]
        cuts.pop(precision, None)
        left_out.pop(f"split {precision}", None)
        with progress.step(f"Splitting {artifact.path}") as say:
            try:
                found = cut_graph(
                    bundle.read(artifact), artifact, manifest.signature.preprocessing, [images], costs, threads=threads
                )
            except MtlError as error:
                left_out[f"split {precision}"] = str(error)
                for part in former:
                    disk.remove(folder / part.path)
                say(f"left out: {error}")
                continue
            found.write(folder)
            parts += found.parts
            cuts[precision] = found.record
    return replace(
        manifest,
        parts=tuple(parts),
        sharing=manifest.sharing | {"cut": cuts},
        provenance=manifest.provenance | {"left_out": left_out},
    )
