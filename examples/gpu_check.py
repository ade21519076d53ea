"""Everything that only a GPU can show, in one run: build, verify, measure, soak, and recover from faults; see docs/gpu.md.

    python examples/gpu_check.py BUNDLE --out FOLDER [--minutes 15] [--bindings FOLDER] [-- options of mtl-export for the engines]

It needs TensorRT or TensorRT-RTX with cuda-bindings and numpy, and uses PyTorch and ONNX Runtime if they are installed. It writes
``result.json``, ``report.txt``, the benchmark's JSON files and the output of TensorRT's inspector to FOLDER. The exit code is 1 if
a check failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import gpu_checks
import gpu_library_checks as library_checks
import gpu_stream_checks as stream_checks
from gpu_machine import Machine, run_module

Check = Callable[[Machine], dict[str, Any]]
FIRST: list[tuple[str, float, Check]] = [  # name, seconds that it needs, function
    ("against ONNX Runtime", 20, gpu_checks.against_onnxruntime),
    ("overhead over a bare loop", 25, gpu_checks.overhead),
]
THEN: list[tuple[str, float, Check]] = [
    ("arrays and streams of PyTorch", 10, gpu_checks.torch_interop),
    ("threads", 15, gpu_checks.threads),
    ("10,000 calls", 45, gpu_checks.soak),
    ("out of memory", 15, gpu_checks.out_of_memory),
    ("TensorRT-RTX on this GPU", 20, gpu_checks.rtx_engine),
    ("the network in parts", 20, stream_checks.in_parts),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--batch", default="1:8:32")
    parser.add_argument(
        "--bindings",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="an unpacked wheel of another version of cuda-bindings",
    )
    parser.add_argument("build", nargs="*", help="options of mtl-export, after --")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(arguments.out, time.monotonic() + 60 * arguments.minutes)
    if run.check("1 versions", 5, library_checks.versions) is None:
        run.finish()
        return 2
    run.check("2 a hidden GPU", 30, lambda: library_checks.hidden_gpu(Machine(arguments.bundle, arguments.out)))
    engines = arguments.out / "engines.mtl"
    build_engines(run, arguments.bundle, engines, arguments)
    if not engines.exists():
        return run.finish()
    machine = Machine(engines, arguments.out)
    measure(run, machine)
    run.check("3 everything on speed, memory and threads", 0, lambda: run.summary("3 "))
    for name, seconds, check in last_checks(arguments):
        run.check(name, seconds, lambda check=check: check(machine))
    return run.finish()


def build_engines(run: Run, source: Path, target: Path, arguments: argparse.Namespace) -> None:
    """Build and verify engines of each precision, the most informative first in case there is not enough time."""
    shared = ["--batch", arguments.batch, "--timing-cache", str(arguments.out / "timing.cache"), *arguments.build]
    for precision in ("fp16", "int8", "fp32"):
        run.check(
            f"3 build and verify {precision} engines",
            90,
            lambda p=precision: build(target if target.exists() else source, target, p, shared),
        )


def measure(run: Run, machine: Machine) -> None:
    """Run the checks on speed, memory and threads."""
    for name, seconds, check in FIRST:
        run.check(f"3 {name}", seconds, lambda check=check: check(machine))
    for precision in machine.precisions:
        first = precision == machine.best
        options = [] if first else ["--no-memory", "--duration", "5"]
        run.check(
            f"3 mtl-bench {precision}",
            110 if first else 60,
            lambda p=precision, o=options: bench(machine, p, machine.batches, o),
        )
    plain = ["--no-cuda-graphs", "--no-memory", "--duration", "5"]
    run.check("3 mtl-bench without CUDA graphs", 25, lambda: bench(machine, machine.best, "1", plain))
    for name, seconds, check in THEN:
        run.check(f"3 {name}", seconds, lambda check=check: check(machine))


def last_checks(arguments: argparse.Namespace) -> list[tuple[str, float, Check]]:
    """Return the checks on the libraries themselves, in the order they run in."""
    return [
        ("4 layers by type, dynamic and static", 60, library_checks.layers_by_type),
        ("5 one model closed while another lives", 20, stream_checks.closed_first),
        ("6 a caller's stream", 15, stream_checks.callers_stream),
        (
            "7 timings with both cuda-bindings",
            30,
            lambda machine: library_checks.both_bindings(machine, arguments.bindings),
        ),
        ("8 profile shares and one graph", 30, stream_checks.shares_and_one_graph),
        ("9 a lost device", 20, gpu_checks.lost_device),
        (
            "10 a version-compatible engine and a damaged cache",
            90,
            lambda machine: library_checks.compatible_twice(machine, ["--batch", "1:1:8", *arguments.build]),
        ),
    ]


class Run:
    """The checks that were run, each within the time that is left."""

    def __init__(self, out: Path, deadline: float) -> None:
        self.out, self.deadline = out, deadline
        self.results: dict[str, dict[str, Any]] = {}

    def check(self, name: str, seconds: float, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Run one check, record and print its result or its error; return None if it failed or was skipped."""
        left = self.deadline - time.monotonic()
        started = time.monotonic()
        if left < seconds:
            result: dict[str, Any] = {"state": "skipped", "reason": f"{left:.0f} s are left, it needs {seconds:.0f}"}
        else:
            try:
                found = work()
                result = {"state": "skipped" if "skipped" in found else "passed", **found}
            except Exception as error:  # noqa: BLE001 - the other checks must run anyway
                result = {
                    "state": "FAILED",
                    "error": f"{type(error).__name__}: {error}",
                    "trace": traceback.format_exc(),
                }
        result["seconds"] = round(time.monotonic() - started, 1)
        self.results[name] = result
        shown = {key: value for key, value in result.items() if key not in ("trace", "state")}
        print(f"{result['state']:8} {name}: {json.dumps(shown, default=str)}", flush=True)
        (self.out / "result.json").write_text(json.dumps(self.results, indent=1, default=str) + "\n", encoding="utf-8")
        return result if result["state"] == "passed" else None

    def summary(self, start: str) -> dict[str, Any]:
        """Return how many checks whose names start with a text passed or were skipped so far; raise if one failed."""
        states = {name: result["state"] for name, result in self.results.items() if name.startswith(start)}
        failed = [name for name, state in states.items() if state == "FAILED"]
        assert not failed, f"failed: {', '.join(failed)}"
        counts = list(states.values())
        return {"passed": counts.count("passed"), "skipped here": counts.count("skipped")}

    def finish(self) -> int:
        """Print the counts and return the exit code."""
        states = [result["state"] for result in self.results.values()]
        counts = {state: states.count(state) for state in ("passed", "FAILED", "skipped")}
        print(f"{counts['passed']} passed, {counts['FAILED']} failed, {counts['skipped']} skipped")
        return 1 if counts["FAILED"] or not counts["passed"] else 0


def build(source: Path, target: Path, precision: str, options: list[str]) -> dict[str, Any]:
    """Build a precision's engines with mtl-export, which verifies them against PyTorch's outputs in the bundle."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    if not any(item["precision"] == precision and item["backend"] == "onnxruntime" for item in manifest["artifacts"]):
        return {"skipped": f"the bundle has no {precision} graphs"}
    command = ["mtl_deploy.export.cli", str(source), "--precision", precision, *options, "--json"]
    command += [] if source == target else ["--output", str(target), "--force"]
    found = json.loads(run_module(*command))["manifest"]
    engines = [item for item in found["artifacts"] if item["backend"] == "tensorrt" and item["precision"] == precision]
    paths = {item["path"] for item in engines}
    return {
        "library": f"{engines[0]['details']['library']} {engines[0]['details']['version']}",
        "engines": {
            item["path"]: {
                "seconds": item["details"]["build_seconds"],
                "MB": round(item["size_bytes"] / 1e6, 1),
                "layers": item["details"].get("layers"),
                "verified": item["details"]["verified"],
                "warnings": item["details"]["warnings"],
            }
            for item in engines
        },
        "errors against PyTorch, with the tolerance": {
            f"{row['artifact']} {row['task']}": f"{row['error']:.2e} of {row['tolerance']:.2e}"
            for row in found["verification"]
            if row["artifact"] in paths
        },
    }


def bench(machine: Machine, precision: str, batches: str, options: list[str]) -> dict[str, Any]:
    """Run mtl-bench on a precision's shared engine; the last of two --duration options counts."""
    file = machine.out / f"bench-{precision}{'-plain' if '--no-cuda-graphs' in options else ''}.json"
    options = ["--batch", batches, "--duration", "10", "--details", "--json", str(file), "--force", *options]
    text = run_module("mtl_deploy.bench.cli", str(machine.bundle / machine.engine(precision)), *options)
    with (machine.out / "report.txt").open("a", encoding="utf-8") as report:
        report.write(f"\n$ mtl-bench {machine.engine(precision)} {' '.join(options)}\n{text}")
    return {
        "answers": [
            line for line in text.splitlines() if line.startswith(("One shared pass", "No difference", "Batch"))
        ]
    }


if __name__ == "__main__":
    sys.exit(main())
