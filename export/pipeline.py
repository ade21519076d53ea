"""From a checkpoint to a bundle: the order of the steps, and nothing else.

This is also the one place where torch and onnx are loaded late. ``mtl-export --help``, engines for a bundle on a device, and
whatever is refused before any work starts must neither wait for them nor need them. The modules of ``steps/`` need them.
"""

from __future__ import annotations

from collections.abc import Callable

from mtl_deploy.export.engines.bundle_engines import builder_for
from mtl_deploy.runtime.bundle.manifest import Bundle, Manifest
from mtl_deploy.runtime.bundle.signing import load_signer
from mtl_deploy.runtime.bundle.writing import Claim, EarlyFiles, claimed
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.console.resting import settled, settling

from .options.export import Options


def export(options: Options, progress: Progress) -> Bundle:
    """Load, trace, clean, bind, verify, type, quantize, build, write.

    Raises:
        MtlError: the input cannot be used (exit code 2), or a step failed (:class:`WorkError`, exit code 1). Nothing is
            left behind then.
    """
    inputs = (options.checkpoint, options.images, options.calibration_data, options.labels)
    with claimed(options.target, force=options.force, inputs=inputs) as claim, settled(), claim.early_files() as early:
        return before_writing(options, progress, early)(claim)


def before_writing(options: Options, progress: Progress, early: EarlyFiles) -> Callable[[Claim], Bundle]:
    """Do all the work of an export except for putting the bundle in its place, which the returned function does.

    Args:
        options: what was asked for.
        progress: shows what is being done.
        early: writes the graphs' files while they are verified.
    """
    signer = None if options.sign is None else load_signer(options.sign)
    builder = builder_for(options.tasks or (), options.engines)
    with progress.step("Starting PyTorch"), settling():
        from .fp16.typed import typed_meanwhile
        from .steps.ahead import ahead_of_time
        from .steps.int8 import quantizer, read_data
        from .steps.network import clean, load, trace_network
        from .steps.outputs import bind
        from .steps.parts import plan_split, split_graphs
        from .steps.precisions import add_fp16, ask_for_gaps, ask_for_stress, look_for_gaps, verify_fp32
        from .steps.provenance import provenance, without
        from .steps.truth import ask_pytorch, pack_reference
        from .steps.writing import Writer

    with settling():  # it imports much
        network = load(options, progress)
    with ahead_of_time(network, options) as forward:
        with settling():
            traced = trace_network(network, options, progress)
        data = read_data(network, options, progress)
        with settling():
            merged = clean(traced, network, options, progress)
        truth = ask_pytorch(network, traced.batch, options, progress, forward)
        bound = bind(traced, truth, options, progress)
        costs = plan_split(bound, options)
        packed, reference = pack_reference(network, bound.signature, bound.batch, *bound.samples[0])
        quantize = quantizer(network, bound.signature, data, bound.batch, options, progress)
        stress = None if options.quick else ask_for_stress(forward, bound, progress)
        with typed_meanwhile(bound.graphs[0], bound.samples, options) as typed:
            verified = verify_fp32(bound, stress, options, progress, early)
            question = ask_for_gaps(forward, verified, bound, options) if stress else None
            verified = add_fp16(verified, bound, stress, options, progress, early, typed)
        stressed, unseen = (
            look_for_gaps(verified, question, forward, stress, progress) if stress and question else ([], [])
        )
    in_parts = split_graphs(verified, bound, costs, options, progress)

    notes = [*network.notes, *traced.notes, *truth.notes, *bound.notes, *verified.notes, *unseen]
    origin = provenance(network.loaded, options, truth.images, notes)
    manifest = Manifest(
        name=options.target.stem,
        signature=bound.signature,
        artifacts=tuple(verified.artifacts),
        sharing=in_parts.sharing(bound.shares.to_dict(merged)),
        verification=tuple(row.to_dict() for row in verified.rows),
        provenance=origin
        | {"stress": stressed, "left_out": {**verified.left_out, **in_parts.left_out}}
        | without(options),
        reference=reference,
        parts=in_parts.parts,
    )
    cuts = tuple(in_parts.cuts.values())
    return Writer(manifest, verified.graphs, early, cuts, packed, quantize, builder, signer, options, progress)
