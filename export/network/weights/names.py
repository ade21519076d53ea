"""Names of tensors: what wrappers and training loops put before them, and which of them a network expects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_deploy.runtime.errors import CheckpointError, OptionError

EXTRA_STATE = "_extra_state"  # torch.nn.Module.get_extra_state's entry
# DataParallel and AveragedModel; torch.compile; activation checkpointing; fully sharded data parallel, now and before PyTorch 2.1
_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_fpw_module"}
_OPTIONAL = "num_batches_tracked"  # which eval mode does not use and PyTorch before 0.4.1 did not save
_COPIES = ("ema", "teacher", "avg", "average", "averaged", "swa", "shadow", "momentum", "target")
_SHOWN = 4
_LONG = 150  # characters of a name in a message
DEEPEST = 64  # parts of a name; networks have ten


@dataclass(frozen=True)
class Aligned:
    """Tensors under the names that a network expects.

    Attributes:
        tensors: by name: all that stand under the prefix, those included that the network does not expect.
        prefix: under which names they stood, without wrappers; empty if under none.
        removed: what was removed from the names, for people: ``module., model.``; empty if they were right.
        elsewhere: names in the file that stand under other prefixes.
        rivals: other prefixes under which every expected tensor was found.
        complete: whether every expected tensor was found.
    """

    tensors: dict[str, Any]
    prefix: str
    removed: str
    elsewhere: tuple[str, ...]
    rivals: tuple[str, ...]
    complete: bool


def align(
    state: Mapping[str, Any],
    expected: Collection[str],
    wanted: str | None = None,
    tied: Mapping[str, str] | None = None,
) -> Aligned:
    """Rename tensors to the names that a network expects.

    What wrappers add (``module.``, ``_orig_mod.``, ``_checkpoint_wrapped_module.``) is removed wherever it stands and however
    often. The prefix is the one under which every expected tensor is found. If there are several, a moving average or a
    teacher comes last, then the shorter prefix wins, then the first in the file.

    Args:
        state: tensors by name.
        expected: the network's own names.
        wanted: the prefix to take; None: any.
        tied: by name, the first name of the same tensor in the network; one name of a tensor is enough.

    Raises:
        CheckpointError: two tensors would get the same name.
        OptionError: no expected tensor stands under ``wanted``.
    """
    own, plain = {bare(name): name for name in expected}, {name: bare(name) for name in state}
    if len(own) < len(expected):  # the network itself tells tensors apart by such a part
        own, plain = {name: name for name in expected}, {name: name for name in state}
    first = tied or {}
    needed = {first.get(own[name], own[name]) for name in own if name.rpartition(".")[2] != _OPTIONAL}
    longest = max((name.count(".") + 1 for name in own), default=0)
    found: dict[str, set[str]] = {}  # prefix -> expected names under it
    for name in plain.values():
        parts = name.split(".")
        for place in range(max(len(parts) - longest, 0), len(parts)):
            if (rest := ".".join(parts[place:])) in own:
                found.setdefault(".".join(parts[:place]), set()).add(first.get(own[rest], own[rest]))
    if wanted is not None:
        under = bare(wanted)
        found = {prefix: names for prefix, names in found.items() if f"{prefix}.".startswith(f"{under}.")}
        if not found:
            raise OptionError(
                f"--weights {wanted!r}: no tensor of the network stands under that name; see the names there"
            )
    complete = [prefix for prefix, names in found.items() if names >= needed]
    ranked = sorted(complete, key=_rank) or sorted(found, key=lambda prefix: (-len(found[prefix]), *_rank(prefix)))
    prefix = ranked[0] if ranked else ""
    tensors, elsewhere, removed = _under(prefix, plain, own, state)
    return Aligned(
        tensors,
        prefix,
        removed,
        tuple(elsewhere),
        tuple(other for other in complete if other != prefix),
        bool(complete),
    )


def bare(name: str) -> str:
    """Return a name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def few(names: Iterable[str], *, shown: int = _SHOWN) -> str:
    """Return the first few names, and how many more there are."""
    listed: Sequence[str] = [name if len(name) <= _LONG else f"{name[:_LONG]}..." for name in names]
    more = f", and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more


def groups(names: Iterable[str], roots: Collection[str]) -> list[str]:
    """Put names of tensors together, for one line: ``total_ops (12 tensors)``, ``teacher.* (3 tensors)``, ``criterion.weight``.

    Args:
        names: of the tensors.
        roots: names of modules that the network has: a group is what differs from them.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        parts = bare(name).split(".")
        if parts[-1] in COUNTERS:
            found.setdefault(parts[-1], []).append(name)
            continue
        depth = 1
        while depth < len(parts) - 1 and ".".join(parts[:depth]) in roots:
            depth += 1
        found.setdefault(".".join(parts[:depth]) + (".*" if depth < len(parts) else ""), []).append(name)
    return [
        f"{group} ({len(held)} tensors)" if len(held) > 1 else (group if group in COUNTERS else held[0])
        for group, held in found.items()
    ]


COUNTERS = ("total_ops", "total_params")  # thop.profile's buffers, in every module


def _rank(prefix: str) -> tuple[bool, int]:
    words = {word for part in prefix.lower().split(".") for word in part.split("_")}
    return not words.isdisjoint(_COPIES), len(prefix.split(".")) if prefix else 0


def _under(
    prefix: str, plain: Mapping[str, str], own: Mapping[str, str], state: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str], str]:
    tensors: dict[str, Any] = {}
    elsewhere: list[str] = []
    removed = {f"{prefix}."} if prefix else set()
    for name, short in plain.items():
        if prefix and not short.startswith(f"{prefix}."):
            elsewhere.append(name)
            continue
        rest = short[len(prefix) + 1 :] if prefix else short
        target = own.get(rest, rest)
        if target in tensors:
            raise CheckpointError(
                f"two tensors are called {target!r} once prefixes are removed; save the state_dict of the unwrapped "
                "network"
            )
        kept = target.split(".")
        removed |= {f"{part}." for part in name.split(".") if part in _WRAPPERS and (part not in kept)}
        removed |= {f"{part}." for part in _WRAPPERS if name.split(".").count(part) > kept.count(part)}
        tensors[target] = state[name]
    return tensors, elsewhere, ", ".join(sorted(removed))
