"""Checks of what :func:`~mtl_deploy.runtime.loading.load` is asked for, before anything is read.

An option that only an engine needs is checked for a graph too: a program that works here must not fail on the device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from .errors import OptionError, TaskError

_WHOLE = {"device": 0, "contexts": 1, "cuda_graphs": 0, "threads": 1}
"""By option that is a whole number, the least that it may be."""


def check_load_options(options: Mapping[str, Any]) -> None:
    """Check the types and sizes of options.

    Args:
        options: by name, as ``load`` was called.

    Raises:
        OptionError: one has another type, or is too small; the message names it, and what it may be.
        TaskError: the tasks are one string.
    """
    for name, least in _WHOLE.items():
        value = options[name]
        if name == "device" and isinstance(value, str) and options["backend"] == "openvino":
            continue  # its own names, such as GPU
        if value is None and name in ("device", "threads"):
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise OptionError(f"{name}={value!r}: use {_MEANT[name]}")
        if value < least:
            raise OptionError(f"{name}={value}: use {least} or more")
    for name in ("precision", "backend"):
        if not isinstance(options[name], str | None):
            raise OptionError(f"{name}={options[name]!r}: use a name, such as {_MEANT[name]}")
    for name in ("providers", "tasks"):
        if isinstance(options[name], str | bytes):
            error = TaskError if name == "tasks" else OptionError
            raise error(
                f"{name}={options[name]!r} is one string; pass a sequence of names, such as ({options[name]!r},)"
            )
    if not isinstance(options["spinning"], bool):
        raise OptionError(f"spinning={options['spinning']!r}: use True or False")
    if not isinstance(options["runtime_cache"], str | os.PathLike | bool | None):
        raise OptionError(f"runtime_cache={options['runtime_cache']!r}: use the path of a file, False or None")
    if not isinstance(options["verify_key"], str | os.PathLike | bytes | None):
        raise OptionError(
            f"verify_key={options['verify_key']!r}: use the path of a PEM file, PEM in bytes, or the key's 32 bytes"
        )


_MEANT = {
    "device": "CUDA's number of a GPU, counted from 0; names are OpenVINO's, and need backend='openvino'",
    "contexts": "a number of execution contexts, 1 or more",
    "cuda_graphs": "a number of CUDA graphs, 0 or more",
    "threads": "a number of threads, 1 or more",
    "precision": "'fp16'",
    "backend": "'tensorrt'",
}
