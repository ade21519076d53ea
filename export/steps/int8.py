"""INT8 in an export: its images are read early; its graphs are made from the FP32 graph that the bundle already holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.dataset import CalibrationData, load_data
from mtl_deploy.calibration.data.held_apart import held_apart
from mtl_deploy.calibration.observe.trained import Trained
from mtl_deploy.calibration.stage import add_int8
from mtl_deploy.calibration.timing import add_measurement
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.export.network.network import Network
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.verification.expected import run_network
from mtl_deploy.runtime.bundle.manifest import MANIFEST, Manifest, open_bundle
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.images.seen import seen_pixels

Quantizer = Callable[[Path, Manifest], Manifest]


def read_data(network: Network, options: Options, progress: Progress) -> CalibrationData | None:
    """Read the images for INT8, before any long work; None if INT8 was not asked for.

    Raises:
        ImageError: no image can be read.
    """
    if "int8" not in options.precisions or options.calibration_data is None:
        return None
    with progress.step(f"Reading {options.calibration_data}") as say:
        data = load_data(
            options.calibration_data,
            network.preprocessing,
            network.tasks,
            samples=options.int8.samples,
            seed=options.int8.seed,
            labels=options.labels,
        )
        say(data.source)
    return data


def quantizer(
    network: Network,
    signature: Signature,
    data: CalibrationData | None,
    batch: int | None,
    options: Options,
    progress: Progress,
) -> Quantizer | None:
    """Return what adds INT8 graphs to the bundle's folder, once its FP32 graph is written there; None without data."""
    if data is None:
        return None
    _, _, held_out = held_apart(data, options.int8)
    with progress.step(f"Running {network.runner} on {len(held_out.images)} held-out images"):
        expected = run_network(network, signature, held_out.images, batch, exactly=False)
    trained = _trained(network, signature, held_out.images[: batch or 2], progress)
    earlier = open_bundle(options.target) if (options.target / MANIFEST).is_file() else None

    def pytorch(start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        return {task.name: expected.outputs(task, start, stop)[task.name] for task in signature.tasks}

    def add(folder: Path, manifest: Manifest) -> Manifest:
        with_graphs = add_int8(
            folder, manifest, data, options.int8, progress, pytorch=pytorch, earlier=earlier, trained=trained
        )
        add_measurement(folder, with_graphs, options.int8, progress)
        return with_graphs

    return add


def _trained(
    network: Network, signature: Signature, images: npt.NDArray[np.uint8], progress: Progress
) -> Trained | None:
    """Return the ranges that the network was trained with, and what they are for on a few images; None if it has none."""
    held = network.loaded.trained
    if held is None:
        return None
    with progress.step("Looking at what the trained ranges are for") as say:
        try:
            seen = held.see(network_input(seen_pixels(images, signature.preprocessing), signature.preprocessing))
        except Exception as error:  # noqa: BLE001 - the network's own code runs here; ranges are found anew then
            say(f"the network does not run with its fake quantizers ({type(error).__name__}); ranges are found anew")
            return None
        say(f"{len(seen)} tensors")
    return Trained(images, seen)
