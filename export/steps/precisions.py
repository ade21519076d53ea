"""Verify the FP32 graphs, make the FP16 ones, and name what verification cannot see."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mtl_deploy.export.fp16.stage import HalfStage
from mtl_deploy.export.fp16.typed import Typed
from mtl_deploy.export.graph.variants import GraphVariant
from mtl_deploy.export.network.network import Network
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.targets.check import check_targets
from mtl_deploy.export.verification.reach import Question, unseen_notes
from mtl_deploy.export.verification.rows import require_passed
from mtl_deploy.export.verification.stage import Originals, Stress, describe_stress, verify_graphs
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.bundle.writing import EarlyFiles
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import FallbackWarning, VerificationError

from .ahead import Ahead
from .outputs import Bound


@dataclass(frozen=True)
class Verified:
    """Graphs that match the network.

    Attributes:
        graphs: of every precision, the shared FP32 one first.
        rows: one per graph and task.
        artifacts: the manifest's entries, in the order of the graphs.
        notes: what the targets read, and what a reader of the bundle should know.
        left_out: by precision, why it is missing.
    """

    graphs: list[GraphVariant]
    rows: list[Row]
    artifacts: list[Artifact]
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def ask_for_stress(network: Network | Ahead, bound: Bound, progress: Progress) -> Stress:
    """Run PyTorch on images far from photographs. Graphs are run on them while they are loaded to be verified."""
    with progress.step("Running PyTorch on stress images, which decide nothing"):
        return Stress(network, bound.signature, bound.batch)


def verify_fp32(
    bound: Bound, stress: Stress | None, options: Options, progress: Progress, early: EarlyFiles | None = None
) -> Verified:
    """Check the FP32 graphs for the targets, and verify them, while their files are written.

    Raises:
        OptionError: a target does not read a graph.
        VerificationError: a graph does not match the network.
    """
    notes = _check(bound.graphs, options)
    rows, artifacts = verify_graphs(bound.graphs, bound.samples, options, progress, stress=stress, early=early)
    require_passed(rows)
    return Verified(bound.graphs, rows, artifacts, notes)


def add_fp16(
    verified: Verified,
    bound: Bound,
    stress: Stress | None,
    options: Options,
    progress: Progress,
    early: EarlyFiles | None = None,
    typed: Typed | None = None,
) -> Verified:
    """Type the graphs in FP16 and verify them, if FP16 is wanted; continue without it if it fails and was not asked for by name.

    Raises:
        OptionError: a target does not read a graph.
        VerificationError: FP16 was asked for by name and fails.
    """
    if "fp16" not in options.precisions:
        return verified
    try:
        originals = Originals(bound.graphs, verified.rows)
        half = HalfStage(originals, bound.samples, bound.shares, options, progress, stress, early, typed).make()
    except VerificationError as error:
        return replace(verified, left_out=leave_out("fp16", error, options))
    notes = list(dict.fromkeys([*verified.notes, *_check(half.graphs, options)]))
    return Verified(
        verified.graphs + half.graphs, verified.rows + half.rows, verified.artifacts + half.artifacts, notes
    )


def ask_for_gaps(forward: Network | Ahead, verified: Verified, bound: Bound, options: Options) -> Question:
    """Return the question which weights verification could not see, and let the fork find the answer, if there is one.

    Args:
        forward: the network.
        verified: the FP32 graphs.
        bound: what they were verified on.
        options: the tolerance.
    """
    question = Question.of(bound.signature, bound.samples[0][0], verified.rows, options)
    if isinstance(forward, Ahead):
        forward.ask(question)
    return question


def look_for_gaps(
    verified: Verified, question: Question, forward: Network | Ahead, stress: Stress, progress: Progress
) -> tuple[list[dict[str, Any]], list[str]]:
    """Say how shared graphs do on stress images, and find weights whose errors verification could not see. Nothing fails here.

    Args:
        verified: the graphs of all precisions.
        question: about the FP32 graphs.
        forward: the network.
        stress: has seen the shared graphs.
        progress: shows what is being done.

    Returns:
        How far off each graph and task is on the stress images, and notes for a reader of the bundle.
    """
    with progress.step("Looking at what verification cannot see") as say:
        stressed = stress.rows(verified.graphs)
        say(f"on stress images, which decide nothing, the errors are {describe_stress(stressed)} of the spread")
        answer = forward.answer(question) if isinstance(forward, Ahead) else question.answer(forward)
        return stressed, unseen_notes(question.signature, verified.rows, answer)


def leave_out(precision: str, error: VerificationError, options: Options) -> dict[str, str]:
    """Continue without a precision that was not asked for by name, with a warning.

    Returns:
        The reason, by precision.

    Raises:
        VerificationError: it was asked for; nothing is written then.
    """
    if precision in options.named:
        raise VerificationError(f"{error}. Nothing was written") from error
    warnings.warn(f"{precision} is left out of the bundle: {error}", FallbackWarning, stacklevel=2)
    return {precision: str(error)}


def _check(graphs: Sequence[GraphVariant], options: Options) -> list[str]:
    return check_targets(graphs, lambda graph: graph.content(), options.targets)
