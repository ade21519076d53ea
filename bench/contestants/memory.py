"""Memory that one contestant needs, on the host and on the GPU.

A contestant in a process of its own has its memory read there. For engines, which share this process, :func:`peak_memory` runs this
module in a process of its own: within one process the two sides would share allocator arenas, libraries and the high-water mark.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.errors import WorkError

from .contestant import Contestant
from .pair import Pair, Settings, find_pair, make_batch
from .processes import run

_CALLS = 5  # the first ones allocate, the later ones reuse


@dataclass(frozen=True)
class Memory:
    """Memory of a process that runs one side, in bytes.

    Attributes:
        libraries: resident memory with Python and ONNX Runtime or OpenVINO, or TensorRT and a CUDA context, before any model is
            loaded.
        peak: largest resident memory up to the end of loading and some calls.
        gpu: by how much less memory is free on the GPU after loading and some calls than with a CUDA context alone: kernels,
            weights, activations, buffers and recorded CUDA graphs. None for ONNX graphs.
    """

    libraries: int
    peak: int
    gpu: int | None = None

    @property
    def models(self) -> int:
        """What the models add, in bytes: weights, arenas and threads."""
        return self.peak - self.libraries


_noted: list[int] = []  # the high-water mark before this process loaded any model


def note_libraries() -> None:
    """Remember the memory of a contestant's process before it loads its models."""
    _noted.append(_peak_bytes())


def own_memory(contestant: Contestant) -> Memory | None:  # noqa: ARG001 - the process is the contestant's own
    """Return the memory of the process so far; None where the process is shared. See :meth:`Host.run`."""
    return Memory(_noted[-1], _peak_bytes()) if _noted else None


def peak_memory(pair: Pair, side: str, batch: int, settings: Settings) -> Memory:
    """Measure a side in a fresh process.

    Args:
        pair: what is compared.
        side: ``shared`` or ``separate``.
        batch: images per call.
        settings: how it runs.

    Raises:
        WorkError: the process failed.
    """
    path = pair.bundle.path / pair.shared.path  # names precision, backend and library
    arguments = [str(path), side, "--batch", str(batch)]
    arguments += [f"--provider={name}" for name in settings.providers or ()]
    arguments += [f"--threads={settings.threads}"] if settings.threads is not None else []
    arguments += ["--spinning"] if settings.spinning else []
    arguments += [] if settings.cuda_graphs else ["--no-cuda-graphs"]
    arguments += [f"--backend={settings.backend}"] if settings.backend is not None and not pair.engines else []
    arguments += ["--gpu"] if pair.engines else []
    ended = run(__name__, arguments)
    if not ended.succeeded:
        raise WorkError(f"measuring the memory of the {side} side failed: {ended.reason}")
    return Memory(**json.loads(ended.result))


def main() -> None:
    """Load one side, call it, and print its memory as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("side", choices=("shared", "separate"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--provider", action="append")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--backend")
    parser.add_argument("--spinning", action="store_true")
    parser.add_argument("--no-cuda-graphs", action="store_true")
    parser.add_argument("--gpu", action="store_true", help="measure the GPU's memory too")
    chosen = parser.parse_args()
    settings = Settings(
        tuple(chosen.provider) if chosen.provider else None,
        chosen.threads,
        chosen.spinning,
        not chosen.no_cuda_graphs,
        chosen.backend,
    )
    found = measure_memory(chosen.artifact, chosen.side, chosen.batch, settings, gpu=chosen.gpu)
    print(json.dumps(asdict(found)))  # noqa: T201 - the other process reads it


def measure_memory(artifact: Path, side: str, size: int, settings: Settings, *, gpu: bool) -> Memory:
    """Measure a side in this process, which must have done nothing else before."""
    from .forms import load_libraries, start
    from .specs import default_specs

    with ExitStack() as stack:
        context = stack.enter_context(closing(Context())) if gpu else None
        free = context.memory()[0] if context else 0  # before anything of the library is loaded
        pair = find_pair(artifact, None, settings.providers, settings.backend)  # loads TensorRT where it is an engine
        batch = make_batch(pair, size, seed=0)
        spec = next(spec for spec in default_specs(pair, settings) if spec.name == side)
        load_libraries(spec)
        libraries = _peak_bytes()
        contestant = stack.enter_context(closing(start(spec)))
        for _ in range(_CALLS):
            contestant(batch)
        return Memory(libraries, _peak_bytes(), free - context.memory()[0] if context else None)


def _peak_bytes() -> int:
    """Return the process's high-water mark of resident memory."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        pass
    else:  # not ru_maxrss: on Linux it starts from what the process had before it became this program
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in kibibytes
