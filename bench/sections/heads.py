"""Bundles with one to eight heads, made of the measured one: what ``--heads`` measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.bench.contestants.processes import run
from mtl_deploy.runtime.bundle.manifest import SUFFIX
from mtl_deploy.runtime.errors import OptionError

MODULE = "mtl_deploy.export.baselines.synthetic_heads"
MOST = 8


def parse_heads(text: str) -> tuple[int, ...]:
    """Read ``--heads``: numbers of heads such as ``1,2,4,8``; returns them growing, each once.

    Raises:
        OptionError: they are no numbers, or beyond 1 to 8.
    """
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise OptionError(f"--heads {text}: use numbers of heads, such as 1,2,4,8") from None
    if counts[0] < 1 or counts[-1] > MOST:
        raise OptionError(f"--heads {text}: use 1 to {MOST}")
    return tuple(counts)


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
