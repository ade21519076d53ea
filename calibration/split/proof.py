"""Proof that the parts of a graph compute what the graph computes, by the digests of their nodes and weights.

Every node and weight of a part is the graph's, under the same names, and what a part reads is the graph's own input or what a part
before it gives. So each tensor of a part is computed by the same operations from the same tensors as the graph's tensor of that
name, and has its value.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.calibration.graph.digests import Held, digests
from mtl_deploy.runtime.errors import VerificationError


def prove(whole: bytes, parts: Sequence[tuple[str, bytes]]) -> None:
    """Prove that parts, run one after another, compute a graph's outputs.

    Args:
        whole: the ``.onnx`` file that was cut.
        parts: path and ``.onnx`` file of each, in the order in which they run.

    Raises:
        VerificationError: they do not; names the part and the place.
    """
    model, held = digests(whole)
    made = {name for place in held if place[0] == "node" for name in place[1:]}
    given = {place[1] for place in held if place[0] == "in"}
    for path, content in parts:
        own_model, own = digests(content)
        if own_model != model:
            raise VerificationError(f"{path}: its opsets or functions are not those of the graph that it was cut from")
        _require_same(path, own, held)
        _require_defined(path, own, given)
        given |= {place[1] for place in own if place[0] == "out"}
    tasks = {place[1] for place in held if place[0] == "out"}
    if missing := tasks - given:
        raise VerificationError(f"no part gives {min(missing)!r}")
    if strangers := given - made - {place[1] for place in held if place[0] == "in"}:
        raise VerificationError(f"{min(strangers)!r} is not a tensor of the graph")


def _require_same(path: str, own: Held, whole: Held) -> None:
    """Check that a part's nodes and weights are the graph's."""
    for place, digest in own.items():
        if place[0] in ("node", "weight", "sparse") and whole.get(place) != digest:
            what = f"the node that gives {place[1]!r}" if place[0] == "node" else f"the weight {place[1]!r}"
            raise VerificationError(f"{path}: {what} is not that of the graph that it was cut from")


def _require_defined(path: str, own: Held, given: set[str]) -> None:
    """Check that each name in a part means one thing, and that what it reads is there."""
    inputs = [place[1] for place in own if place[0] == "in"]
    if strangers := [name for name in inputs if name not in given]:
        raise VerificationError(f"{path}: it reads {strangers[0]!r}, which no part before it gives")
    defined = inputs + [name for place in own if place[0] in ("node", "weight", "sparse") for name in place[1:] if name]
    if len(set(defined)) != len(defined):
        twice = next(name for name in defined if defined.count(name) > 1)
        raise VerificationError(f"{path}: {twice!r} is defined twice")
    if missing := [place[1] for place in own if place[0] == "out" and place[1] not in defined]:
        raise VerificationError(f"{path}: nothing in it gives {missing[0]!r}")
