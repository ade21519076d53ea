"""Commands that are killed at a step of their writing, and what is looked at afterwards."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtl_deploy.runtime.bundle.manifest import MANIFEST, open_bundle
from mtl_deploy.runtime.bundle.writing import EarlyFiles, claimed
from mtl_deploy.runtime.console.command import Progress, run_command
from mtl_deploy.runtime.errors import BundleError, MtlError
from mtl_deploy.runtime.files import disk
from tests.conftest import write_tiny_bundle

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
HANGS_AFTER_S = 120.0


@dataclass(frozen=True)
class Victim:
    """A command that writes a bundle.

    Attributes:
        name: for people.
        target: the bundle's folder; its parent holds nothing else but ``others``.
        run: the command, which returns its exit code.
        reset: makes the target and its surroundings as they were before the command.
        existed: whether there is a bundle at the target before.
    """

    name: str
    target: Path
    run: Callable[[], int]
    reset: Callable[[], None]
    existed: bool = True


def in_child(work: Callable[[], int], log: Path) -> int:
    """Run in a process of its own and return the exit code; negative for the signal that ended it.

    Raises:
        TimeoutError: it hangs; it was killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        for number in (signal.SIGTERM, signal.SIGHUP):  # however the attack was started
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(written, 1)
            os.dup2(written, 2)
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001 - it is in the log
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    ends = time.monotonic() + HANGS_AFTER_S
    while time.monotonic() < ends:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a process hangs; its output is in {log}")


def count_steps(victim: Victim, log: Path) -> int:
    """Return how many calls of the file system the command makes when nothing disturbs it."""
    victim.reset()
    noted = log.with_suffix(".steps")

    def work() -> int:
        steps: list[str] = []
        disk.before = lambda kind, path: steps.append(f"{kind} {path.name}")
        code = victim.run()
        noted.write_text(json.dumps(steps))
        return code

    if (code := in_child(work, log)) != 0:
        raise RuntimeError(f"{victim.name} ended with {code}: {log.read_text()}")
    return len(json.loads(noted.read_text()))


def kill_at(victim: Victim, step: int, number: int, *, twice: bool, log: Path) -> int:
    """Run the command in a process that gets a signal before a call of the file system, and return its exit code.

    Args:
        victim: the command.
        step: position of the call.
        number: of the signal.
        twice: send it once more at the next call, while the command tidies up.
        log: what the process prints.
    """

    def work() -> int:
        seen = 0

        def before(kind: str, path: Path) -> None:
            nonlocal seen
            seen += 1
            if seen == step or (twice and seen == step + 1):
                os.kill(os.getpid(), number)

        disk.before = before
        return victim.run()

    return in_child(work, log)


def state(target: Path) -> str | None:
    """Return the name of the bundle at a target, whose files are all those of its manifest; None where there is nothing.

    Raises:
        BundleError: it is mixed.
    """
    if not target.exists():
        return None
    bundle = open_bundle(target)
    for artifact in bundle.manifest.artifacts:
        bundle.read(artifact)
    for record in (bundle.manifest.reference, bundle.manifest.calibration):
        if record:
            bundle.read_checked(str(record["path"]), str(record["sha256"]))
    return (target / MANIFEST).read_text(encoding="utf-8")


def runs(target: Path) -> int:
    """Return 0 if the bundle at a target is loaded and gives finite answers."""
    from mtl_deploy.runtime import FallbackWarning, load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        model = load(target, providers=["CPU"], threads=1)
    with model:
        size = model.signature.preprocessing
        answers = model(np.zeros((1, size.height, size.width, 3), np.uint8))
        return 0 if all(np.isfinite(value).all() for value in answers.values()) else 1


def attack(
    victims: list[Victim], scale: float, seed: int, folder: Path, figures: Counter[str], *, every_signal: bool = True
) -> None:
    """Kill every command at every step, or at a sample of them; add to the figures.

    Args:
        victims: the commands.
        scale: the share of the steps.
        seed: of chance.
        folder: for what the processes print.
        figures: by name.
        every_signal: send each signal at each step, not one of them.
    """
    random_ = random.Random(seed)
    log = folder / "child.log"
    for victim in victims:
        steps = count_steps(victim, log)
        after = state(victim.target)
        assert after is not None
        surroundings = sorted(path.name for path in victim.target.parent.iterdir())
        pairs = [
            (step, number)
            for step in range(1, steps + 1)
            for number in (SIGNALS if every_signal else [random_.choice(SIGNALS)])
        ]
        random_.shuffle(pairs)
        for step, number in pairs[: max(2, round(scale * len(pairs)))]:
            victim.reset()
            before = state(victim.target)
            figures["kills"] += 1
            try:
                code = kill_at(victim, step, number, twice=random_.random() < 0.5, log=log)
            except TimeoutError:
                figures["hangs"] += 1
                continue
            _look(victim, number, code, before, surroundings, log, figures)
            figures["following runs that failed"] += in_child(victim.run, log) != 0
            _whole(victim, before, figures)
            if figures["kills"] % 50 == 0:
                print(f"{figures['kills']} kills, {victim.name}", file=sys.stderr, flush=True)
            left = sorted(path.name for path in victim.target.parent.iterdir()) != surroundings
            figures["leftovers after a following run"] += left or any(victim.target.glob(".mtl-*"))


def _look(
    victim: Victim,
    number: int,
    code: int,
    before: str | None,
    surroundings: list[str],
    log: Path,
    figures: Counter[str],
) -> None:
    found = _whole(victim, before, figures)
    if found is not None:
        figures["bundles that do not run"] += in_child(lambda: runs(victim.target), log) != 0
    if number == signal.SIGKILL:
        return
    figures["wrong exit codes"] += code not in (0, 128 + number)
    names = sorted(path.name for path in victim.target.parent.iterdir())
    expected = surroundings if found is not None else [name for name in surroundings if name != victim.target.name]
    figures["leftovers after an interrupt"] += names != expected or any(victim.target.glob(".mtl-*"))


def _whole(victim: Victim, before: str | None, figures: Counter[str]) -> str | None:
    """Count targets that are absent or mixed; return the bundle's manifest."""
    try:
        found = state(victim.target)
    except BundleError as error:
        figures["targets mixed"] += 1
        print(f"{victim.name}: {error}", file=sys.stderr)
        return None
    figures["targets absent"] += found is None and before is not None
    return found


def fresh(folder: Path, target: Path, pristine: Path | None) -> Callable[[], None]:
    """Return what empties a folder and puts a copy of a bundle to the target."""

    def reset() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if pristine is not None:
            shutil.copytree(pristine, target)

    return reset


def calibration(target: Path, images: Path) -> Callable[[], int]:
    """Return ``mtl-calibrate`` of a bundle in its place."""
    from mtl_deploy.calibration.cli import main

    options = [
        "--calibration-data",
        str(images),
        "--calibration-method",
        "minmax",
        "--threads",
        "1",
        "--no-measure",
        "-q",
    ]
    return lambda: main([str(target), *options])


def engines(target: Path) -> Callable[[], int] | None:
    """Return ``mtl-export BUNDLE`` that builds an engine; None where TensorRT-RTX, which builds without a GPU, is not installed."""
    from mtl_deploy.export.cli import main
    from mtl_deploy.runtime.backends.tensorrt.library import installed

    if "tensorrt-rtx" not in installed():
        return None
    options = ["--engine", "tensorrt-rtx", "--gpu", "sm86", "--batch", "1", "--threads", "1", "-q"]
    return lambda: main([str(target), *options])


def export(target: Path, folder: Path) -> Callable[[], int]:
    """Return ``mtl-export MODEL --force`` from where its work is done and its writing begins: the work is done here, once."""
    import torch

    from mtl_deploy.export.options.engines import EngineOptions
    from mtl_deploy.export.options.export import Options
    from mtl_deploy.export.pipeline import before_writing
    from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
    from mtl_deploy.runtime.bundle.tasks import Task

    sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
    import small_networks

    torch.set_num_threads(1)
    checkpoint = folder / "model.pt"
    torch.save(small_networks.Shared().state_dict(), checkpoint)
    options = Options(
        checkpoint,
        output=target,
        model="small_networks:Shared",
        tasks=(
            Task("age", "regression", size=1),
            Task("gender", "binary", labels=("male", "female"), size=1),
            Task("race", "multiclass", labels=("a", "b", "c", "d"), size=4),
        ),
        preprocessing=Preprocessing(16, 16),
        image_size_given=True,
        precisions=("fp32",),
        threads=1,
        force=True,
        engines=EngineOptions(library="none"),
    )
    with EarlyFiles(folder / "early", nullcontext) as early:
        write = before_writing(options, Progress(quiet=True), early)

    def written() -> int:
        with claimed(target, force=True, inputs=[checkpoint]) as claim:
            write(claim)
        return 0

    return lambda: run_command(written)


def make_pristine(folder: Path, seed: int) -> tuple[Path, Path, Path]:
    """Write two small bundles, with all graphs and with one, and images to calibrate on."""
    images = folder / "images.npy"
    np.save(images, np.random.default_rng(seed).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8))
    many = write_tiny_bundle(folder / "many" / "model.mtl", work=2)
    one = write_tiny_bundle(folder / "one" / "model.mtl", precisions=("fp32",), separate=False)
    return many, one, images


__all__ = [
    "MtlError",
    "Victim",
    "attack",
    "calibration",
    "engines",
    "export",
    "fresh",
    "make_pristine",
    "runs",
    "state",
]
