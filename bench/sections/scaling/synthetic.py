"""Bundles with one to eight heads, made of the measured one: what ``--heads`` measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.bench.contestants.processes import run
from mtl_deploy.runtime.bundle.manifest import SUFFIX

MODULE = "mtl_deploy.export.baselines.synthetic_heads"


def make_heads(bundle: Path, counts: Sequence[int], precision: str, folder: Path) -> dict[int, Path]:
    """Make bundles whose networks have the measured one's backbone and that many copies of one of its heads.

    The graphs are made in a process of its own, since that takes the onnx package, which this room never imports.

    Args:
        bundle: the measured one's folder.
        counts: numbers of heads.
        precision: of the graphs.
        folder: where they are written, ``heads1.mtl`` and so on; the caller removes it.

    Returns:
        The bundles' folders, by number of heads.

    Raises:
        BackendError: onnx is not installed, or the bundle has no head that can be copied.
        WorkError: making them failed.
    """
    made = {}
    for count in counts:
        target = folder / f"heads{count}{SUFFIX}"
        arguments = [str(bundle), str(target), "--heads", str(count), "--precision", precision]
        run(MODULE, arguments).require(f"a network of {count} head{'s' if count > 1 else ''} was not made")
        made[count] = target
    return made
