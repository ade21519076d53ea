"""The PyTorch network behind an export: loaded, with its tasks bound to what it returns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.export.preprocessing.preset_timm import timm_preset
from mtl_deploy.export.preprocessing.preset_torchvision import torchvision_preset
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import MtlError, OptionError, TraceError

from .checkpoint import Loaded, load_checkpoint
from .inputs import network_input
from .outputs import Key, flatten_outputs
from .task_file import bind_tasks


@dataclass(frozen=True)
class Network:
    """A loaded network with its tasks.

    Attributes:
        loaded: what the checkpoint held.
        tasks: one per deployed output, each with its size and with the network's own key in ``output``.
        preprocessing: what was asked for, at the size that the file fixes, if it fixes one.
        notes: what the file holds beside the network; what came from a preset, and what contradicts it.
    """

    loaded: Loaded
    tasks: tuple[Task, ...]
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()

    def __call__(self, tensor: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Run the network's own ``forward`` on ``(N, 3, H, W) float32``; return the raw outputs by task.

        They are ``(N, size)``, for dense tasks ``(N, size, H / stride, W / stride)``.
        """
        outputs = _run(self.loaded, tensor, free=self.preprocessing.multiple > 0)
        return {task.name: outputs[_key(task)] for task in self.tasks}

    @cached_property
    def doubled(self) -> Loaded | None:
        """A deep copy of the network in double precision; None if it does not run that way.

        Some networks cannot: their ``forward`` casts to float32 in between, or calls operators that lack float64.
        """
        shape = self.loaded.input_shape
        size = (shape[0] if shape else None) or 1, 3, self.preprocessing.height, self.preprocessing.width
        try:
            loaded = replace(self.loaded, network=copy.deepcopy(self.loaded.network).double())
            _run(loaded, torch.zeros(size, dtype=torch.float64))
        except Exception:  # noqa: BLE001 - the network's own code runs here and can raise anything; float32 is the truth then
            return None
        return loaded

    @property
    def in_float64(self) -> Callable[[torch.Tensor], Mapping[str, torch.Tensor]] | None:
        """The same network for ``float64`` tensors; None if it does not run in double precision."""
        loaded = self.doubled
        if loaded is None:
            return None
        free = self.preprocessing.multiple > 0

        def run(tensor: torch.Tensor) -> Mapping[str, torch.Tensor]:
            outputs = _run(loaded, tensor, free=free)
            return {task.name: outputs[_key(task)] for task in self.tasks}

        return run

    @property
    def description(self) -> str:
        """For people: what the checkpoint is, and the tasks."""
        tasks = ", ".join(f"{task.name} ({task.kind})" for task in self.tasks)
        return f"{self.loaded.description}; tasks {tasks}"


def load_network(options: Options) -> Network:
    """Load the checkpoint, run the network once, and bind the tasks to what it returns.

    Raises:
        CheckpointError: the file holds no usable network.
        TaskError: tasks and outputs do not match.
        TraceError: the network fails on a batch of images.
    """
    loaded = load_checkpoint(
        options.checkpoint, model=options.model, weights=options.weights, trust_pickle=options.trust_pickle
    )
    asked, notes = _asked(loaded, options)
    preprocessing = _at_fixed_size(loaded, asked, options)
    if notes and (preprocessing.height, preprocessing.width) != (asked.height, asked.width):
        notes = (
            *notes,
            f"the program is for images of {preprocessing.height}x{preprocessing.width}, which wins",
        )
    batch = 2 if loaded.input_shape is None else loaded.input_shape[0] or 2
    probe = network_input(natural_images(batch, preprocessing.height, preprocessing.width, seed=1), preprocessing)
    try:
        outputs = _run(loaded, probe)
    except TraceError:  # some networks fix a batch of one in code
        outputs = _run(loaded, probe[:1])
    if preprocessing.multiple and loaded.program is None:
        _run_larger(loaded, _larger(probe[:1], preprocessing.multiple))
    sizes = {key: int(output.shape[1]) for key, output in outputs.items()}
    maps = {key: (int(output.shape[2]), int(output.shape[3])) for key, output in outputs.items() if output.ndim == 4}
    image = (preprocessing.height, preprocessing.width)
    tasks = bind_tasks(options.tasks, loaded.default_tasks, sizes, maps, image)
    return Network(loaded, tasks, preprocessing, (*loaded.notes, *notes))


def _asked(loaded: Loaded, options: Options) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the requested preprocessing, and notes: a preset fills in what the user did not say."""
    if options.stated is None:
        return options.preprocessing, ()
    if options.stated.transform is not None:
        return combine(options.stated, torchvision_preset(options.stated.transform))
    if loaded.pretrained_cfg is not None:
        return combine(options.stated, timm_preset(loaded.pretrained_cfg))
    return options.preprocessing, ()


def _run_larger(loaded: Loaded, images: torch.Tensor) -> None:
    """Find out before the exporter does if a network takes no other size: the exporter's message is longer."""
    try:
        _run(loaded, images, free=True)
    except TraceError:
        raise
    except MtlError as error:  # what comes out is no longer a batch of outputs
        raise TraceError(
            f"the network fails at another size: {error}; its forward fixes the size, so leave --dynamic-size out"
        ) from error


def _larger(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Return images a step larger on both sides, with the first rows and columns repeated."""
    return torch.cat([images, images[..., :multiple, :]], dim=2)[..., [*range(images.shape[3]), *range(multiple)]]


_TRAINED = "set the size that it was trained for with --image-size HxW"


def _at_fixed_size(loaded: Loaded, asked: Preprocessing, options: Options) -> Preprocessing:
    fixed = loaded.image_size
    if fixed is not None and asked.multiple:
        raise OptionError(
            f"{options.checkpoint} is a program for images of {fixed[0]}x{fixed[1]}, and --dynamic-size needs free sizes; leave "
            "the option out, or export the program again with a torch.export.Dim for height and width"
        )
    if fixed is None or fixed == (asked.height, asked.width):
        return asked
    if options.image_size_given:
        raise OptionError(
            f"{options.checkpoint} is a program for images of {fixed[0]}x{fixed[1]}, but --image-size says "
            f"{asked.height}x{asked.width}; leave the option out, or export the program again at that size"
        )
    return replace(asked, height=fixed[0], width=fixed[1])


def _run(loaded: Loaded, tensor: torch.Tensor, *, free: bool = False) -> Mapping[Key, torch.Tensor]:
    try:
        with torch.inference_mode():
            result = loaded.network(tensor)
    except Exception as error:  # the network's own code runs here and can raise anything
        size = "x".join(str(pixels) for pixels in tensor.shape[2:])
        lines = str(error).strip().splitlines() or ["no message"]
        raise TraceError(
            f"the network fails on a batch of {len(tensor)} images of {size}: {type(error).__name__}: {lines[0]}; "
            + ("its forward fixes the size, so leave --dynamic-size out" if free else _TRAINED)
        ) from error
    return flatten_outputs(result, batch=len(tensor))


def _key(task: Task) -> Key:
    assert task.output is not None  # bind_tasks sets it
    return task.output
