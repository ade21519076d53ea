"""A state dict and the network that it is for: brought together under the network's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from mtl_deploy.export.networks import article
from mtl_deploy.runtime.errors import CheckpointError

from .fake_quantizers import place_norms, without_quantizers
from .names import DEEPEST, Aligned, align, bare, few, groups
from .state_dict import load_weights, tied_names
from .trained_ranges import QuantizerRanges, trained_ranges


@dataclass(frozen=True)
class Fitted:
    """A network with its weights.

    Attributes:
        network: ready to run.
        prefix: under which names its tensors stood in the state dict.
        rivals: other prefixes under which all its tensors stand.
        description: what was removed from names and converted, for people; empty or beginning with ``; ``.
        notes: what was left, and what the weights were trained for; for people.
        trained: ranges of activations, where the weights were trained for quantization and it is known whose they are.
    """

    network: torch.nn.Module
    prefix: str
    rivals: tuple[str, ...]
    description: str
    notes: tuple[str, ...]
    trained: QuantizerRanges | None = None


def fit(network: torch.nn.Module, state: Mapping[str, Any], prefix: str | None = None) -> Aligned:
    """Find a network's tensors in a state dict, without those of fake quantizers; see :func:`~.names.align`."""
    own = network.state_dict()
    kept, quantized = without_quantizers(state, own)
    aligned = align(kept, own, prefix, tied_names(own))
    if not quantized or aligned.complete:
        return aligned
    tensors = place_norms(network, aligned.tensors)
    return replace(aligned, tensors=tensors, complete=align(tensors, own, "" if prefix else None).complete)


def give(network: torch.nn.Module, state: Mapping[str, Any], prefix: str | None, *, trust: bool) -> Fitted:
    """Load a state dict into a network.

    Args:
        network: without its weights.
        state: tensors by name, as the file has them.
        prefix: under which names they stand, if the user says so.
        trust: give the network extra state that its own code may unpickle.

    Raises:
        CheckpointError: the state dict is not this network's.
        OptionError: nothing stands under ``prefix``.
    """
    quantized = without_quantizers(state, network.state_dict())[1]
    aligned = fit(network, state, prefix)
    loaded = load_weights(network, aligned.tensors, trust=trust)
    roots = {name for name, _ in network.named_modules()}
    left = groups((*aligned.elsewhere, *loaded.left), roots)
    notes = [f"tensors that are not the network's, not used: {few(left, shown=8)}"] if left else []
    removed = f"; prefix {aligned.removed} removed" if aligned.removed else ""
    trained = trained_ranges(loaded.network, state, aligned.prefix) if quantized else None
    if quantized and trained:
        quantized += (
            f"; with --calibration-data the INT8 graphs keep {len(trained.ranges)} of their ranges where they quantize the same "
            "tensors"
        )
    elif quantized:
        quantized += "; ranges for INT8 are found anew, from --calibration-data"
    return Fitted(
        loaded.network,
        aligned.prefix,
        aligned.rivals,
        removed + (f"; {loaded.converted}" if loaded.converted else ""),
        (*([quantized] if quantized else []), *notes),
        trained,
    )


def article_layout(state: Mapping[str, Any], prefix: str | None) -> article.Layout:
    """Read the layout of the article's network from the names and shapes of its tensors, under whatever prefix they stand.

    Raises:
        CheckpointError: the names are not the article's.
    """
    kept, _ = without_quantizers(state, ())
    found: dict[str, dict[str, Any]] = {}
    for name, value in kept.items():
        parts = bare(name).split(".")
        for place, part in enumerate(parts[:DEEPEST]):
            if part == article.ROOT:
                found.setdefault(".".join(parts[:place]), {})[".".join(parts[place:])] = value
    under = None if prefix is None else bare(prefix)
    for before, tensors in found.items():
        if (under is None or f"{before}.".startswith(f"{under}.")) and article.recognises(tensors):
            return article.read_layout(
                {name: tuple(tensor.shape) for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
            )
    names = few(list(state)[:3])
    raise CheckpointError(
        f"the state_dict ({len(state)} tensors: {names}, ...) is not the article's network, a ResNet "
        "under 'net.' with heads net.fc1, net.fc2, ...; name the code that makes the network with "
        "--model package.module:factory"
    )
