"""Running a network that repeats itself: what its ``forward`` computes several times from the same values is computed once.

The article's network calls its backbone once for each head, and training code is often written so. The answers are the same to
the last bit. Method: value numbering, while the network's own code runs. Each tensor has a number that says how its values came
about, from the operator and the numbers of what it was given. An operation is left out only if its number is known and the tensor
with these values is still there, unchanged. Operators that draw random numbers give new numbers, and changes in place (a ReLU's,
a sum's) take the numbers of all tensors in that memory away.
"""

from __future__ import annotations

import re
import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

MOST = 1 << 30
"""Bytes of results to keep: a run that needs more keeps no more."""

PAYS = 0.25
"""Share of the results that must be left out to be worth keeping the others."""


_HEAVY = re.compile("conv|mm|linear|attention")


@dataclass(frozen=True)
class Ran:
    """A run.

    Attributes:
        result: what the network returned.
        share: of the bytes of all results, those that were not computed again.
    """

    result: Any
    share: float


def once(network: torch.nn.Module, images: torch.Tensor, constants: Mapping[str, Any] | None = None) -> Ran | None:
    """Run a network, each operation once; None if it fails that way.

    Args:
        network: takes a batch of images.
        images: ``(N, C, H, W)``.
        constants: other arguments of ``forward``, by name.
    """
    try:
        with torch.no_grad(), _Once() as noted:
            found = network(images, **(constants or {}))
    except Exception:  # noqa: BLE001 - the network's own code runs here; it is run as usual then
        return None
    return Ran(found, noted.left_out / max(noted.results, 1))


class _Once(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left_out = self.results = self._bytes = 0
        self._new = count()
        self._numbers: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}  # by the id of a tensor that lives
        self._known: dict[Any, tuple[int, ...]] = {}  # from operator and arguments to the numbers of the results
        self._kept: dict[Any, Any] = {}  # likewise, to the results
        self._in: dict[int, list[tuple[weakref.ref[torch.Tensor], Any]]] = defaultdict(list)  # by memory

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._kept, self._numbers, self._in = {}, {}, defaultdict(list)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = self._key(func, args, kwargs)
        if func._schema.is_mutable:
            changed = list(_changed(func, args, kwargs))
            for tensor in changed:
                self._forget(tensor)
            result = func(*args, **kwargs)
            self._note(key, changed)
            return result
        if key in self._kept:
            result = self._kept[key]
            size = sum(tensor.nbytes for tensor in _tensors(result))
            self.left_out, self.results = self.left_out + size, self.results + size
            return result
        result = func(*args, **kwargs)
        tensors = list(_tensors(result))
        self._note(key, tensors)
        if not func.is_view and tensors:
            size = sum(tensor.nbytes for tensor in tensors)
            self.results += size
            if key is not None and self._bytes + size <= MOST and _is_new(tensors, args, kwargs):
                self._bytes += size
                self._keep(key, result)
        return result

    def _keep(self, key: Any, result: Any) -> None:
        self._kept[key] = result
        for tensor in _tensors(result):
            self._in[_memory(tensor)].append((weakref.ref(tensor), key))

    def _key(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what the values of the results depend on; None if on more than the arguments, or on no tensor."""
        if torch.Tag.nondeterministic_seeded in func.tags or not any(True for _ in _tensors((args, kwargs))):
            return None
        try:
            return func, self._identity(args), self._identity(tuple(sorted(kwargs.items())))
        except TypeError:  # an argument that cannot be told from others
            return None

    def _identity(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return "number", self._number(value)
        if isinstance(value, list | tuple):
            return tuple(self._identity(each) for each in value)
        if isinstance(value, bool | int | float | complex):
            return type(value), repr(value)  # 1 == True == 1.0, and -0.0 == 0.0
        hash(value)
        return value

    def _number(self, tensor: torch.Tensor) -> int:
        found = self._numbers.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        return self._give(tensor, next(self._new))

    def _give(self, tensor: torch.Tensor, number: int) -> int:
        reference = weakref.ref(tensor)
        self._numbers[id(tensor)] = reference, number
        self._in[_memory(tensor)].append((reference, None))
        return number

    def _note(self, key: Any, tensors: list[torch.Tensor]) -> None:
        """Number the results of an operation: as the last time, if it is the same operation."""
        numbers = self._known.get(key) if key is not None else None
        if numbers is None or len(numbers) != len(tensors):
            numbers = tuple(next(self._new) for _ in tensors)
            if key is not None:
                self._known[key] = numbers
        for tensor, number in zip(tensors, numbers, strict=True):
            self._give(tensor, number)

    def _forget(self, changed: torch.Tensor) -> None:
        """Take the numbers of all tensors in a tensor's memory away, before it changes; of what took long, keep a copy."""
        for reference, key in self._in.pop(_memory(changed), []):
            tensor = reference()
            if key is None and tensor is not None:
                self._numbers.pop(id(tensor), None)
            elif key in self._kept:
                result = self._kept.pop(key)
                if isinstance(result, torch.Tensor) and _HEAVY.search(key[0].overloadpacket.__name__):
                    copy = result.clone()
                    self._give(copy, self._known[key][0])
                    self._keep(key, copy)


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _changed(func: Any, args: Any, kwargs: Any) -> Iterable[torch.Tensor]:
    """Return the arguments that an operator writes to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[place] if place < len(args) else kwargs.get(argument.name))


def _is_new(tensors: list[torch.Tensor], args: Any, kwargs: Any) -> bool:
    """Return whether results are in memory of their own, so that nobody else can change them."""
    given = {_memory(tensor) for tensor in _tensors((args, kwargs))}
    own = [_memory(tensor) for tensor in tensors]
    return not given & set(own) and len(set(own)) == len(own)
