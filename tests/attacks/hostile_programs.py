"""Hostile ``torch.export`` programs: each would make a folder if any of it ran. None may run, and each must end with a message.

Known attacks come first; then texts that are code are put at random places of a real program, and names that are code at each
place that holds a name. What loads all the same is run once.
"""

from __future__ import annotations

import copy
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import MtlError
from tests.attacks.program_attacks import CONSTANTS, IMAGE, MODEL, WEIGHTS, Base, Records, code, known, write

MUST_BE_ZERO = ("programs_run", "names_run", "unclear_errors", "hangs")
FULL_PROGRAMS, FULL_NAMES = 400, 380
SECONDS = 60  # that one file may take

TEXTS = (
    "{code}", "{code} or Integer(2)", "({code}, 2)[1]", "lambda: {code}", "[{code} for s in L]", "Symbol('s0', positive={code})",
    "Symbol({code})", "Integer({code})", "Add({code}, Integer(1))", "L['image'].size()[{code}]", "torch.ops.{code}", "x={code}",
    "x: {code}", "x\n    {code}\n    y", "x'); {code} #", 'x"); {code} #', "{code}#", "Integer(2).__class__({code})", "x;{code};y",
    "Float('1', precision={code})", "Function('f')({code})", "S({quoted})", "sympify({quoted})", "parse_expr({quoted})",
    "Integer(1)\n#\n{code}", "Integer(1)\\\n+{code}", "torch.sym_max({code}, 1)", "f'{{{code}}}'", "x' if {code} else 'y",
)  # fmt: skip
NAMES = (
    'x"), {hidden}, ("', "x'), {hidden}, ('", "x; {hidden}", "x\n    {hidden}", "x\n{hidden}", "x = {hidden}", "x={hidden}",
    "x: {hidden}", "x): {hidden}\n#", "x, y={hidden}", "x=({hidden}), *y", "{hidden}", "x[{hidden}]", "x @ {hidden}",
    "x if {hidden} else x", "x or {hidden}", 'x" + str({hidden}) + "', "x' + str({hidden}) + '", 'x"""; {hidden}; """',
    "x\\\n;{hidden}",
    "x\r    {hidden}", "x\x0c;{hidden}", "x\u2028{hidden}", "x#\n    {hidden}", "*{hidden}", "**{hidden}", "lambda: {hidden}",
    "__class__", "__init__", "forward", "__dict__", "_parameters", "training", "torch", "self", "None",
    "\uff45xec", "x y",
)  # fmt: skip
PLACES = {  # what stands in the small network's program for each kind of name
    "parameter": "age.bias", "deep parameter": "trunk.0.weight", "buffer": "trunk.1.running_mean", "placeholder": "p_age_bias",
    "buffer's placeholder": "b_trunk_1_running_mean", "input": "image", "node": "relu", "size": "sym_size_int_1", "constant": None,
    "constant's placeholder": None,
}  # fmt: skip


def hidden(trace: Path) -> str:
    """Return an expression that makes a folder, without dots and quotes, which some places would split at."""
    return f"exec(bytes(({','.join(map(str, ('import os;' + f'os.mkdir({str(trace)!r})').encode()))})))"


def sweep(base: Base, trace: Path, random_: random.Random) -> Iterator[tuple[str, Records]]:
    """Yield programs with a text that is code in place of a random value, without end."""
    documents = {record: base.json(record) for record in (MODEL, WEIGHTS, CONSTANTS)}
    places: dict[str, list[tuple[str, tuple[str | int, ...]]]] = {}
    for record, document in documents.items():
        for path in _leaves(document):
            kind = ".".join(str(part) for part in path if isinstance(part, str) and not part.startswith(("p_", "b_")))
            places.setdefault(f"{record}:{kind}", []).append((record, path))
    kinds = sorted(places)
    kinds += [
        kind for kind in kinds if "expr_str" in kind or "spec" in kind or "guards" in kind
    ] * 8  # what torch evaluates
    while True:
        kind = random_.choice(kinds)
        record, path = random_.choice(places[kind])
        text = random_.choice(TEXTS).format(code=code(trace), quoted=repr(code(trace)))
        document = copy.deepcopy(documents[record])
        holder = document
        for part in path[:-1]:
            holder = holder[part]
        if random_.random() < 0.1:
            holder = {} if not isinstance(holder, dict) else holder
            holder[random_.choice(("as_operator", "as_graph", "target", "eval", "use_pickle"))] = text
        else:
            holder[path[-1]] = text
        yield f"{kind} = {text[:60]!r}", base.with_({record: document})


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        if isinstance(part, (dict, list)) and part:
            yield from _leaves(part, (*path, key))
        else:
            yield (*path, key)


def names(base: Base, trace: Path) -> list[tuple[str, Records]]:
    """Return programs in which one name, wherever it stands, is code."""
    model = base.json(MODEL)
    lifted = next(
        spec["tensor_constant"]
        for spec in model["graph_module"]["signature"]["input_specs"]
        if "tensor_constant" in spec
    )
    places = {**PLACES, "constant": lifted["tensor_constant_name"], "constant's placeholder": lifted["arg"]["name"]}
    found = []
    for template in NAMES:
        text = template.format(hidden=hidden(trace))
        for kind, old in places.items():
            assert old is not None
            documents = {record: _renamed(base.json(record), old, text) for record in (MODEL, WEIGHTS, CONSTANTS)}
            found.append((f"{kind} {template!r}", base.with_(documents)))
    return found


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {new if key == old else key: _renamed(part, old, new) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, old, new) for part in value]
    return new if value == old else value


class Hang(BaseException):
    """A file took too long."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise :class:`Hang` in the main thread when the block takes longer."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(path: Path) -> str:
    """Load a file as one that is not trusted, and run what loads; return ``refused``, ``harmless``, ``unclear`` or ``hang``."""
    try:
        with limited(SECONDS):
            loaded = load_checkpoint(path)
            with torch.inference_mode():
                loaded.network(IMAGE)
    except MtlError:
        return "refused"
    except Hang:
        return "hang"
    except Exception as error:  # noqa: BLE001 - counted; a network that loads may still not take the image
        return "harmless" if "loaded" in locals() else f"unclear: {type(error).__name__}: {error}"
    return "harmless"


def ran(trace: Path) -> bool:
    """Return whether an attack left its trace, and remove it."""
    if trace.is_dir():
        trace.rmdir()
    elif trace.exists():
        trace.unlink()
    else:
        return False
    return True


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Attack with a share of the full number of programs and names, and return the figures."""
    base, trace, file = Base.make(), folder / "trace", folder / "attack.pt2"
    random_ = random.Random(seed)
    attacks = [(name, attack(base, trace)) for name, attack in known().items()]
    swept = sweep(base, trace, random_)
    attacks += (next(swept) for _ in range(max(FULL_PROGRAMS - len(attacks), 0)))
    swept_names = names(base, trace)
    figures = dict.fromkeys(("programs", "names", "refused", "harmless", *MUST_BE_ZERO), 0)
    for what, chosen, full in (("programs", attacks, FULL_PROGRAMS), ("names", swept_names, FULL_NAMES)):
        count = min(max(1, round(scale * full)), len(chosen))
        for label, records in random_.sample(chosen, count):
            outcome = attempt(write(file, records))
            figures[what] += 1
            if ran(trace):
                figures[f"{what}_run"] += 1
                print(f"ran: {label}")
            if outcome in figures:
                figures[outcome] += 1
            else:
                figures["hangs" if outcome == "hang" else "unclear_errors"] += 1
                print(f"{outcome}: {label}")
    return figures
