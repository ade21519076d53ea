"""The PyTorch network behind an export: loaded, with its tasks bound to what it returns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.forward.binding import bind_tasks
from mtl_deploy.export.forward.channels import require_channels
from mtl_deploy.export.forward.probe import images_needed, probe
from mtl_deploy.export.forward.running import run
from mtl_deploy.export.forward.selected import Selected, as_tasks_output
from mtl_deploy.export.graph.parts import merges, part_names
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.export.preprocessing.preset_timm import timm_preset
from mtl_deploy.export.preprocessing.preset_torchvision import torchvision_preset
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import MtlError, OptionError, TaskError, TraceError

from .checkpoint import Loaded, load_checkpoint
from .given.agreement import IMAGES, agrees
from .given.pixels import as_pixels
from .inputs import network_input


@dataclass(frozen=True)
class Network:
    """A loaded network with its tasks.

    Attributes:
        loaded: what the checkpoint held.
        tasks: one per deployed output, each with its size and with the path of the network's output in ``output``.
        preprocessing: what was asked for, at the size that the file fixes, if it fixes one.
        selected: the network, returning the tensors that tasks read, each once: what is traced, doubled and measured.
        notes: what the file holds beside the network; what came from a preset, and what contradicts it; which outputs are left out.
        batch: the only N that ``forward`` takes; None if it takes any.
        repeats: whether ``forward`` computes the same several times, as the article's does.
    """

    loaded: Loaded
    tasks: tuple[Task, ...]
    preprocessing: Preprocessing
    selected: torch.nn.Module
    notes: tuple[str, ...] = ()
    batch: int | None = None
    repeats: bool = False

    def __call__(self, tensor: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Run the network's own ``forward`` on ``(N, C, H, W) float32``; return the raw outputs by task.

        They are ``(N, size)``, for dense tasks ``(N, size, H / stride, W / stride)``, for raw ones as they are.
        """
        return self.by_task(self._run(self.selected, tensor))

    def _run(self, network: torch.nn.Module, tensor: torch.Tensor) -> Any:
        free = self.preprocessing.multiple > 0
        return run(network, tensor, free=free, repeats=self.repeats, batch=self.batch)

    def by_task(self, values: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the raw outputs by task, given what :attr:`selected` returned.

        Where a task has several outputs, each of them is there too, by :func:`~mtl_deploy.export.graph.parts.part_names`.
        """
        by_output = dict(zip(dict.fromkeys(path for task in self.tasks for path in task.outputs), values, strict=True))
        found = {}
        for task in self.tasks:
            own = [by_output[path] for path in task.outputs]
            found[task.name] = as_tasks_output(task, own)
            found |= dict(zip(part_names(task), own, strict=False)) if merges(task) else {}
        return found

    @cached_property
    def doubled(self) -> torch.nn.Module | None:
        """A deep copy of :attr:`selected` in double precision; None if it does not run that way.

        Some networks cannot: their ``forward`` casts to float32 in between, or calls operators that lack float64. A given graph
        runs in another library then, which must give what its float32 gives: :mod:`.given.agreement`.
        """
        try:
            doubled = copy.deepcopy(self.selected).double()
            return doubled if self._is_proven(doubled) else None
        except Exception:  # noqa: BLE001 - the network's own code runs here and can raise anything; float32 is the truth then
            return None

    def _is_proven(self, doubled: torch.nn.Module) -> bool:
        if self.loaded.given is not None:
            sides, channels = (self.preprocessing.height, self.preprocessing.width), self.preprocessing.channel_count
            images = network_input(natural_images(IMAGES, *sides, seed=1, channels=channels), self.preprocessing)
            return agrees(lambda tensor: run(self.selected, tensor), lambda tensor: run(doubled, tensor), images)
        shape = self.loaded.input_shape
        size = (
            (shape[0] if shape else None) or self.batch or 1,
            self.preprocessing.channel_count,
            self.preprocessing.height,
            self.preprocessing.width,
        )
        self._run(doubled, torch.zeros(size, dtype=torch.float64))
        return True

    @property
    def in_float64(self) -> Callable[[torch.Tensor], Mapping[str, torch.Tensor]] | None:
        """The same network for ``float64`` tensors; None if it does not run in double precision."""
        doubled = self.doubled
        if doubled is None:
            return None
        return lambda tensor: self.by_task(self._run(doubled, tensor))

    @property
    def exact_images(self) -> int | None:
        """How many images there is time to run in float64; None: as many as usual."""
        return None if self.loaded.given is None else self.loaded.given.affordable

    @property
    def runner(self) -> str:
        """For people: what gives the answers that every graph is compared with."""
        return "PyTorch" if self.loaded.given is None else "the given graph"

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
    wanted = options.preprocessing
    loaded = load_checkpoint(
        options.checkpoint,
        model=options.model,
        weights=options.weights,
        trust_pickle=options.trust_pickle,
        size=(wanted.height, wanted.width),
        threads=options.threads,
    )
    asked, notes = _asked(loaded, options)
    preprocessing = _at_fixed_size(loaded, asked, options)
    if notes and (preprocessing.height, preprocessing.width) != (asked.height, asked.width):
        notes = (
            *notes,
            f"the {_called(loaded)} is for images of {preprocessing.height}x{preprocessing.width}, which wins",
        )
    notes = (*loaded.notes, *notes)
    require_channels(loaded.input_shape, preprocessing.channel_count, _called(loaded))
    image = (preprocessing.height, preprocessing.width)
    program = loaded.program is not None
    count = images_needed(program, None if loaded.input_shape is None else loaded.input_shape[0])
    images = network_input(natural_images(count, *image, seed=1, channels=preprocessing.channel_count), preprocessing)
    found = probe(loaded.network, images, options.constants, program=program)
    bound = bind_tasks(options.tasks, loaded.default_tasks, found.result, found.batch, image)
    shapes = () if preprocessing.multiple else bound.shapes
    selected = Selected(loaded.network, bound.paths, shapes, options.constants, bound.repeated)
    repeats = found.require_steady(selected)
    network = Network(loaded, bound.tasks, preprocessing, selected, (*notes, *bound.notes), found.only, repeats)
    if preprocessing.multiple and loaded.program is None:
        _run_larger(network, _larger(found.images[:1], preprocessing.multiple))
    return network


def _asked(loaded: Loaded, options: Options) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the requested preprocessing, and notes: a preset fills in what the user did not say."""
    if loaded.given is not None and loaded.given.entry.pixels:
        return as_pixels(options, loaded.given.entry.sizes[1] or 3), ()
    if options.stated is None:
        return options.preprocessing, ()
    if options.stated.transform is not None:
        return combine(options.stated, torchvision_preset(options.stated.transform))
    if loaded.pretrained_cfg is not None:
        return combine(options.stated, timm_preset(loaded.pretrained_cfg))
    return options.preprocessing, ()


def _run_larger(network: Network, images: torch.Tensor) -> None:
    """Find out before the exporter does if a network takes no other size: the exporter's message is longer."""
    try:
        found = network(images)
    except TraceError:
        raise
    except MtlError as error:  # what comes out is no longer a batch of outputs
        raise TraceError(
            f"the network fails at another size: {error}; its forward fixes the size, so leave --dynamic-size out"
        ) from error
    for task in network.tasks:
        if task.of.keeps_shape and tuple(found[task.name].shape[1:]) != task.shape:
            raise TaskError(
                f"task {task.name!r}: the shape of a raw output must be the same at every image size, and this one is "
                f"{task.shape} and {tuple(found[task.name].shape[1:])}; leave --dynamic-size out"
            )


def _larger(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Return images a step larger on both sides, with the first rows and columns repeated."""
    return torch.cat([images, images[..., :multiple, :]], dim=2)[..., [*range(images.shape[3]), *range(multiple)]]


def _at_fixed_size(loaded: Loaded, asked: Preprocessing, options: Options) -> Preprocessing:
    fixed = loaded.image_size
    what = _called(loaded)
    if fixed is not None and asked.multiple:
        raise OptionError(
            f"{options.checkpoint} is a {what} for images of {fixed[0]}x{fixed[1]}, and --dynamic-size needs free sizes; leave "
            f"the option out, or export the {what} again with "
            + ("free height and width" if loaded.program is None else "a torch.export.Dim for height and width")
        )
    if fixed is None or fixed == (asked.height, asked.width):
        return asked
    if options.image_size_given:
        raise OptionError(
            f"{options.checkpoint} is a {what} for images of {fixed[0]}x{fixed[1]}, but --image-size says "
            f"{asked.height}x{asked.width}; leave the option out, or export the {what} again at that size"
        )
    return replace(asked, height=fixed[0], width=fixed[1])


def _called(loaded: Loaded) -> str:
    return "graph" if loaded.given is not None else "program"
