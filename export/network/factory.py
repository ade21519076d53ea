"""``--model package.module:factory``: the user's own network, made by the user's code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mtl_deploy.runtime.errors import OptionError


def make_network(reference: str) -> torch.nn.Module:
    """Import a factory and call it without arguments.

    Args:
        reference: ``package.module:factory``; the factory is a function or class, or an attribute path to one. The
            current directory is importable.

    Raises:
        OptionError: there is no such module or factory, it fails, or it does not return an ``nn.Module``.
    """
    module_name, colon, path = reference.partition(":")
    if not module_name or not colon or not path:
        raise OptionError(f"--model {reference!r}: write package.module:factory, for example train:make_network")
    if module_name == "__main__":
        raise OptionError(
            f"--model {reference!r}: __main__ is the notebook or script that defined {path}, which another program cannot import; "
            "write the class into a module file (in a notebook: %%writefile network.py) and give network:factory"
        )
    with importing_from_here():
        factory = _import(reference, module_name)
        for name in path.split("."):
            if not hasattr(factory, name):
                raise OptionError(f"--model {reference!r}: {_label(factory)} has no {name!r}")
            factory = getattr(factory, name)
        if isinstance(factory, torch.nn.Module):
            return factory
        if not callable(factory):
            raise OptionError(f"--model {reference!r}: {path} is a {type(factory).__name__}, not a function or class")
        try:
            network = factory()
        except Exception as error:
            raise OptionError(
                f"--model {reference!r}: {path}(), called without arguments, failed: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(network, torch.nn.Module):
        raise OptionError(f"--model {reference!r}: {path}() returned a {type(network).__name__}, not a torch.nn.Module")
    return network


def _import(reference: str, module_name: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise OptionError(
                f"--model {reference!r}: there is no module {error.name!r}; run from the folder that holds it, or "
                "install it"
            ) from error
        raise OptionError(f"--model {reference!r}: importing {module_name} needs {error.name!r}; install it") from error
    except Exception as error:
        raise OptionError(
            f"--model {reference!r}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def importing_from_here() -> Iterator[None]:
    """Make the current directory importable, as ``python -m`` does; console scripts do not.

    Raises:
        OptionError: the directory is gone.
    """
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise OptionError(
            "the current directory no longer exists, and modules for --model are looked for there"
        ) from error
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _label(found: object) -> str:
    return str(getattr(found, "__name__", type(found).__name__))
