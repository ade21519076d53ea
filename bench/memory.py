"""Peak memory of one side, measured in a process of its own.

Run as ``python -m mtl_deploy.bench.memory`` by :func:`peak_memory`: within one process the two sides would share allocator arenas,
libraries and the high-water mark.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mtl_deploy.runtime.errors import WorkError

from .contestants import Pair, Settings, find_pair, make_batch, start

_CALLS = 5  # the first ones allocate; later ones reuse


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process that runs one side, in bytes.

    Attributes:
        libraries: with Python and ONNX Runtime loaded, before any model.
        peak: at most, after loading and some calls.
    """

    libraries: int
    peak: int

    @property
    def models(self) -> int:
        """What the models add: weights, arenas and threads."""
        return self.peak - self.libraries


def peak_memory(pair: Pair, side: str, batch: int, settings: Settings) -> Memory:
    """Measure a side in a fresh process.

    Args:
        pair: what is compared.
        side: ``shared`` or ``separate``.
        batch: images a call.
        settings: how it is run.

    Raises:
        WorkError: the process failed.
    """
    command = [sys.executable, "-m", "mtl_deploy.bench.memory", str(pair.bundle.path), side]
    command += ["--precision", pair.shared.precision, "--batch", str(batch)]
    command += [f"--provider={name}" for name in settings.providers or ()]
    command += [f"--threads={settings.threads}"] if settings.threads is not None else []
    command += ["--spinning"] if settings.spinning else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise WorkError(f"measuring the memory of the {side} side failed: {lines[-1]}")
    return Memory(**json.loads(result.stdout))


def main(arguments: Sequence[str] | None = None) -> None:
    """Load one side, call it, and print its memory as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("side", choices=("shared", "separate"))
    parser.add_argument("--precision")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--provider", action="append")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--spinning", action="store_true")
    chosen = parser.parse_args(arguments)
    settings = Settings(tuple(chosen.provider) if chosen.provider else None, chosen.threads, chosen.spinning)
    pair = find_pair(chosen.bundle, chosen.precision, settings.providers)
    batch = make_batch(pair, chosen.batch, seed=0)
    from mtl_deploy.runtime.onnxruntime_backend import default_providers

    default_providers()  # loads ONNX Runtime
    libraries = _peak_bytes()
    contestant = start(pair, chosen.side, settings)
    for _ in range(_CALLS):
        contestant(batch)
    json.dump(asdict(Memory(libraries, _peak_bytes())), sys.stdout)
    contestant.close()


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
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts kibibytes


if __name__ == "__main__":
    main()
