"""The first runs of a network: what it returns, which batches it takes, and whether it answers as deployed networks must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mtl_deploy.runtime.errors import TaskError, TraceError

from .binding import refuse_entries
from .once import PAYS, Ran, once
from .outputs import leaves, usable
from .running import run
from .selected import Selected
from .steady import require_alone, require_repeatable

_FEW, _MANY = 2, 5  # a constant whose first size is one of these is no batch at the other


@dataclass(frozen=True)
class Probe:
    """What the first runs gave.

    Attributes:
        images: ``(N, 3, H, W) float32``, natural and no two alike.
        batch: the number of images behind ``result``.
        result: what the network returned for the first ``batch`` images.
        only: the only N that the network takes; None if it takes any, or if it is a program, which says so itself.
        program: whether it is a program, which nothing is checked of.
        few: the number of images behind ``first``.
        first: what it returned when it was first called.
        again: the same, with :func:`~mtl_deploy.export.forward.once.once`; None if it does not run that way.
    """

    images: torch.Tensor
    batch: int
    result: Any
    only: int | None
    program: bool
    few: int
    first: Any
    again: Ran | None = None

    def require_steady(self, selected: Selected) -> bool:
        """Check that the network answers an image in the same way twice, and whatever other images its batch holds.

        Args:
            selected: returns the outputs that tasks read.

        Returns:
            Whether the network repeats itself, and can be run with :func:`~mtl_deploy.export.forward.once.run_once`.

        Raises:
            TraceError: it does not.
            TaskError: an output has as many rows at any batch.
        """
        if self.program:
            return False
        images = self.images[: self.few]
        found = selected.taken(self.first, images)
        again = None if self.again is None else selected.taken(self.again.result, images)
        same = again is not None and all(map(torch.equal, again, found))
        if not same:
            require_repeatable(found, lambda: run(selected, images))
        repeats = self.again is not None and same and self.again.share >= PAYS
        if self.only is not None:
            return repeats
        more = selected.taken(self.result, self.images)
        for value in more:
            if value.shape[0] != len(self.images):
                raise TaskError(
                    f"an output has shape {tuple(value.shape)} for {len(self.images)} images; it is no batch"
                )
        require_alone(selected, self.images, self.few, found, more)
        return repeats


def images_needed(program: bool, fixed: int | None) -> int:
    """Return how many images :func:`probe` is to be given.

    Args:
        program: whether the network is a program.
        fixed: the only batch that the program takes; None if it takes any, or is none.
    """
    return (fixed or _FEW) if program else _MANY


def probe(network: torch.nn.Module, images: torch.Tensor, constants: Mapping[str, Any], *, program: bool) -> Probe:
    """Run a network on a few images.

    Args:
        network: takes images and ``constants`` by name.
        images: ``(N, C, H, W) float32``, no two alike; see :func:`images_needed`.
        constants: other arguments of ``forward``.
        program: whether it is a program, which says itself what it takes.

    Raises:
        TraceError: it fails on one image and on several.
        TaskError: it returns one entry per image.
    """

    def answer(number: int) -> Any:
        return run(network, images[:number], constants)

    if program:
        try:
            result, count = answer(len(images)), len(images)
        except TraceError:
            result, count = answer(1), 1
        return Probe(images, count, result, None, program, count, result)
    try:
        first = answer(_FEW)
    except TraceError:  # some networks fix a batch of one in code
        alone = answer(1)
        return Probe(images, 1, alone, 1, program, 1, alone)
    again = once(network, images[:_FEW], constants)
    many = None
    if again is not None and again.share >= PAYS and _alike(first, again.result):
        many = once(network, images, constants)
    try:
        more = answer(_MANY) if many is None else many.result
    except TraceError:
        only = _only(answer)
        return Probe(images, _FEW, first, only, program, only, first if only == _FEW else answer(only))
    refuse_entries({_FEW: first, _MANY: more})
    return Probe(images, _MANY, more, None, program, _FEW, first, again)


def _alike(one: object, other: object) -> bool:
    """Return whether a network returned the same twice, as far as it returned tensors."""
    ones, others = leaves(one), leaves(other)
    return ones.keys() == others.keys() and all(
        torch.equal(value, found)
        for value, found in zip(ones.values(), others.values(), strict=True)
        if isinstance(value, torch.Tensor) and isinstance(found, torch.Tensor)
    )


def _only(answer: Any) -> int:
    """Return which of one and two images a network takes that takes no more."""
    try:
        alone = answer(1)
    except TraceError:
        return _FEW
    return 1 if any(not usable(value, 1) for value in leaves(alone).values()) else _FEW
