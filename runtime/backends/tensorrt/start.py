"""Starting TensorRT. Where it cannot start, it may crash the process, so that is checked before it is imported or used.

On a driver that is too old TensorRT 8.6 crashes inside ``Runtime(logger)``, the lean runtimes of 10.16 and 11.4 return an object
that crashes when it is used or freed, and ``Builder(logger)`` of newer ones aborts. TensorRT-RTX survives it, and builds without a
driver. (tests/conformance checks the lean runtime and RTX.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from typing import Any

from mtl_deploy.runtime.errors import BackendError

from .library import TITLES, Library
from .log import Messages, keep_forever, logger_for

_CUDA = re.compile(r"(?:^|[-_])cu(\d\d)(?![\w.]*\d)")
_MAJORS = range(11, 20)  # of CUDA, in the names of wheels
_PARTS = ("", "-bindings", "-libs")


def built_for(name: str) -> int | None:
    """Return the major version of CUDA that an installed library's wheel is built for; nothing is imported.

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.

    Returns:
        The lowest, where wheels of several are installed; None where no wheel says it, as on JetPack.
    """
    majors: set[int] = set()
    for project in (name, f"{name}-libs", f"{name}-bindings", *(f"{name}-cu{major}" for major in _MAJORS)):
        try:
            found = metadata.distribution(project)
        except metadata.PackageNotFoundError:
            continue
        majors |= _majors([project])
        majors |= _majors(text for text in found.requires or () if "extra ==" not in text)
    return min(majors, default=None)


def installed_version(name: str) -> str | None:
    """Return an installed library's version by what its wheel says; nothing is imported. None where no wheel says it.

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.
    """
    for project in (name, f"{name}-bindings", *(f"{name}-cu{major}{part}" for major in _MAJORS for part in _PARTS)):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(project)
    return None


def _majors(texts: Iterable[str]) -> set[int]:
    names = (re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0] for text in texts)
    return {int(found[1]) for name in names if (found := _CUDA.search(name)) is not None}


def require_driver(name: str, driver: str) -> None:
    """Check that the GPU's driver is new enough for an installed library.

    Any driver of a major version of CUDA runs what was built for that major version (CUDA's minor version compatibility).

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        driver: the CUDA version that the driver supports, such as ``12.6``.

    Raises:
        BackendError: it is not; names both versions.
    """
    needed, here = built_for(name), int(driver.partition(".")[0])
    if needed is not None and here < needed:
        raise BackendError(
            f"{TITLES[name]} is installed for CUDA {needed}, and the GPU's driver supports CUDA {driver}: update the driver, or "
            f"install {name}-cu{here}"
        )


def start_runtime(library: Library, messages: Messages) -> Any:
    """Return the library's runtime.

    Raises:
        BackendError: CUDA does not start for it.
    """
    return _start(library, library.module.Runtime, messages, "does not start")


def start_builder(library: Library, messages: Messages) -> Any:
    """Return the library's builder.

    Raises:
        BackendError: CUDA does not start for it.
    """
    return _start(library, library.module.Builder, messages, "cannot build here")


def _start(library: Library, make: Any, messages: Messages, fault: str) -> Any:
    logger = logger_for(library.module, messages)
    messages.clear()
    found = None
    try:
        found = make(logger)
    except TypeError as error:  # what the bindings raise for a null pointer
        raise BackendError(_not_started(library, messages, fault)) from error
    if messages.cuda_failed:
        keep_forever(found)  # its destructor crashes
        raise BackendError(_not_started(library, messages, fault))
    return found


def _not_started(library: Library, messages: Messages, fault: str) -> str:
    return f"{library.title} {fault} ({messages.reason()}); update the GPU's driver, or install the library's release for it"
