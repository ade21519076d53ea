"""A bundle with any number of heads, to measure what each additional head costs: copies of one head of a bundle's own network.

Run as ``python -m mtl_deploy.export.baselines.synthetic_heads BUNDLE OUT.mtl --heads N``. The outputs of the heads mean nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_deploy import __version__
from mtl_deploy.export.graph.cost import Cost
from mtl_deploy.export.graph.passes import Merged, infer_shapes
from mtl_deploy.export.graph.split import Sharing, sharing
from mtl_deploy.export.graph.variants import require_valid, serialize, variants
from mtl_deploy.runtime.bundle.manifest import SUFFIX, Artifact, Bundle, Manifest, open_bundle
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.writing import check_target, write_file, write_manifest, writing
from mtl_deploy.runtime.console.command import parser, run_command
from mtl_deploy.runtime.errors import BackendError, BundleError, OptionError, TraceError

from .head_copies import copy_heads

if TYPE_CHECKING:
    import onnx_ir as ir

MOST = 8
_NEEDED = ("onnx", "onnx_ir", "ml_dtypes")


@dataclass(frozen=True)
class Source:
    """The network whose head is copied.

    Attributes:
        bundle: holds the network.
        artifact: the shared graph of the requested precision.
        task: whose head is copied: the first of those with the most multiply-adds.
        head: cost of that head alone.
        whole: cost of the backbone with that head.
    """

    bundle: Bundle
    artifact: Artifact
    task: Task
    head: Cost
    whole: Cost

    @property
    def backbone(self) -> Cost:
        """Cost of what the heads share."""
        return _plus(self.whole, self.head, -1)


def find_source(bundle: Bundle, precision: str) -> Source:
    """Choose the graph and the head. Costs are those of the FP32 graph, since constants of Q/DQ nodes are not parameters.

    Raises:
        BundleError: the bundle has no shared graph of that precision.
        TraceError: no head has a layer of its own, or there is only one task, so that all of the network would be its head.
    """
    if len(bundle.manifest.tasks) < 2:
        raise TraceError(
            f"{bundle.path} has only one task, so there is no telling where its head begins; use a multi-task bundle"
        )
    artifact, plain = _shared(bundle, precision), _shared(bundle, "fp32")
    costs = sharing(_read(bundle, plain))
    task = max(bundle.manifest.tasks, key=lambda task: costs.heads[task.name].multiply_adds)
    head, whole = costs.heads[task.name], costs.separate[task.name]
    if head.multiply_adds == 0:
        raise TraceError(
            f"{bundle.path}: no head has a convolution or a matrix product of its own, so there is none to copy"
        )
    return Source(bundle, artifact, task, head, whole)


def _shared(bundle: Bundle, precision: str) -> Artifact:
    for artifact in bundle.manifest.artifacts:
        if (artifact.role, artifact.backend, artifact.precision) == ("shared", "onnxruntime", precision):
            return artifact
    raise BundleError(
        f"{bundle.path} has no shared {precision} graph; choose another --precision, or export the network again"
    )


def _read(bundle: Bundle, artifact: Artifact) -> ir.Model:
    import onnx
    import onnx_ir as ir

    model = ir.from_proto(onnx.load_from_string(bundle.read(artifact)))
    infer_shapes(model)
    return model


def with_heads(source: Source, count: int, seed: int = 0) -> tuple[ir.Model, Signature]:
    """Return the shared graph with ``count`` copies of the head, named ``head1`` and so on, and its signature.

    Args:
        source: the graph and the head.
        count: number of heads.
        seed: for the differences between the copies' weights.

    Raises:
        TraceError: the head has control flow.
    """
    tasks = tuple(replace(source.task, name=f"head{number + 1}", output=number) for number in range(count))
    model = _read(source.bundle, source.artifact)
    copy_heads(model, source.task.name, [task.name for task in tasks], seed)
    infer_shapes(model)
    return model, replace(source.bundle.manifest.signature, tasks=tasks)


def synthetic_costs(source: Source, names: Sequence[str]) -> Sharing:
    """Return what a network with these heads costs: the backbone once, and the head once per name."""
    return Sharing(
        shared=_plus(source.backbone, source.head, len(names)),
        backbone=source.backbone,
        heads=dict.fromkeys(names, source.head),
        separate=dict.fromkeys(names, source.whole),
    )


def _plus(first: Cost, second: Cost, times: int) -> Cost:
    return Cost(
        first.multiply_adds + times * second.multiply_adds,
        first.parameters + times * second.parameters,
        first.uncounted + max(times, 0) * second.uncounted,
    )


def write_synthetic(
    bundle: Bundle, target: Path, count: int, *, precision: str = "fp32", seed: int = 0, force: bool = False
) -> Bundle:
    """Write a bundle with ``count`` heads: the shared graph, and one graph per head with a backbone of its own.

    Args:
        bundle: whose network is used.
        target: the folder to write.
        count: number of heads, 1 to 8.
        precision: of the graphs.
        seed: for the noise in the weights.
        force: replace an existing bundle.

    Raises:
        OptionError: the count or the target cannot be used.
        BundleError: the bundle has no graph of that precision.
        TraceError: no head can be copied.
    """
    if not 1 <= count <= MOST:
        raise OptionError(f"--heads {count}: use 1 to {MOST}")
    if target.suffix != SUFFIX:
        raise OptionError(f"{target}: a bundle's name ends with {SUFFIX}")
    check_target(target, force=force, option="")
    source = find_source(bundle, precision)
    model, signature = with_heads(source, count, seed)
    costs = synthetic_costs(source, [task.name for task in signature.tasks])
    batch = source.artifact.batch_min if source.artifact.batch_min == source.artifact.batch_max else None
    with writing(target, force=force, option="") as folder:
        artifacts = []
        for graph in variants(model, precision, signature, costs, batch, separate=True):
            content = serialize(graph.model, graph.signature)
            require_valid(content)
            write_file(folder, graph.path, content)
            low, high = source.artifact.batch_min, source.artifact.batch_max
            artifacts.append(replace(graph.artifact(content), batch_min=low, batch_max=high))
        manifest = Manifest(
            name=target.stem,
            signature=signature,
            artifacts=tuple(artifacts),
            sharing=costs.to_dict(Merged(1, 0, costs.shared, costs.shared)),
            provenance=_provenance(source, count, seed),
        )
        write_manifest(folder, manifest)
    return Bundle(target, manifest)


def _provenance(source: Source, count: int, seed: int) -> dict[str, Any]:
    heads = f"{count} cop{'ies' if count > 1 else 'y'} of the head of {source.task.name!r}"
    return {
        "synthetic": {
            "bundle": source.bundle.manifest.name,
            "graph": source.artifact.path,
            "sha256": source.artifact.sha256,
            "task": source.task.name,
            "heads": count,
            "seed": seed,
        },
        "mtl_deploy": __version__,
        "notes": [f"synthetic, to measure what heads cost: {heads}, with changed weights; their outputs mean nothing"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(lambda: _write(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("python -m mtl_deploy.export.baselines.synthetic_heads", str(__doc__), "")
    made.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle whose network is used")
    made.add_argument("output", type=Path, metavar="OUT.mtl", help="the bundle to write")
    made.add_argument("--heads", type=int, required=True, metavar="N", help=f"number of heads, 1 to {MOST}")
    made.add_argument("--precision", default="fp32", metavar="NAME", help="of the graphs (default: fp32)")
    made.add_argument("--seed", type=int, default=0, help="for the changes of the weights (default: 0)")
    made.add_argument("-f", "--force", action="store_true", help="replace an existing bundle")
    return made


def _write(arguments: argparse.Namespace) -> int:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BackendError(
            f"synthetic heads need {missing[0]}, which is not installed: pip install 'mtl-deploy[calibration]'"
        )
    bundle = open_bundle(arguments.bundle)
    options = {"precision": arguments.precision, "seed": arguments.seed, "force": arguments.force}
    written = write_synthetic(bundle, arguments.output, arguments.heads, **options)
    sys.stdout.write(f"{written.path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
