"""What the checks of gpu_check.py share: the bundle's engines, and running a check in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle


@dataclass
class Machine:
    """What the checks run on.

    Attributes:
        bundle: a bundle with engines for this GPU.
        out: folder for results.
    """

    bundle: Path
    out: Path
    engines: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        artifacts = open_bundle(self.bundle).manifest.artifacts
        self.engines = {
            item.precision: item for item in artifacts if (item.role, item.backend) == ("shared", "tensorrt")
        }

    @property
    def precisions(self) -> list[str]:
        return [name for name in ("fp16", "int8", "fp32") if name in self.engines]

    @property
    def best(self) -> str:
        return self.precisions[0]

    @property
    def batches(self) -> str:
        largest = self.engines[self.best].batch_max
        return ",".join(str(batch) for batch in (1, 8, 32) if batch <= largest)

    def engine(self, precision: str) -> str:
        return str(self.engines[precision].path)

    def load(self, precision: str | None = None, **options: Any) -> Any:
        return load(self.bundle / self.engine(precision or self.best), **options)

    def images(self, batch: int, seed: int = 0) -> np.ndarray:
        size = open_bundle(self.bundle).manifest.signature.preprocessing
        return np.random.default_rng(seed).integers(0, 256, (batch, size.height, size.width, 3), dtype=np.uint8)


def in_child(
    machine: Machine,
    module: str,
    function: str,
    *arguments: Any,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Call a check's function in a separate process, which it may crash; return its result.

    Args:
        machine: the function's first argument.
        module: the function's module, in this folder.
        function: the function's name.
        arguments: the other arguments, which must be literals.
        options: for the interpreter.
        environment: environment variables to set.
    """
    code = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from gpu_machine import Machine
from {module} import {function}
machine = Machine(Path({str(machine.bundle)!r}), Path({str(machine.out)!r}))
print(json.dumps({function}(machine, *{arguments!r})))
"""
    command = [sys.executable, *options, "-c", code]
    variables = os.environ | dict(environment or {})
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=variables)
    assert result.returncode == 0, f"exit code {result.returncode}: {result.stderr[-1500:]}"
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def run_module(module: str, *arguments: str) -> str:
    """Run a command of the project in a separate process and return what it printed."""
    code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(
            f"{module} {' '.join(arguments)}: exit code {result.returncode}: {result.stderr.strip()[-2000:]}"
        )
    return result.stdout


def compare(given: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Assert that outputs are as expected, task by task."""
    assert given.keys() == expected.keys(), where
    for task, values in expected.items():
        np.testing.assert_allclose(given[task], values, rtol=1e-3, atol=1e-4, err_msg=f"{where}, {task}")


def failure_of(work: Callable[[], object]) -> str | None:
    """Return the message of the error that a function raises; None if it raises none."""
    try:
        work()
    except (AssertionError, RuntimeError) as error:
        return str(error)
    return None
