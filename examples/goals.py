"""Whether this machine reaches the goals for processors: five networks, all contestants in turn, one table.

    python examples/goals.py --out /tmp/goals

1. INT8 takes at most 1.03 times the time of OpenVINO with NNCF's own quantization, and no task's error is larger;
2. shared INT8 is at least 16 times as fast as the eager forward of the article's network;
3. FP32 takes at most 1.05 times the time of the better of ONNX Runtime and OpenVINO.

Ours is what ``load()`` chooses for ``precision="int8"`` and ``"fp32"``, once the graphs were measured here. Weights are fresh, with
BatchNorm's statistics from photographs; both quantizers get the same pieces of scikit-learn's two photographs. Errors are against
the FP32 graph, on other pieces: the root mean square of the differences as a share of the task's spread, or the share of pixels
that change class.

Bundles are made in ``--out`` where they are missing, and so is an environment with NNCF, unless this Python has it. A goal is met
where the figure keeps it, undecided where it does not but its 95 % interval reaches the goal, and not met otherwise. The second
goal is out of reach where INT8 convolutions that do nothing but as many multiply-adds are not 16 times as fast either. The exit
code is 1 if one is not met, 3 if one is undecided.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from goal_bundles import (
    Goal,
    Pictures,
    make_bundle,
    measure_graphs,
    networks,
    photographs,
    python_with_nncf,
    quantize_with_nncf,
)
from goal_contestants import EAGER, FP32, INT8, NNCF, ONNX_RUNTIME, OPENVINO, PEAK, TITLES, specs
from goal_errors import Errors

from mtl_deploy.bench.contestants.forms import call
from mtl_deploy.bench.contestants.hosts import Host, start_host
from mtl_deploy.bench.machine.environment import environment
from mtl_deploy.bench.measurement.agreement import agreement, complaint
from mtl_deploy.bench.measurement.measure import Measurement, measure
from mtl_deploy.bench.statistics.derived import derived, ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, location
from mtl_deploy.runtime.console.command import table

MOST_OF_NNCF, MOST_OF_LIBRARIES, LEAST_OF_EAGER, MOST_ERROR = 1.03, 1.05, 16.0, 1.0
MET, UNDECIDED, NOT_MET, OUT_OF_REACH = "met", "undecided", "not met", "out of reach here"


@dataclass
class Found:
    """What one network gave.

    Attributes:
        goal: the network.
        samples: latencies by contestant.
        errors: of both quantizers.
        details: what ran each contestant.
    """

    goal: Goal
    samples: dict[str, Nested] = field(default_factory=dict)
    errors: Errors = field(default_factory=Errors)
    details: dict[str, str] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for bundles, photographs and NNCF")
    parser.add_argument("--networks", default=",".join(networks()), help="default: all")
    parser.add_argument("--threads", type=int, help="of each contestant (default: each library's own number)")
    parser.add_argument("--images", type=int, default=64, help="photographs for each quantizer (default: 64)")
    parser.add_argument("--held-out", type=int, default=384, help="photographs for the errors (default: 384)")
    parser.add_argument("--processes", type=int, default=4, help="starts of all contestants (default: 4)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring, per contestant (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="smaller images, to try the script")
    parser.add_argument("--nncf", type=Path, help="a Python that has NNCF")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    nncf = arguments.nncf or python_with_nncf(arguments.out)
    chosen = {key: networks(arguments.scale)[key] for key in arguments.networks.split(",")}
    bundles = {}
    for key, goal in chosen.items():
        say(f"Preparing {goal.name}")
        bundles[key], calibration = make_bundle(key, goal, arguments.out, arguments.images)
        measure_graphs(bundles[key], arguments.threads)
        quantize_with_nncf(bundles[key], calibration, arguments.out / f"{key}-nncf.xml", nncf)
    prepared = time.perf_counter()
    found = [examine(key, goal, bundles[key], arguments) for key, goal in chosen.items()]
    rows = [row for one in found for row in verdicts(one)]
    states = [row[-1] for row in rows]
    print(times(found))
    print()
    print(errors(found))
    print()
    print(table(["network", "goal", "figure", "95 % interval", "result"], rows))
    print()
    machine = environment()
    print(
        f"{machine['processor']}, {arguments.threads or 'default'} threads; {arguments.processes} starts of every contestant"
    )
    print("\n".join(f"{one.goal.name}: {TITLES[key]} on {one.details[key]}" for one in found for key in (INT8, FP32)))
    ended = time.perf_counter()
    print(f"{prepared - started:.0f} s to make what was missing, {ended - prepared:.0f} s to measure")
    return 1 if NOT_MET in states else 3 if UNDECIDED in states else 0


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def examine(key: str, goal: Goal, bundle: Path, arguments: argparse.Namespace) -> Found:
    """Measure one network: all contestants in turn, in several starts of them all; the first also answers the held-out images."""
    checkpoint = arguments.out / f"{key}.pt" if key == "resnet50" else None
    contestants = specs(bundle, arguments.out / f"{key}-nncf.xml", checkpoint, arguments.threads)
    pictures = photographs(arguments.held_out, goal.height, goal.width, seed=2)
    rng = np.random.default_rng(0)
    found, measurement = Found(goal), Measurement()
    seconds = arguments.seconds * len(contestants) / arguments.processes
    for number in range(arguments.processes):
        say(f"Measuring {goal.name}, {number + 1} of {arguments.processes}")
        with ExitStack() as stack:
            hosts: dict[str, Host] = {
                name: stack.enter_context(closing(start_host(spec, isolated=True)))
                for name, spec in contestants.items()
            }
            agree(hosts, pictures[:1])
            if number == 0:
                found.details = {name: host.details for name, host in hosts.items()}
                judge(hosts, pictures, found.errors)
            measure(hosts, pictures[:1], seconds, measurement, rng=rng)
    if measurement.lost:
        raise SystemExit(f"{goal.name}: {'; '.join(measurement.lost.values())}")
    found.samples = measurement.by_name()
    return found


def agree(hosts: dict[str, Host], batch: Pictures) -> None:
    """See that all contestants compute the same, FP32 closely and INT8 roughly, before anything is timed."""
    reference = hosts[ONNX_RUNTIME]
    expected = reference.run(call, batch)
    for name, host in hosts.items():
        if name == PEAK:
            continue
        compared = agreement(reference.spec, expected, host.spec, host.run(call, batch))
        problem = None if name in (INT8, NNCF) else complaint(host.spec, compared)  # their errors are judged apart
        if problem is not None:
            raise SystemExit(problem)


def judge(hosts: dict[str, Host], pictures: Pictures, into: Errors) -> None:
    """Run both quantized networks and the FP32 graph on held-out images."""
    for i in range(len(pictures)):
        answers = [hosts[name].run(call, pictures[i : i + 1]) for name in (ONNX_RUNTIME, INT8, NNCF)]
        into.add(*answers)


def verdicts(one: Found) -> list[list[str]]:
    """Return the rows of the goals of one network."""
    samples, rows = one.samples, []

    def row(goal: str, figure: Interval, state: str) -> None:
        rows.append([one.goal.name, goal, f"{figure.value:.2f}", f"{figure.low:.2f} to {figure.high:.2f}", state])

    time_ratio = ratio(samples[INT8], samples[NNCF])
    row(f"INT8's time over NNCF's at most {MOST_OF_NNCF}", time_ratio, at_most(time_ratio, MOST_OF_NNCF))
    for task in one.errors.tasks:
        error = one.errors.ratio(task)
        row(f"INT8's error over NNCF's at most 1, {task}", error, at_most(error, MOST_ERROR))
    if EAGER in samples:
        speed = ratio(samples[EAGER], samples[INT8])
        bound = ratio(samples[EAGER], samples[PEAK])
        state = within_reach(speed, bound, LEAST_OF_EAGER)
        row(f"INT8 over the eager forward at least {LEAST_OF_EAGER:.0f} times", speed, state)
        row("the same of its multiply-adds alone in INT8", bound, "")
    better = derived(
        {name: samples[name] for name in (FP32, ONNX_RUNTIME, OPENVINO)},
        lambda of: {"ratio": of[FP32] / np.minimum(of[ONNX_RUNTIME], of[OPENVINO])},
        positive=True,
    )["ratio"]
    row(
        f"FP32's time over the better library's at most {MOST_OF_LIBRARIES}", better, at_most(better, MOST_OF_LIBRARIES)
    )
    return rows


def at_most(figure: Interval, goal: float) -> str:
    return MET if figure.value <= goal else UNDECIDED if figure.low <= goal else NOT_MET


def at_least(figure: Interval, goal: float) -> str:
    return MET if figure.value >= goal else UNDECIDED if figure.high >= goal else NOT_MET


def within_reach(figure: Interval, bound: Interval, goal: float) -> str:
    """Return whether a figure keeps its goal, and, where it does not, whether the bound of this machine does."""
    state = at_least(figure, goal)
    return OUT_OF_REACH if state == NOT_MET == at_least(bound, goal) else state


def times(found: list[Found]) -> str:
    """Return the table of latencies."""
    rows = [
        [TITLES[name], *(f"{location(one.samples[name]):.2f}" if name in one.samples else "" for one in found)]
        for name in TITLES
    ]
    return table(["milliseconds per image", *(one.goal.name for one in found)], rows)


def errors(found: list[Found]) -> str:
    """Return the table of errors."""
    rows = [[one.goal.name, *row] for one in found for row in one.errors.rows()]
    return table(["network", "task", "error is", "ours", "NNCF's"], rows)


if __name__ == "__main__":
    sys.exit(main())
