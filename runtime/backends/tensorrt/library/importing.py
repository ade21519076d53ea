"""The libraries that are installed: found without an import, and imported."""

from __future__ import annotations

import importlib
from functools import lru_cache
from importlib.util import find_spec

from mtl_deploy.runtime.errors import BackendError

from .building import BuildsEngines
from .release import LIBRARIES, TITLES
from .running import RunsEngines

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EXTRAS = {name: f"pip install 'mtl-deploy[{name}]'" for name in LIBRARIES}


class Library(RunsEngines, BuildsEngines):
    """An installed TensorRT, with all that differs between its releases."""


def installed() -> list[str]:
    """Return the names of the libraries whose module can be found; none is imported."""
    return [name for name in LIBRARIES if find_spec(_MODULES[name]) is not None]


@lru_cache(maxsize=2)
def import_library(name: str) -> Library:
    """Import a library.

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.

    Raises:
        BackendError: it is missing, or installed but broken.
    """
    if name not in installed():
        raise BackendError(f"{TITLES[name]} is not installed: {EXTRAS[name]}")
    try:
        module = importlib.import_module(_MODULES[name])
        version = str(module.__version__)
        module.Runtime  # noqa: B018 - missing where the bindings find no libraries
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise BackendError(
            f"{TITLES[name]} is installed but does not load ({' '.join(str(error).split()) or type(error).__name__}); install it "
            f"again: {EXTRAS[name]}"
        ) from error
    return Library(name, version, module)
