"""``python -m tests.attacks``: run all attacks, print their figures, and fail where one that must be zero is not.

Each attack is a module of this folder with ``run(scale, seed, folder)``, which returns figures by name, and ``MUST_BE_ZERO``, the
names of those that must be zero. It runs in a process of its own. What is finished is noted in a JSON file and not run again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def attacks() -> dict[str, tuple[str, ...]]:
    """Return the attacks with the figures of each that must be zero."""
    modules = {name: importlib.import_module(f"tests.attacks.{name}") for name in names()}
    return {name: tuple(module.MUST_BE_ZERO) for name, module in modules.items()}


def names() -> list[str]:
    """Return the attacks' names, without importing them."""
    files = sorted(file for file in HERE.glob("[a-z]*.py") if not file.stem.startswith(("test_", "conftest")))
    return [file.stem for file in files if "\nMUST_BE_ZERO" in file.read_text(encoding="utf-8")]


def apart(name: str, scale: float, seed: int) -> dict[str, Any]:
    """Run one attack in a process of its own.

    Returns:
        ``figures`` and ``seconds``, or ``skipped`` with the reason.

    Raises:
        RuntimeError: it ended otherwise.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"attack-{name}-"))
    result = folder / "result.json"
    started = time.monotonic()
    command = ["--one", name, "--scale", str(scale), "--seed", str(seed), "--result", str(result)]
    code = subprocess.run(
        [sys.executable, "-m", "tests.attacks", *command], cwd=HERE.parents[1], check=False
    ).returncode
    if code != 0 or not result.is_file():
        raise RuntimeError(f"the attack {name} ended with exit code {code}; its files are in {folder}")
    document: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    return document | {"seconds": round(time.monotonic() - started, 1)}


def one(name: str, scale: float, seed: int, result: Path) -> None:
    """Run one attack here, and write what it finds."""
    module = importlib.import_module(f"tests.attacks.{name}")
    folder = result.parent / "work"
    folder.mkdir()
    try:
        document: dict[str, Any] = {"figures": module.run(scale, seed, folder)}
    except unittest.SkipTest as error:
        document = {"skipped": str(error)}
    result.write_text(json.dumps(document), encoding="utf-8")


def everything(scale: float, seed: int, state: Path, only: list[str]) -> int:
    """Run all attacks that are not in the state file yet; print all figures."""
    known = attacks()
    if unknown := sorted(set(only) - set(known)):
        print(f"error: {unknown[0]}: choose from {', '.join(known)}", file=sys.stderr)
        return 2
    state.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = json.loads(state.read_text(encoding="utf-8")) if state.is_file() else {}
    bad = []
    print(f"scale {scale:g}, seed {seed}; finished attacks are kept in {state}: remove it to run them anew", flush=True)
    for name in only or known:
        again = name in done
        if not again:
            try:
                done[name] = apart(name, scale, seed)
            except RuntimeError as error:
                print(f"{name}: {error}", flush=True)
                bad.append(f"{name}: did not end")
                continue
            written = state.with_suffix(".partial")
            written.write_text(json.dumps(done, indent=1), encoding="utf-8")
            written.replace(state)
        found = done[name]
        if "skipped" in found:
            print(f"\n{name}: skipped: {found['skipped']}", flush=True)
            continue
        print(f"\n{name} ({found['seconds']:.0f} s{', earlier' if again else ''})")
        for figure, value in found["figures"].items():
            wrong = figure in known[name] and value != 0
            print(f"  {value:>10,}  {figure}{'   <-- must be zero' if wrong else ''}", flush=True)
            if wrong:
                bad.append(f"{name}: {figure} is {value}")
        bad += [f"{name}: {figure} is missing" for figure in known[name] if figure not in found["figures"]]
    print()
    for line in bad:
        print(f"FAILED  {line}")
    print("all figures that must be zero are" if not bad else f"{len(bad)} faults")
    return 1 if bad else 0


def main() -> int:
    """Run the command and return its exit code."""
    made = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__.splitlines()[0])
    made.add_argument(
        "names",
        nargs="*",
        metavar="ATTACK",
        help=f"only these of {', '.join(names())}",
    )
    made.add_argument("--scale", type=float, default=1.0, help="1: the full figures (hours); 0.1: a tenth (default: 1)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--state", type=Path, help="file of what is finished (default: .attacks/SCALE-SEED.json)")
    made.add_argument("--one", help=argparse.SUPPRESS)
    made.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.one is not None:
        one(arguments.one, arguments.scale, arguments.seed, arguments.result)
        return 0
    state = arguments.state or Path(".attacks") / f"{arguments.scale:g}-{arguments.seed}.json"
    return everything(arguments.scale, arguments.seed, state, arguments.names)


if __name__ == "__main__":
    sys.exit(main())
