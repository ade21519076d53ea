"""One graph on ONNX Runtime with its profiler on: how long each node of the optimized graph took in each call.

For measurements. ONNX Runtime writes one JSON event per node and call, which takes time itself
(``bench/sections/where/graph_profile.py`` says how much). The graph that it executes is not the one in the file: constants are
folded, nodes fused and reordered. So the session also writes the optimized graph. That file lists the nodes in the order in which
the session executes them, so events and nodes are matched by position, and checked by operator and name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import BackendError, RunError
from mtl_deploy.runtime.onnx_format.graph import OnnxNode, read_graph

from .backend import OnnxRuntimeBackend, default_providers

_CPU = "CPUExecutionProvider"
_SUFFIX = "_kernel_time"  # of an event's name; what stands before is the node's name, or operator and number


class ProfiledBackend(OnnxRuntimeBackend):
    """Runs one graph as :class:`~mtl_deploy.runtime.backends.onnxruntime.backend.OnnxRuntimeBackend` does, and profiles it.

    Args:
        read: returns the ``.onnx`` file's bytes.
        where: how errors call the file.
        providers: ONNX Runtime's; the first must be the CPU's. None: its default here.
        threads: threads inside an operator; None: one per physical core.
        spinning: whether idle threads wait by spinning.

    Raises:
        BackendError: onnxruntime is missing or broken, or the graph would not run on the processor: the profile would then
            only hold how long it took to enqueue each node.
        BundleError: the bytes are not a graph that it can load.
    """

    def __init__(
        self,
        read: Callable[[], bytes],
        *,
        where: str = "graph",
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        spinning: bool = True,
    ) -> None:
        first = (default_providers() if providers is None else list(providers) or [_CPU])[0]
        if first not in (_CPU, _CPU.removesuffix("ExecutionProvider")):
            raise BackendError(
                f"{where}: ONNX Runtime's profile times nodes on the processor only, and {first} does not run there; profile with "
                "provider CPU"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="mtl-profile-")
        try:
            super().__init__(read, where=where, providers=providers, threads=threads, spinning=spinning)
            self.graph = read_graph((Path(self._folder.name) / "optimized.onnx").read_bytes())
            """The optimized graph; its nodes are in the order of execution."""
        except OSError as error:
            self._folder.cleanup()
            raise RunError(f"{where}: ONNX Runtime wrote no optimized graph ({error})") from error
        except BaseException:
            self._folder.cleanup()
            raise

    def _options(self) -> Any:
        options = super()._options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        options.optimized_model_filepath = str(Path(self._folder.name) / "optimized.onnx")
        return options

    def node_times(self, dropped: int = 0) -> npt.NDArray[np.float64]:
        """End the profile and return each node's milliseconds in each call, ``(calls, nodes)``; the backend is closed afterwards.

        ONNX Runtime's clock counts whole microseconds.

        Args:
            dropped: calls at the beginning to leave out, the warm-up.

        Raises:
            RunError: the profile and the graph do not match, or there was no call.
        """
        sessions = list(self._sessions.values())
        if not sessions:
            raise RunError("the profile has been read, and its session is closed; make another")
        file = Path(sessions[0].end_profiling())
        try:
            events = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise RunError(f"{self._where}: ONNX Runtime wrote no profile that can be read ({error})") from error
        finally:
            self.close()
        return _by_call(events, self.graph.nodes, self._where)[dropped:]

    def close(self) -> None:
        """Free the session and remove its files."""
        super().close()
        self._folder.cleanup()


def _by_call(events: list[dict[str, Any]], nodes: Sequence[OnnxNode], where: str) -> npt.NDArray[np.float64]:
    """Return the nodes' milliseconds, one row per call. Events are in the order in which they ended."""
    calls: list[list[float]] = []
    current: list[dict[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_SUFFIX):
            current.append(event)
        elif event.get("name") == "model_run":
            calls.append(_in_order(current, nodes, where))
            current = []
    if not calls:
        raise RunError(f"{where}: ONNX Runtime's profile holds no call")
    return np.array(calls, np.float64).reshape(len(calls), len(nodes))


def _in_order(events: Sequence[dict[str, Any]], nodes: Sequence[OnnxNode], where: str) -> list[float]:
    """Return one call's milliseconds by node. Events of nodes inside a node (the body of a Loop) are in that node's own time."""
    found: list[float] = []
    position = 0
    for node in nodes:
        while position < len(events) and node.graphs and not _fits(events[position], node):
            position += 1
        if position == len(events) or not _fits(events[position], node):
            seen = events[position]["name"] if position < len(events) else "nothing"
            raise RunError(f"{where}: ONNX Runtime's profile shows {seen!r} where its optimized graph has {node}")
        found.append(float(events[position]["dur"]) / 1e3)
        position += 1
    if position < len(events):
        raise RunError(
            f"{where}: ONNX Runtime's profile shows {len(events) - position} nodes that its graph does not have"
        )
    return found


def _fits(event: dict[str, Any], node: OnnxNode) -> bool:
    name = str(event["name"]).removesuffix(_SUFFIX)
    return event.get("args", {}).get("op_name") == node.op_type and (not node.name or name == node.name)
