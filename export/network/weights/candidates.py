"""Where a checkpoint holds weights: every state dict and network in it, and which of them is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mtl_deploy.runtime.errors import CheckpointError, OptionError

from .names import EXTRA_STATE, few
from .plain_values import StandIn

# Where training loops keep the weights, the likeliest first. An average of weights (EMA) comes last.
_NAMES = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "model_state",
    "net_state_dict",
    "weights",
    "params",
    "ema",
    "ema_state_dict",
    "model_ema",
    "state_dict_ema",
    "params_ema",
)
_DEPTH = 4  # of dicts in dicts; a pickle can hold a dict that holds itself
Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One state dict or network in a checkpoint.

    Attributes:
        path: the keys that lead to it; empty for the top level.
        value: a network, or tensors by name and whatever ``get_extra_state`` returned.
    """

    path: tuple[str, ...]
    value: Weights | torch.nn.Module

    @property
    def name(self) -> str:
        """As ``--weights`` takes it."""
        return ".".join(self.path)

    @property
    def weights(self) -> Weights:
        """Tensors and extra state by name."""
        value: Weights = self.value.state_dict() if isinstance(self.value, torch.nn.Module) else self.value
        return value

    @property
    def place(self) -> str:
        """For people: ``'state_dict' in 'ema'``."""
        return " in ".join(map(repr, reversed(self.path)))


@dataclass(frozen=True)
class Choice:
    """The candidate that is used.

    Attributes:
        candidate: the candidate.
        prefix: under which names in it, if ``--weights`` says so; None: where the network's names are found.
        others: the other candidates, without the top level's own tensors.
        fitting: those of them that have all the network's tensors too.
    """

    candidate: Candidate
    prefix: str | None
    others: tuple[Candidate, ...]
    fitting: tuple[Candidate, ...]

    @property
    def place(self) -> str:
        """For people: where the weights were, and what was not used; empty for the top level of a file with nothing else."""
        others = self.others if len(self.candidate.path) else ()
        left = f" (not used: {few(other.place for other in others)})" if others else ""
        return f"{self.candidate.place}{left}"


def candidates(checkpoint: object) -> list[Candidate]:
    """Find every state dict and network in what ``torch.load`` returned, the likeliest first.

    Raises:
        CheckpointError: there is none.
    """
    if not isinstance(checkpoint, (Mapping, torch.nn.Module)):
        kind = type(checkpoint).__name__
        raise CheckpointError(f"holds a {kind}, not a state_dict; save torch.save(network.state_dict(), 'model.pt')")
    found: list[tuple[tuple[int, ...], Candidate]] = []
    deep: list[str] = []
    _collect(checkpoint, (), (), found, deep, set())
    if found:
        ranked = [candidate for _, candidate in sorted(found, key=lambda pair: pair[0])]
        return [*ranked, *_joined(ranked)]
    if deep:
        raise CheckpointError(f"is nested more than {_DEPTH} deep ({deep[0]}); save only the state_dict")
    assert isinstance(checkpoint, Mapping)
    if arrays := [str(name) for name, value in entries(checkpoint) if _is_array(value)]:
        raise CheckpointError(
            f"holds NumPy arrays ({few(arrays)}), not tensors; save them with torch.from_numpy as a state_dict"
        )
    keys = few(map(repr, dict(entries(checkpoint)))) or "an empty dict"
    raise CheckpointError(f"holds no state_dict, only {keys}; save torch.save(network.state_dict(), 'model.pt')")


def entries(mapping: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Return keys and values of a mapping. A file can give an ``OrderedDict`` attributes that hide its methods."""
    return dict.items(mapping) if isinstance(mapping, dict) else mapping.items()


def _collect(
    value: object,
    path: tuple[str, ...],
    rank: tuple[int, ...],
    found: list[tuple[tuple[int, ...], Candidate]],
    deep: list[str],
    seen: set[int],
) -> None:
    if isinstance(value, torch.nn.Module):
        found.append((rank, Candidate(path, value)))
        return
    if not isinstance(value, Mapping):
        return
    if len(path) > _DEPTH:
        deep.append(" in ".join(map(repr, path)))
        return
    if id(value) in seen and path:
        deep.append(" in ".join(map(repr, path)))
        return
    seen.add(id(value))
    held = dict(entries(value))
    if any(isinstance(item, torch.Tensor) for item in held.values() if not isinstance(item, Mapping)):
        weights = {str(name): item for name, item in held.items() if _is_weight(name, item)}
        found.append(((*rank, len(_NAMES)), Candidate(path, weights)))
    for name, item in held.items():
        if isinstance(item, (Mapping, torch.nn.Module)) and "optim" not in str(name).lower():
            likely = _NAMES.index(name) if name in _NAMES else len(_NAMES) + 1
            _collect(item, (*path, str(name)), (*rank, likely), found, deep, seen)


def _is_weight(name: object, value: object) -> bool:
    extra = str(name).rpartition(".")[2] == EXTRA_STATE
    return isinstance(value, torch.Tensor) or (extra and not isinstance(value, StandIn))


def _is_array(value: object) -> bool:
    return isinstance(value, StandIn) and type(value).__name__ in ("_reconstruct", "ndarray")


def _joined(found: Sequence[Candidate]) -> Iterator[Candidate]:
    """A network saved in parts, ``{"backbone": ..., "heads": ...}``: all parts as one state dict."""
    parts = [candidate for candidate in found if candidate.path and not isinstance(candidate.value, torch.nn.Module)]
    if len(parts) > 1:
        yield Candidate((), {f"{part.name}.{name}": value for part in parts for name, value in part.weights.items()})


def choose(found: Sequence[Candidate], fits: Callable[[Candidate], bool], wanted: str | None) -> Choice:
    """Choose the weights: those that ``--weights`` names, otherwise the likeliest that have all the network's tensors.

    Args:
        found: all candidates, the likeliest first.
        fits: whether a candidate has all the network's tensors.
        wanted: ``--weights``: the keys that lead to the weights, with dots between them, and what stands before the names
            there. The last keys may be left out.

    Raises:
        CheckpointError: no candidate has all the tensors, and there is no likeliest.
        OptionError: nothing in the file is called as ``wanted`` says.
    """
    if wanted is not None:
        return _wanted(found, fits, wanted)
    fitting = [candidate for candidate in found if fits(candidate)]
    if fitting:
        chosen = fitting[0]
    elif len(found) == 1 or not found[0].path or set(found[0].path) & set(_NAMES):
        chosen = found[0]  # the network's own check says what it lacks
    else:
        names = few(candidate.place for candidate in found if candidate.path)
        raise CheckpointError(
            f"holds several state_dicts ({names}), none is called 'state_dict' or 'model', and none has all the "
            "tensors of the network; choose one with --weights, or save only the whole network's state_dict"
        )
    return _choice(chosen, None, found, fitting)


def _wanted(found: Sequence[Candidate], fits: Callable[[Candidate], bool], wanted: str) -> Choice:
    for candidate in found:
        if candidate.path and f"{candidate.name}.".startswith(f"{wanted}."):
            return _choice(candidate, None, found, [other for other in found if fits(other)])
    for candidate in found:
        before = f"{candidate.name}." if candidate.path else ""
        rest = wanted.removeprefix(before)
        if wanted.startswith(before) and any(name.startswith(f"{rest}.") for name in candidate.weights):
            return _choice(candidate, rest, found, [])
    prefixes = {name.partition(".")[0] for candidate in found[:1] for name in candidate.weights if "." in name}
    there = [candidate.name for candidate in found if candidate.path] or sorted(prefixes)
    raise OptionError(f"--weights {wanted!r}: the file holds {few(map(repr, there), shown=12)}; choose one of them")


def _choice(chosen: Candidate, prefix: str | None, found: Sequence[Candidate], fitting: Sequence[Candidate]) -> Choice:
    others = tuple(candidate for candidate in found if candidate is not chosen and candidate.path)
    return Choice(chosen, prefix, others, tuple(other for other in fitting if other in others))
