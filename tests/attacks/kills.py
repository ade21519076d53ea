"""A command is killed before each call of the file system: the bundle is the old one or the new one, and the next run tidies up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.attacks.victims import Victim, attack, calibration, engines, export, fresh, make_pristine

MUST_BE_ZERO = (
    "targets absent",
    "targets mixed",
    "bundles that do not run",
    "hangs",
    "wrong exit codes",
    "leftovers after an interrupt",
    "following runs that failed",
    "leftovers after a following run",
)


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Kill export, calibration and the building of engines on the file system at hand."""
    many, one, images = make_pristine(folder, seed)
    place = folder / "place"
    target = place / "model.mtl"
    exported = export(target, folder)
    victims = [
        Victim("export", target, exported, fresh(place, target, many)),
        Victim("export to a new place", target, exported, fresh(place, target, None), existed=False),
        Victim("calibration", target, calibration(target, images), fresh(place, target, many)),
    ]
    if (built := engines(target)) is not None:
        victims.append(Victim("engines", target, built, fresh(place, target, one)))
    figures = Counter(dict.fromkeys(("kills", *MUST_BE_ZERO), 0))
    attack(victims, scale, seed, folder, figures)
    return dict(figures)
