"""Thousands of damaged files through every reader: each is refused with an error of ours, or read; none hangs or crashes.

Cases run in child processes, which a crash takes with it: the next child goes on behind the case that crashed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

MUST_BE_ZERO = ("tracebacks", "hangs", "crashes by signal")
CASES = 10_000  # at scale 1
_CPU_SECONDS = 20  # of a case: the processor's, so that a busy machine makes no difference
_SILENCE_S = 300.0  # for which a child may say nothing
_MEMORY = 6 << 30  # bytes of a child's own


class HangError(BaseException):
    """A case takes too long. No ``except Exception`` catches it."""


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Damage files and read them.

    Args:
        scale: 1: ten thousand cases.
        seed: of the damage.
        folder: to work in; ``findings.json`` there says what went wrong, with what reproduces it.

    Returns:
        cases in all and of each kind, and what must be zero.
    """
    from tests.attacks.damaged_readers import kinds

    if not (folder / "bases").exists():
        _child("make", str(folder / "bases"), timeout=900)
    whole = sum(kind.share for kind in kinds())
    figures: dict[str, int] = {"cases": 0} | dict.fromkeys(MUST_BE_ZERO, 0)
    findings: list[dict[str, Any]] = []
    for kind in kinds():
        count = max(2, round(scale * CASES * kind.share / whole))
        done = 0
        while done < count:
            done += _batch(kind.name, seed, done, count, folder, findings)
        figures["cases"] += count
        figures[f"cases of {kind.name}"] = count
    for one in findings:
        figures[one["fault"]] += 1
    (folder / "findings.json").write_text(json.dumps(findings, indent=1), encoding="utf-8")
    for one in findings[:20]:
        print(f"{one['fault']}: {one['kind']} {one['number']} (seed {seed}): {one['words']}", file=sys.stderr)
    return figures


def _batch(name: str, seed: int, first: int, last: int, folder: Path, findings: list[dict[str, Any]]) -> int:
    """Let a child read cases from ``first`` on; return how many it did, the one that ended it included."""
    log = folder / "log.jsonl"
    log.write_text("")
    silent = code = 0
    try:
        code = _child(
            "read", name, str(seed), str(first), str(last), str(folder), timeout=_SILENCE_S + 10 * (last - first)
        )
    except subprocess.TimeoutExpired:
        silent = 1
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    findings += [line for line in lines if "fault" in line]
    begun = [line["begun"] for line in lines if "begun" in line]
    if code == 0 and not silent:
        return last - first
    number = begun[-1] if begun else first
    words = "no answer" if silent else f"exit code {code}"
    fault = "hangs" if silent else "crashes by signal"
    if not any(one["kind"] == name and one["number"] == number for one in findings):
        findings.append({"fault": fault, "kind": name, "number": number, "words": words})
    return int(number) + 1 - first


def _child(*arguments: str, timeout: float) -> int:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.attacks.damaged", *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment, timeout=timeout, check=False, capture_output=True, text=True
    )
    if done.returncode and arguments[0] == "make":
        raise RuntimeError(f"the attack's own files cannot be made:\n{done.stderr[-2000:]}")
    return done.returncode


def _read(name: str, seed: int, first: int, last: int, folder: Path) -> None:
    from tests.attacks.damaged_readers import case, kinds

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGPROF, _late)
    kind = next(one for one in kinds() if one.name == name)
    with (folder / "log.jsonl").open("a", encoding="utf-8", buffering=1) as log:
        for number in range(first, last):
            log.write(json.dumps({"begun": number}) + "\n")
            work = folder / "case"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            found = None
            try:
                read = case(kind, seed, number, folder / "bases", work)
                signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
                read()
            except HangError:
                found = {"fault": "hangs", "words": traceback.format_exc(limit=-3)}
            except BaseException as error:  # noqa: BLE001 - the finding itself
                words = "".join(traceback.format_exception(error, limit=-4))[-1500:]
                found = {"fault": "tracebacks", "words": words}
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            if found is not None:
                log.write(json.dumps(found | {"kind": name, "number": number}) + "\n")


def _late(number: int, frame: FrameType | None) -> None:
    raise HangError


def main() -> None:
    """Be the child."""
    command, *arguments = sys.argv[1:]
    if command == "make":
        from tests.attacks.damaged_bases import make_bases

        make_bases(Path(arguments[0]))
    else:
        name, seed, first, last, folder = arguments
        _read(name, int(seed), int(first), int(last), Path(folder))


if __name__ == "__main__":
    main()
