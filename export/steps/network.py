"""The first steps: load the network, trace it into a graph, clean the graph."""

from __future__ import annotations

import torch

from mtl_deploy.calibration.search.budgets import check_budgets
from mtl_deploy.export.graph import opset, passes, trace
from mtl_deploy.export.network.given.take import take
from mtl_deploy.export.network.given.trace_script import trace_script
from mtl_deploy.export.network.network import Network, load_network
from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime.console.command import Progress


def load(options: Options, progress: Progress) -> Network:
    """Load the checkpoint and bind the tasks to what its network returns; PyTorch uses as many threads as were asked for.

    Raises:
        MtlError: the file holds no usable network, tasks and outputs do not match, or a budget names no task.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with progress.step(f"Loading {options.checkpoint}") as say:
        network = load_network(options)
        if options.int8.budgets is not None:
            check_budgets(options.int8.budgets, network.tasks)
        say(network.description)
    return network


def trace_network(network: Network, options: Options, progress: Progress) -> trace.TracedGraph:
    """Trace the network into a graph, unoptimised.

    Raises:
        TraceError: PyTorch cannot export it.
    """
    preprocessing = network.preprocessing
    if network.loaded.given is not None:
        with progress.step("Taking the given graph apart") as say:
            outputs = [str(path) for task in network.tasks for path in task.outputs]
            traced = take(network.loaded.given, outputs, preprocessing, opset=options.opset, threads=options.threads)
            say(traced.description)
        return traced
    if network.loaded.kind == "script":
        with progress.step("Turning the script into a graph") as say:
            traced = trace_script(network, opset=options.opset, threads=options.threads)
            say(traced.description)
        return traced
    with progress.step("Tracing the network into a graph") as say:
        traced = trace.trace(
            network.loaded.program or network.selected,
            preprocessing.height,
            preprocessing.width,
            opset=options.opset,
            multiple=preprocessing.multiple,
            channels=preprocessing.channel_count,
            batch=network.batch,
        )
        say(traced.description)
    return traced


def clean(traced: trace.TracedGraph, network: Network, options: Options, progress: Progress) -> passes.Merged:
    """Merge repeated work, fold constants and BatchNorm, and write the graph in its opset, in place.

    Returns:
        What was repeated.

    Raises:
        OptionError: the graph cannot be written in the opset that was asked for.
    """
    preprocessing = network.preprocessing
    size = (preprocessing.height, preprocessing.width) if preprocessing.multiple else None
    with progress.step("Merging repeated work, folding constants and BatchNorm") as say:
        merged = passes.merge_copies(traced.model, size)
        passes.clean(traced.model)
        written = opset.write_opset(traced.model, options.opset)
        say(f"{merged.description}; opset {written}")
    return merged
