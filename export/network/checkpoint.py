"""From a file to a network that runs, and what was found in it.

A checkpoint is read with ``torch.load(weights_only=True)``: tensors and plain containers, no code. Well-known values beside the
weights are passed over (``weights.plain_values``). A file that asks for more is refused, naming what it asked for, unless the user
says that the file is trusted.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch

from mtl_deploy.export.network.program.bounds import check_when_run
from mtl_deploy.export.network.program.code import wanted_global
from mtl_deploy.export.network.program.reading import input_shape, load_program
from mtl_deploy.export.networks import article
from mtl_deploy.export.preprocessing.preset_timm import CONFIG_KEYS, Config, find_config
from mtl_deploy.runtime.bundle.manifest import digest
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import CheckpointError, OptionError

from .factory import importing_from_here, make_network
from .file_kind import FileKind, file_kind
from .given.graph import GivenGraph
from .given.load import load_graph
from .given.torchscript import load_script
from .weights.candidates import Candidate, Choice, candidates, choose, entries
from .weights.fake_quantizers import quieten
from .weights.give import Fitted, article_layout, fit, give
from .weights.names import few
from .weights.plain_values import StandIn, drop_attributes, stand_ins
from .weights.state_dict import converted, ready
from .weights.trained_ranges import HeldRanges
from .weights.wrappers import unwrapped

Kind = Literal["article", "model", "module", "program", "script", "graph"]
Size = int | None


@dataclass(frozen=True)
class Loaded:
    """A network and where it came from.

    Attributes:
        network: takes ``(N, C, H, W) float32``; in eval mode, on the CPU and in float32. For a program, its module.
        program: the ``torch.export`` program, if the file held one.
        kind: ``article`` (weights of the article's network), ``model`` (weights for the user's factory), ``module`` (a
            pickled network), ``program``, ``script`` (TorchScript) or ``graph`` (ONNX).
        description: what was found, in one line for people.
        default_tasks: the tasks if the network itself implies them, otherwise None.
        sha256: of the file, hexadecimal.
        trained: ranges of activations that training for quantization has found; None: there are none, or nobody knows whose.
        pretrained_cfg: timm's record of the preprocessing, if the file holds one.
        input_shape: ``(N, C, H, W)`` as a program or graph was exported, None for each free dimension; None for the other
            kinds, which fix nothing.
        notes: what a reader of the bundle should know about the file: what it holds that is not used, what was done to weights.
    """

    network: torch.nn.Module
    program: torch.export.ExportedProgram | None
    kind: Kind
    description: str
    default_tasks: tuple[Task, ...] | None
    sha256: str
    input_shape: tuple[Size, Size, Size, Size] | None = None
    pretrained_cfg: Config | None = None
    notes: tuple[str, ...] = ()
    trained: HeldRanges | None = None

    @property
    def given(self) -> GivenGraph | None:
        """The ONNX graph, if the file is one."""
        return self.network if isinstance(self.network, GivenGraph) else None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels if the file fixes both, otherwise None."""
        if self.input_shape is None or self.input_shape[2] is None or self.input_shape[3] is None:
            return None
        return self.input_shape[2], self.input_shape[3]


def load_checkpoint(
    path: str | PathLike[str],
    *,
    model: str | None = None,
    weights: str | None = None,
    trust_pickle: bool = False,
    size: tuple[int, int] = (224, 224),
    threads: int | None = None,
) -> Loaded:
    """Load the network that a file holds.

    Args:
        path: a state dict or a checkpoint that holds one (``torch.save``, safetensors), a pickled ``nn.Module``, a
            ``torch.export`` program, TorchScript, or an ONNX graph.
        model: ``package.module:factory`` of the network that the weights are for; None: the article's network, rebuilt
            from the tensors.
        weights: which of several state dicts in the file, such as ``ema``; None: the likeliest that has all tensors.
        trust_pickle: let the file run code.
        size: height and width in pixels that an ONNX graph is tried at, if it fixes none.
        threads: that an ONNX graph runs on; None: one per core.

    Raises:
        CheckpointError: the file holds no usable network, or asks for code and is not trusted.
        OptionError: ``model`` cannot be called, ``weights`` is not in the file, or one of them is not needed for this file.
    """
    file = Path(path)
    kind = file_kind(file)
    if kind is FileKind.ONNX:
        _not_needed(file, "an ONNX graph", model=model, weights=weights, trust=trust_pickle)
        return _from_graph(file, size, threads)
    if kind is FileKind.TORCHSCRIPT:
        _not_needed(file, "a TorchScript archive", model=model, weights=weights)
        script, description = load_script(file, trust=trust_pickle)
        return Loaded(script, None, "script", description, None, digest(file))
    sha256 = digest(file)
    if kind is FileKind.PROGRAM:
        _not_needed(file, "a torch.export program", model=model, weights=weights)
        return _from_program(file, sha256, trust=trust_pickle)
    checkpoint = (
        _read_safetensors(file) if kind is FileKind.SAFETENSORS else _read_torch(file, kind, trust=trust_pickle)
    )
    try:
        loaded = _from_checkpoint(checkpoint, sha256, model, weights, trust=trust_pickle)
        return replace(loaded, pretrained_cfg=find_config(checkpoint))
    except (CheckpointError, OptionError) as error:
        raise type(error)(f"{file}: {error}") from error


def _not_needed(file: Path, what: str, *, model: str | None, weights: str | None, trust: bool = False) -> None:
    """Refuse options that do not apply."""
    for option, value in (("--model", model), ("--weights", weights)):
        if value is not None:
            raise OptionError(f"{file}: {what} holds its own network, so {option} does not apply; leave it out")
    if trust:
        raise OptionError(f"{file}: {what} holds no pickle, so --trust-pickle does not apply; leave it out")


def _from_graph(file: Path, size: tuple[int, int], threads: int | None) -> Loaded:
    found = load_graph(file, size, threads)
    entry = found.graph.entry
    shape = (None, *entry.sizes[1:])  # batches of another size go through it one after the other
    description = f"an ONNX graph for images {entry.description}"
    return Loaded(
        found.graph, None, "graph", description, None, found.sha256, shape, notes=found.notes, trained=found.ranges
    )


def _from_program(file: Path, sha256: str, *, trust: bool) -> Loaded:
    program = load_program(file, trust=trust)
    try:
        shape = input_shape(program)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    written = ", ".join("any" if size is None else str(size) for size in shape)
    description = f"a torch.export program for images ({written})"
    try:
        network = program.module()
        check_when_run(network)  # what a trusted program states may be wrong too
    except Exception as error:  # torch writes and compiles source code of the graph
        raise CheckpointError(
            f"{file}: torch cannot build a network from this program ({type(error).__name__}); export and save it again"
        ) from error
    return Loaded(network, program, "program", description, None, sha256, shape)


def _from_checkpoint(checkpoint: object, sha256: str, model: str | None, weights: str | None, *, trust: bool) -> Loaded:
    found = candidates(checkpoint)
    if model is None:
        choice = choose(found, _fits_article, weights)
        beside = _beside(checkpoint, choice)
        if isinstance(choice.candidate.value, torch.nn.Module):
            return _pickled(choice.candidate.value, choice, sha256, beside)
        state = choice.candidate.weights
        layout = article_layout(state, choice.prefix)
        fitted = _given(article.built_empty(layout), choice, trust=trust)
        what, tasks = f"of the article's network, {layout.description}", layout.default_tasks
    else:
        network = make_network(model)
        choice = choose(found, lambda candidate: fit(network, candidate.weights).complete, weights)
        beside = _beside(checkpoint, choice)
        fitted = _given(network, choice, trust=trust)
        what, tasks = f"for {model}", None
    under = f" under {choice.place}" if choice.place else ""
    return Loaded(
        fitted.network,
        None,
        "article" if model is None else "model",
        f"a state_dict{under} {what}{fitted.description}",
        tasks,
        sha256,
        notes=(*_rivals(choice, fitted), *fitted.notes, *beside),
        trained=fitted.trained,
    )


def _given(network: torch.nn.Module, choice: Choice, *, trust: bool) -> Fitted:
    try:
        return give(network, choice.candidate.weights, choice.prefix, trust=trust)
    except CheckpointError as error:
        if not choice.others:
            raise
        others = few(repr(other.name) for other in choice.others)
        raise CheckpointError(
            f"{error} (these are the weights under {choice.candidate.name!r}; --weights takes others: {others})"
        ) from error


def _fits_article(candidate: Candidate) -> bool:
    if isinstance(candidate.value, torch.nn.Module):
        return True
    try:
        article_layout(candidate.weights, None)
    except CheckpointError:
        return False
    return True


def _pickled(network: torch.nn.Module, choice: Choice, sha256: str, beside: tuple[str, ...]) -> Loaded:
    network = unwrapped(network)
    network, quantized = quieten(network)
    narrow = converted(value.dtype for value in network.state_dict().values() if _is_float(value))
    network = ready(network)
    layout = article.layout_of(network)
    under = f" under {choice.place}" if choice.place else ""
    what = f"the article's network, {layout.description}, pickled as {type(network).__name__}" if layout else ""
    what = what or f"a pickled network{under}, {type(network).__name__}"
    description = f"{what}{f'; {narrow}' if narrow else ''}"
    notes = tuple(filter(None, (quantized,)))
    return Loaded(
        network, None, "module", description, layout.default_tasks if layout else None, sha256, notes=(*notes, *beside)
    )


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _rivals(choice: Choice, fitted: Fitted) -> tuple[str, ...]:
    """Say which other weights the file holds for this network."""
    inside = choice.candidate.name
    names = [other.name for other in choice.fitting] + [
        f"{inside}.{name}" if inside else name for name in fitted.rivals
    ]
    if not names:
        return ()
    used = ".".join(filter(None, (inside, fitted.prefix))) or "the top level"
    return (
        f"the file holds several weights for this network: those under {used!r} are used; --weights takes others: "
        + few(map(repr, names)),
    )


def _beside(checkpoint: object, choice: Choice) -> tuple[str, ...]:
    """Say what else the file holds: tensors and containers, not the numbers and texts of a training run."""
    if not isinstance(checkpoint, Mapping) or not choice.candidate.path:
        return ()
    told = {other.path[0] for other in choice.others} | {choice.candidate.path[0], *CONFIG_KEYS}
    names = [
        repr(str(name))
        for name, value in entries(checkpoint)
        if isinstance(value, (Mapping, list, tuple, torch.Tensor, StandIn)) and str(name) not in told
    ]
    return (f"beside the weights, not used: {few(names, shown=8)}",) if names else ()


def _read_torch(file: Path, kind: FileKind, *, trust: bool) -> Any:
    try:
        allowed = importing_from_here() if trust else torch.serialization.safe_globals(stand_ins())
        with warnings.catch_warnings(), allowed:
            warnings.simplefilter("ignore")  # deprecations of storage types, which the user cannot act on
            named = _has_text_name(file)
            mapped = (
                kind is FileKind.TORCH and not trust and named
            )  # mapped weights are copied later; a trusted module is not
            with contextlib.nullcontext(file) if named else file.open("rb") as source:
                content = torch.load(source, map_location="cpu", weights_only=not trust, mmap=mapped)
    except Exception as error:  # a damaged or trusted file fails anywhere in the reader, or in its own code
        raise _unreadable(file, error, trust=trust) from error
    if not trust:
        drop_attributes(content)
    return content


def _has_text_name(file: Path) -> bool:
    """Return whether a path is text; libraries in C++ and Rust open no other."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(file: Path, error: Exception, *, trust: bool) -> CheckpointError:
    if not trust and (wanted := wanted_global(error)):
        return CheckpointError(
            f"{file}: its pickle asks for code, {wanted}, and such a pickle can run anything; nothing was run. Save "
            "only the weights with torch.save(network.state_dict(), 'model.pt'), or pass --trust-pickle if you trust "
            "where the file comes from"
        )
    # torch wraps the reason in its own advice
    message = re.split(r"WeightsUnpickler error:|from a trusted source\.", " ".join(str(error).split()))[-1]
    reason = f"{type(error).__name__}: {message.partition('Check the documentation')[0].strip() or 'it ends too early'}"
    if not trust and isinstance(error, pickle.UnpicklingError):
        return CheckpointError(
            f"{file}: its pickle holds more than weights, or is damaged ({reason}); nothing was run. Save the weights "
            "again with torch.save(network.state_dict(), 'model.pt')"
        )
    if trust and isinstance(error, (AttributeError, ImportError)):
        return CheckpointError(
            f"{file}: the code of the pickled network cannot be imported here ({reason}); run where its module can be "
            "imported, or save its state_dict and name the network with --model package.module:factory"
        )
    what = "damaged, or its own code fails" if trust else "truncated or damaged"
    return CheckpointError(f"{file}: {what} ({reason}); copy or download it again, or save it again")


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load, load_file
    except ImportError:
        raise CheckpointError(f"{file}: a safetensors file; to read it: pip install safetensors") from None
    try:
        tensors: dict[str, torch.Tensor] = load_file(file) if _has_text_name(file) else load(file.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(f"{file}: truncated or damaged ({error}); copy or download it again") from error
    return tensors
