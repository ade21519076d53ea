"""``python -m tests.arm``: does the runtime answer on ARM as it does here? On processors that QEMU emulates, with real libraries.

Bundles with FP32 and both INT8 graphs are made here; what answers there is the runtime on Debian's Python for arm64, with ONNX
Runtime's, OpenVINO's, numpy's and Pillow's wheels of the versions that are installed here. Speed is not measured: it is QEMU's. An
x86 processor without VNNI is emulated too: there, 8-bit weights saturate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtl_deploy.runtime.console.command import table

from .answers import PRECISIONS
from .compare import Figure, figures, pixels_apart
from .place import Place, make_place, requirements, say
from .processors import PROCESSORS, Processor, here

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("answers.py")
SIZES = {"resnet50": (96, 96), "mobilenet_v3_large": (160, 160), "refinenet": (96, 128)}
"""Of the networks' images: small, as an emulator is some tens of times as slow."""
CALIBRATION = 64
PHOTOGRAPH = (240, 320)  # of the image files, which the runtime resizes
LONGEST_S = 3600


@dataclass(frozen=True)
class Row:
    """One task's figure on one processor."""

    network: str
    backend: str
    processor: Processor
    figure: Figure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.arm", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".arm", help="default: .arm")
    parser.add_argument("--networks", default=",".join(SIZES), help="default: all")
    parser.add_argument("--processors", default=",".join(PROCESSORS), help=f"of {', '.join(PROCESSORS)} (default: all)")
    parser.add_argument("--images", type=int, default=6, help="default: 6")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="run at once (default: one per core)")
    parser.add_argument("--details", action="store_true", help="every task of every graph")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    place = make_place(arguments.folder)
    bundles = make_bundles(arguments.folder, arguments.networks.split(","))
    chosen = [PROCESSORS[name] for name in arguments.processors.split(",")]
    backends = ["onnxruntime", *(["openvino"] if requirements()[-1].startswith("openvino") else [])]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_photographs(work / "images", arguments.images)
        native = {backend: answer(backend, work, bundles, None, place) for backend in backends}
        found: list[Row] = []
        notes = [f"here: {'; '.join(told['details'] for told in native.values())}"]
        sound = True
        pairs = [(processor, backend) for processor in chosen for backend in backends]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            every = pool.map(lambda pair: answer(pair[1], work, bundles, pair[0], place), pairs)
            for (processor, backend), told in zip(pairs, every, strict=True):
                say(f"{backend} on {processor.name}: {told['seconds']:.0f} s")
                notes += describe(backend, processor, told)
                for bundle in bundles:
                    got, differing = compare(work, backend, processor, bundle)
                    found += [Row(bundle.stem, backend, processor, one) for one in got]
                    sound &= differing == 0
                    notes += [f"  pixels of {bundle.stem} differ by {differing} levels"] if differing else []
                sound &= not any(decides(backend, processor, name.split(", ")[1]) for name in told["failed"])
    sound &= all(row.figure.holds for row in found if decides(row.backend, row.processor, row.figure.precision))
    print("Differences from this machine's answers, of the task with the largest:")
    print(summary(found, chosen, lambda one: one.apart, "{:.1e}"))
    print("\nErrors against FP32 as multiples of this machine's, of the task with the largest:")
    print(summary([row for row in found if row.figure.precision != "fp32"], chosen, lambda one: one.times, "{:.2f}"))
    if arguments.details:
        print()
        print(details(found))
    print()
    print("\n".join(notes))
    print("ARM answers as well as this machine" if sound else "ARM does NOT answer as well as this machine")
    return 0 if sound else 1


def summary(found: list[Row], processors: list[Processor], value: Callable[[Figure], float], form: str) -> str:
    """Return a table with a line per network, library and graph, and a column per processor; a star where a task is worse."""
    lines: dict[tuple[str, str, str], dict[str, list[Figure]]] = {}
    for row in found:
        line = lines.setdefault((row.network, row.backend, row.figure.precision), {})
        line.setdefault(row.processor.name, []).append(row.figure)
    cells = []
    networks = list(dict.fromkeys(row.network for row in found))
    for key in sorted(lines, key=lambda one: (networks.index(one[0]), one[1], PRECISIONS.index(one[2]))):
        by_processor = lines[key]
        cells.append(list(key))
        for processor in processors:
            of_tasks = by_processor.get(processor.name, [])
            star = "" if all(one.holds for one in of_tasks) else " *"
            cells[-1].append(form.format(max(map(value, of_tasks))) + star if of_tasks else "does not run")
    return table(["network", "library", "graph", *(one.name for one in processors)], cells)


def details(found: list[Row]) -> str:
    """Return the table of every task."""
    columns = ["network", "library", "processor", "graph", "task", "from here", "from FP32", "here from FP32", "result"]
    rows = [
        [
            *(row.network, row.backend, row.processor.name, row.figure.precision, row.figure.task),
            *(f"{row.figure.apart:.1e}", f"{row.figure.error:.2%}", f"{row.figure.error_here:.2%}"),
            "as good" if row.figure.holds else "worse",
        ]
        for row in found
    ]
    return table(columns, rows)


def decides(backend: str, processor: Processor, precision: str) -> bool:
    """Return whether a graph must answer as well as here.

    All must in FP32, but for OpenVINO on QEMU's SVE, which is known to be wrong; and in INT8 those that ``load()`` chooses on ARM:
    ONNX Runtime's.
    """
    if backend == "onnxruntime":
        return precision == "fp32" or processor.machine == "aarch64"
    return precision == "fp32" and not processor.sve


def describe(backend: str, processor: Processor, told: dict[str, Any]) -> list[str]:
    """Return lines for people: what ran, and what did not."""
    words = [told["details"], told["arithmetic"]]
    head = f"{backend} on {processor.name} (QEMU's {processor.qemu}): {'; '.join(word for word in words if word)}"
    return [head, *(f"  {name} did not run: {reason}" for name, reason in told["failed"].items())]


def make_bundles(folder: Path, names: list[str]) -> list[Path]:
    """Make the bundles that are missing, with the networks of ``examples/goals.py``."""
    sys.path.insert(0, str(ROOT / "examples"))
    from goal_bundles import make_bundle, networks

    found = []
    for name in names:
        height, width = SIZES[name]
        say(f"{name} at {height}x{width}")
        bundle, _ = make_bundle(name, replace(networks()[name], height=height, width=width), folder, CALIBRATION)
        found.append(bundle)
    return found


def write_photographs(folder: Path, count: int) -> None:
    """Write JPEG files of another size than the networks take."""
    from goal_bundles import photographs

    folder.mkdir()
    for number, pixels in enumerate(photographs(count, *PHOTOGRAPH, seed=3)):
        Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=92)


def answer(backend: str, work: Path, bundles: list[Path], processor: Processor | None, place: Place) -> dict[str, Any]:
    """Let a processor answer, or this machine; return what it says of itself.

    Raises:
        SystemExit: it died.
    """
    out = answers_of(work, backend, processor)
    out.mkdir()
    arguments = [backend, str(work / "images"), str(out), *map(str, bundles)]
    command, environment = processor.command(place, SCRIPT, arguments) if processor else here(SCRIPT, arguments)
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    if done.returncode:
        who = processor.name if processor else "this machine"
        raise SystemExit(f"{backend} on {who}: exit code {done.returncode}\n{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told | {"seconds": time.monotonic() - started}


def answers_of(work: Path, backend: str, processor: Processor | None) -> Path:
    return work / f"{backend}-{processor.key if processor else 'here'}"


def compare(work: Path, backend: str, processor: Processor, bundle: Path) -> tuple[list[Figure], int]:
    """Return the figures of one bundle, and how far the pixels differ."""
    name = f"{bundle.stem}.npz"
    with (
        np.load(answers_of(work, "onnxruntime", None) / name) as truth,
        np.load(answers_of(work, backend, None) / name) as native,
        np.load(answers_of(work, backend, processor) / name) as there,
    ):
        return figures(truth, native, there), pixels_apart(native, there)


if __name__ == "__main__":
    sys.exit(main())
