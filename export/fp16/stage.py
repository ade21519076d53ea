"""The FP16 graphs of an export: typed, verified, and where rounding costs a task too much, with more layers in FP32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl_deploy.export.graph.cost import multiply_adds
from mtl_deploy.export.graph.sizes import at_size
from mtl_deploy.export.graph.split import Sharing
from mtl_deploy.export.graph.variants import GraphVariant, variants
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.verification.expected import EXACT
from mtl_deploy.export.verification.rows import described
from mtl_deploy.export.verification.stage import Originals, Samples, Stress, allowed, running, verify_graphs
from mtl_deploy.export.verification.verify import judge, with_logits
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.bundle.writing import EarlyFiles
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.console.nouns import counted, noun
from mtl_deploy.runtime.errors import VerificationError

from .fit import Fp16Fit, fit
from .regain import regain
from .typed import Typed

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from mtl_deploy.calibration.fp16.rounding import Half
    from mtl_deploy.calibration.fp16.typing import HalfResult
    from mtl_deploy.calibration.observe.statistics import TensorStatistics

GOOD_SHARE = 0.8
"""Of the multiply-adds: with less than this in FP16, the rounding of the weights is chosen too, which takes longer."""

_WAYS_ON = "--tolerance fp16=0.05 allows more, --precision fp32 leaves FP16 out"
_REASON = "kept for accuracy: a task would be over its tolerance otherwise"
_FINDING = "Finding what must stay in FP32"
_ROUNDING = "Choosing how weights are rounded"
_AGAIN = "Trying layers in FP16 again"
_SEEN = 32  # images that the rounding of weights is chosen by
_JOINS = "joins branches, beside layers kept for accuracy: rounding adds up there"


@dataclass(frozen=True)
class Variants:
    """Graphs of one precision that have been verified."""

    graphs: list[GraphVariant]
    rows: list[Row]
    artifacts: list[Artifact]


class HalfStage:
    """Makes the FP16 graphs of verified FP32 graphs.

    Args:
        originals: the FP32 graphs, verified, the shared one first.
        samples: images with what PyTorch gave for them.
        shares: what the tasks share.
        options: what was asked for.
        progress: shows what is being done.
        stress: is shown the shared graph too.
        early: writes the files while they are verified.
        typed: the shared graph in FP16, if it is made already.
    """

    def __init__(
        self,
        originals: Originals,
        samples: Samples,
        shares: Sharing,
        options: Options,
        progress: Progress,
        stress: Stress | None = None,
        early: EarlyFiles | None = None,
        typed: Typed | None = None,
    ) -> None:
        self._early, self._typed = early, typed
        self._stress = stress
        self._originals, self._samples, self._shares = originals, samples, shares
        self._options, self._progress = options, progress
        self._shared = originals.graphs[0]
        preprocessing = self._shared.signature.preprocessing
        size = (preprocessing.height, preprocessing.width) if preprocessing.multiple else None
        counted = at_size(self._shared.model, size).graph
        self._costs = {str(node.name): float(work) for node in counted if (work := multiply_adds(node))}

    def make(self) -> Variants:
        """Type, verify and where needed fit the graphs.

        Raises:
            VerificationError: FP16 does not keep every task, or a graph is wrong; says what, and the ways on.
        """
        with self._progress.step("Typing FP16") as say:
            if self._typed is None:
                self._typed = Typed(self._shared, self._samples, self._options.threads)
                self._typed.make()
            proto = self._typed.proto
            statistics, half = self._typed.result
            share = self._share(half)
            say(f"{half.description}; {100 * share:.1f} % of the multiply-adds in FP16")
        made = self._variants(half, half.to_dict() | {"share": share})
        rows, artifacts = self._verified(made)
        failed = [row for row in rows if not row.passed]
        if not failed:
            return Variants(made.graphs, rows, artifacts)
        if any(row.structure_excess is not None and not row.structure_excess <= 1 for row in failed):
            raise VerificationError(described(failed))
        found, rounded = self._fit(proto, statistics, half, {row.task: row.excess for row in rows})
        if not found.fits:
            raise VerificationError(
                f"{described(failed)}, and with half of the multiply-adds in FP32 as well; its rounding is what FP16 costs this "
                f"network. {_WAYS_ON}"
            )
        half = _to_half(proto, statistics, _reasons(found.keep | found.joins, found.joins), rounded)
        details = half.to_dict() | {"share": found.share, "fit": found.to_dict()}
        made = self._variants(half, details | ({"rounding": sorted(rounded)} if rounded else {}))
        rows, artifacts = self._verified(made, rounded)
        if failed := [row for row in rows if not row.passed]:
            raise VerificationError(f"{described(failed)}, with {_kept(found)} in FP32. {_WAYS_ON}")
        return Variants(made.graphs, rows, artifacts)

    def _verified(self, made: Variants, rounded: Collection[str] = ()) -> tuple[list[Row], list[Artifact]]:
        return verify_graphs(
            made.graphs,
            self._samples,
            self._options,
            self._progress,
            originals=self._originals,
            stress=self._stress,
            rounded=rounded,
            early=self._early,
        )

    def _variants(self, half: HalfResult, details: dict[str, Any]) -> Variants:
        shared = self._shared
        graphs = variants(
            _model(half),
            "fp16",
            shared.signature,
            self._shares,
            shared.batch,
            separate=self._options.separate,
            details=details,
        )
        return Variants(list(graphs), [], [])

    def _share(self, half: HalfResult) -> float:
        return sum(self._costs.get(name, 0.0) for name in half.half) / max(sum(self._costs.values()), 1.0)

    def _fit(
        self,
        proto: onnx.ModelProto,
        statistics: Mapping[str, TensorStatistics],
        half: HalfResult,
        before: Mapping[str, float],
    ) -> tuple[Fp16Fit, dict[str, Half]]:
        """Find what must stay in FP32; return it, and the weights that are not rounded to nearest for it."""
        few = [(images[: max(EXACT, self._shared.batch or 1)], expected) for images, expected in self._samples[:1]]
        layers = [name for name in half.half if self._costs.get(name)]
        total = sum(self._costs.values())
        rounded: dict[str, Half] = {}

        def excess(keep: frozenset[str], samples: Samples) -> dict[str, float]:
            from mtl_deploy.calibration.fp16.emulate import emulate_half

            shared = self._shared
            reasons = _reasons(keep, half.joins)
            content = emulate_half(_to_half(proto, statistics, reasons, rounded).model).SerializeToString()
            tolerance = allowed(self._options, "fp16")
            with running(with_logits(content, shared.signature), self._options) as backend:
                judged = judge("fp16.onnx", backend, shared.signature, samples, tolerance, shared.batch, "fp16")
            return {one.row.task: one.row.excess for one in judged}

        def on_all(keep: frozenset[str]) -> dict[str, float]:
            return excess(keep, self._samples)

        def on_few(keep: frozenset[str]) -> dict[str, float]:
            return excess(keep, few)

        with self._progress.step(_FINDING) as say:
            found = fit(layers, self._costs, total, before, on_all, on_few, self._say(_FINDING), half.joins)
            say(
                f"{_kept(found)} in FP32, {100 * found.share:.1f} % of the multiply-adds in FP16"
                if found.fits
                else "not enough with half of the work in FP32"
            )
        if not found.fits or found.share >= GOOD_SHARE:
            return found, {}
        with self._progress.step(_ROUNDING) as say:
            rounded |= self._rounded(proto, found)
            say(f"{len(rounded)} weights and biases rounded up or down")
        with self._progress.step(_AGAIN) as say:
            more = regain(found, layers, self._costs, total, on_all, on_few, self._say(_AGAIN), half.joins, GOOD_SHARE)
            say(f"{_kept(more)} in FP32, {100 * more.share:.1f} % of the multiply-adds in FP16")
        return (more, rounded) if more.share > found.share else (found, {})

    def _say(self, step: str) -> Callable[[str], None]:
        return lambda text: self._progress.update(f"{step}: {text}")

    def _rounded(self, proto: onnx.ModelProto, found: Fp16Fit) -> dict[str, Half]:
        from mtl_deploy.calibration.fp16.rounding import choose_rounding

        assert self._typed is not None  # it was found by trying
        images = list(self._typed.inputs(self._samples[0][0][:_SEEN]))
        return choose_rounding(proto, found.loud, images, threads=self._options.threads)


def _reasons(keep: Collection[str], joins: Collection[str]) -> dict[str, str]:
    return {name: _JOINS if name in joins else _REASON for name in keep}


def _kept(found: Fp16Fit) -> str:
    """Say what a search keeps in FP32, for people."""
    layers = f"{len(found.keep)} more {noun(len(found.keep), 'layer')}"
    joins = len(found.joins)
    return (
        f"{layers} and {counted(joins, 'operation')} that {noun(joins, 'joins', 'join')} branches"
        if found.joins
        else layers
    )


def _to_half(
    proto: onnx.ModelProto,
    statistics: Mapping[str, TensorStatistics],
    keep: Mapping[str, str] | None = None,
    rounded: Mapping[str, Half] | None = None,
) -> HalfResult:
    from mtl_deploy.calibration.fp16.typing import to_half

    return to_half(proto, statistics, keep, rounded)


def _model(half: HalfResult) -> ir.Model:
    import onnx_ir as ir

    return ir.from_proto(half.model)
