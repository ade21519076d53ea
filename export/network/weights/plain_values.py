"""Values that training loops save beside the weights, read without running anything of theirs.

``torch.load(weights_only=True)`` refuses a file for one NumPy number or one ``argparse.Namespace`` beside the weights. Such values
are not needed here. So the reader gets a stand-in for each of the names below: a class of this module that takes any arguments and
keeps none. The class or function that a file asks for is never looked up, imported or called.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch


class StandIn:
    """Stands for a value that was not read; holds nothing. Its class is called as the value's own is."""

    __slots__ = ()

    def __new__(cls, *_: object) -> StandIn:
        """Take what the file passes to a constructor or function, and drop it."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Drop the state that the file sets."""


class _Container:
    """Stands for subclasses of ``dict``: what the file puts in is kept, in an ``OrderedDict``."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


# As pickles of protocol 2 spell them: numpy/_core is numpy/core before NumPy 2, pathlib._local is Python 3.13's.
_VALUES = """
    numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct numpy._core.multiarray.scalar
    numpy._core.multiarray._reconstruct numpy.ndarray numpy.dtype numpy.bool_ numpy.float16 numpy.float32 numpy.float64
    numpy.int8 numpy.int16 numpy.int32 numpy.int64 numpy.uint8 numpy.uint16 numpy.uint32 numpy.uint64
    argparse.Namespace types.SimpleNamespace ultralytics.utils.IterableSimpleNamespace
    pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePosixPath pathlib.PureWindowsPath
    pathlib._local.Path pathlib._local.PosixPath pathlib._local.WindowsPath
    datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone
    omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata omegaconf.base.Metadata
    omegaconf.nodes.AnyNode omegaconf.nodes.StringNode omegaconf.nodes.IntegerNode omegaconf.nodes.FloatNode
    omegaconf.nodes.BooleanNode typing.Any
    mmengine.logging.history_buffer.HistoryBuffer mmengine.config.config.Config mmcv.utils.config.Config
    builtins.getattr builtins.bool builtins.int builtins.float builtins.str builtins.list builtins.dict builtins.tuple
    builtins.slice builtins.range builtins.frozenset
"""
_CONTAINERS = """
    collections.defaultdict yacs.config.CfgNode fvcore.common.config.CfgNode detectron2.config.config.CfgNode
    easydict.EasyDict addict.addict.Dict munch.Munch mmengine.config.config.ConfigDict mmcv.utils.config.ConfigDict
    pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing.AttributeDict
    lightning.fabric.utilities.data.AttributeDict lightning_fabric.utilities.data.AttributeDict
"""


def stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the stand-ins with the names that they stand for, as ``torch.serialization.safe_globals`` takes them."""
    values = [(_stand_in(name), name) for name in _VALUES.split()]
    return [*values, *((_Container, name) for name in _CONTAINERS.split())]


def _stand_in(name: str) -> type:
    return type(name.rpartition(".")[2], (StandIn,), {"__slots__": ()})


def drop_attributes(content: object) -> None:
    """Drop the attributes that a file gave to dicts and tensors, in place: they could hide methods, such as ``items`` or ``to``."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (dict, torch.Tensor)) and hasattr(value, "__dict__"):
            vars(value).clear()
        if isinstance(value, dict):
            waiting += [*dict.keys(value), *dict.values(value)]
        elif isinstance(value, (list, tuple, set)):
            waiting += value
