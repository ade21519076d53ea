"""Running the files of graphs and comparing them with what PyTorch gave, one file in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.calibration.graph.file import without_weights
from mtl_deploy.export.graph.variants import GraphVariant, require_valid
from mtl_deploy.export.network.inputs import Images
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.tolerances import GRAPHS, tolerance_of
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.bundle.writing import EarlyFiles
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import VerificationError

from .expected import EXACT, Expected, Forward, run_network
from .images import stress_images
from .parts import GraphParts
from .same import same_but_for_types
from .verify import judge, verify, with_logits

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from mtl_deploy.runtime.backends.base import Backend

Samples = Sequence[tuple[Images, Expected]]


@dataclass(frozen=True)
class Originals:
    """What FP16 graphs are made from.

    Attributes:
        graphs: the FP32 graphs, the shared one first.
        rows: of their verification, which they passed.
    """

    graphs: Sequence[GraphVariant]
    rows: Sequence[Row] = ()


def verify_graphs(
    graphs: Sequence[GraphVariant],
    samples: Samples,
    options: Options,
    progress: Progress,
    originals: Originals | None = None,
    stress: Stress | None = None,
    rounded: Collection[str] = (),
    early: EarlyFiles | None = None,
) -> tuple[list[Row], list[Artifact]]:
    """Run each graph's file and compare it with what PyTorch gave; the first one that does not match ends it.

    A separate model whose file is a part of the shared graph's, node for node, is run on the first images only, in float32, and its
    rows have the figures of the shared graph. An FP16 graph that is its FP32 graph but for types is not run in float32 again.

    Args:
        graphs: of one precision, the shared one first.
        samples: images with what PyTorch gave for them. The first FP32 graph leaves its errors there, as ``noise``.
        options: tolerances and threads.
        progress: shows what is being done.
        originals: for FP16 graphs: what they were made from.
        stress: is shown the shared graph too, while it is loaded.
        rounded: names of the weights of FP16 graphs that were rounded up or down, not to nearest.
        early: writes the files while they are verified; None: they are not written.

    Returns:
        One row per graph and task, and the manifest's entries. The last rows may not have passed.
    """
    rows: list[Row] = []
    artifacts: list[Artifact] = []
    whole: GraphParts | None = None
    for graph in graphs:
        with progress.step(f"Verifying {graph.path}") as say:
            content = graph.content()
            if early is not None:
                early.write(graph.path, content)
            require_valid(content)
            found = None
            if graph.role == "separate" and whole is not None and whole.holds(content):
                found = _verify_part(graph, content, rows, samples, options, originals, rounded)
            if found is None:
                found = _verify(graph, content, samples, options, stress)
                if graph.precision == "fp16":
                    checked = _structure(graph, content, samples, options, originals, rounded)
                    found = [replace(row, structure_excess=checked[row.task].excess) for row in found]
            if graph.role == "shared" and len(graphs) > 1:
                whole = GraphParts(content)
            worst = max(found, key=_share_of_allowed)
            cut = f"part of {worst.cut_from}, " if worst.cut_from else ""
            artifacts.append(graph.artifact(content, None if early is None else early.sha256(graph.path)))
            say(f"{cut}at most {100 * _share_of_allowed(worst):.2g} % of the error allowed ({worst.task})")
            rows += found
            if not all(row.passed for row in found):
                break
    return rows, artifacts


def _share_of_allowed(row: Row) -> float:
    share = max(row.excess, row.structure_excess or 0.0)
    return float("inf") if np.isnan(share) else share


def allowed(options: Options, precision: str) -> float:
    """Return a precision's tolerance."""
    return tolerance_of(precision, options.tolerances, GRAPHS)


def _verify(
    graph: GraphVariant, content: bytes, samples: Samples, options: Options, stress: Stress | None = None
) -> list[Row]:
    tolerance = allowed(options, graph.precision)
    with running(with_logits(runnable(graph, content), graph.signature), options) as backend:
        judged = judge(graph.path, backend, graph.signature, samples, tolerance, graph.batch, graph.precision)
        if stress is not None and graph.role == "shared":
            stress.look_at(graph, backend)
    if graph.precision == "fp32" and graph.role == "shared":
        for one in judged:
            for tensor, errors in one.errors.items():
                start = 0
                for _, expected in samples:
                    expected.noise[tensor] = errors[start : start + len(expected)]
                    start += len(expected)
    return [one.row for one in judged]


def _verify_part(
    graph: GraphVariant,
    content: bytes,
    rows: Sequence[Row],
    samples: Samples,
    options: Options,
    originals: Originals | None,
    rounded: Collection[str],
) -> list[Row] | None:
    """Run a part of a verified graph on a few images, in float32, and return the whole's rows for it; None if it does not match."""
    half = graph.precision == "fp16"
    if half:
        found = _structure(graph, content, samples, options, originals, rounded)
    else:
        found = {row.task: row for row in _on_few(graph, content, samples, options)}
    if not all(row.passed for row in found.values()):
        return None
    of = {row.task: row for row in rows if row.artifact == f"{graph.precision}.onnx"}
    return [
        replace(
            of[task],
            artifact=graph.path,
            cut_from=of[task].artifact,
            structure_excess=own.excess if half else None,
        )
        for task, own in found.items()
    ]


def _structure(
    graph: GraphVariant,
    content: bytes,
    samples: Samples,
    options: Options,
    originals: Originals | None,
    rounded: Collection[str],
) -> dict[str, Row]:
    """Judge an FP16 graph without its rounding, in float32 and with the weights that it was made from.

    If it is the FP32 graph that it was made from but for types, it has that graph's rows. Otherwise it is run in float32, and must
    do as well as an FP32 graph.

    Returns:
        Rows by task.

    Raises:
        VerificationError: a weight is not the FP32 graph's, rounded.
    """
    import onnx

    from mtl_deploy.calibration.fp16.emulate import original_name, require_rounded, widen_half

    assert originals is not None  # FP16 graphs come with them
    original = next(one for one in originals.graphs if one.signature.tasks == graph.signature.tasks)
    weights = _weights(original.model)
    proto = onnx.load_from_string(content)
    try:
        require_rounded(proto, weights, rounded)
    except VerificationError as error:
        raise VerificationError(f"{graph.path}: {error}") from error
    known = {row.task: row for row in originals.rows if row.artifact == original.path}

    def called(name: str) -> str | None:
        own = original_name(name, weights)
        return own if own in weights else None

    if known and same_but_for_types(proto, without_weights(original.model), called):
        return known
    widened = widen_half(proto, weights, rounded).SerializeToString()
    return {row.task: row for row in _on_few(graph, widened, samples, options)}


def _on_few(graph: GraphVariant, content: bytes, samples: Samples, options: Options) -> list[Row]:
    """Compare a graph in float32 with what PyTorch gave for the first images."""
    few = [(images[: max(EXACT, graph.batch or 1)], expected) for images, expected in samples]
    with running(with_logits(content, graph.signature), options) as backend:
        return verify(graph.path, backend, graph.signature, few, tolerance=allowed(options, "fp32"), batch=graph.batch)


def _weights(model: ir.Model) -> dict[str, npt.NDArray[Any]]:
    held = (output for node in model.graph for output in node.outputs if node.op_type == "Constant")
    values = [*model.graph.initializers.values(), *held]
    return {str(value.name): value.const_value.numpy() for value in values if value.const_value is not None}


class Stress:
    """Images far from photographs, which shared graphs are run on; the result is reported and decides nothing.

    Args:
        network: that the graphs were made from.
        signature: of the shared graphs.
        batch: the only batch that they take; None if they take any.
    """

    def __init__(self, network: Forward, signature: Signature, batch: int | None) -> None:
        images = stress_images(signature.preprocessing, batch)
        self._samples = [(images, run_network(network, signature, images, batch, exactly=False))]
        self._found: dict[str, list[Row]] = {}

    def look_at(self, graph: GraphVariant, backend: Backend) -> None:
        """Run a graph that is loaded ``with_logits``; its rows take the place of those of the same path."""
        tolerance = GRAPHS["fp32"]
        self._found[graph.path] = verify(
            graph.path, backend, graph.signature, self._samples, tolerance=tolerance, batch=graph.batch
        )

    def rows(self, graphs: Sequence[GraphVariant]) -> list[dict[str, Any]]:
        """Return, by shared graph and task, the largest error and the spread of the output on these images."""
        return [
            {
                "artifact": row.artifact,
                "task": row.task,
                "max_error": _finite(row.max_error if row.logit_error is None else row.logit_error),
                "spread": _finite(row.spread),
            }
            for graph in graphs
            for row in self._found.get(graph.path, [])
        ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def describe_stress(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how graphs do on the stress images: for each, the largest error of all tasks relative to the spread."""
    worst: dict[str, float] = {}
    for row in rows:
        share = row["max_error"] / row["spread"] if row["max_error"] is not None and row["spread"] else np.nan
        worst[row["artifact"]] = float(np.fmax(worst.get(row["artifact"], 0.0), share))
    return ", ".join(f"{artifact} {100 * share:.2g} %" for artifact, share in worst.items())


def runnable(graph: GraphVariant, content: bytes) -> bytes:
    """Return a file that shows a graph's numbers on a CPU: an FP16 graph with its rounding written out."""
    if graph.precision != "fp16":
        return content
    import onnx

    from mtl_deploy.calibration.fp16.emulate import emulate_half

    emulated: bytes = emulate_half(onnx.load_from_string(content)).SerializeToString()
    return emulated


@contextmanager
def running(content: bytes, options: Options) -> Iterator[Backend]:
    """Run a graph in ONNX Runtime on the CPU."""
    from mtl_deploy.calibration.graph.frugal import FrugalBackend

    with closing(FrugalBackend(content, threads=options.threads, spinning=False)) as backend:
        yield backend
