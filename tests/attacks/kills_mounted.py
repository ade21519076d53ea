"""The same kills where the bundle's folder cannot be exchanged: in the lower layer of an overlay, as in a container image, and as a
mount point. Runs in a private mount namespace: as root, or as anybody where the kernel allows user namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unittest
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.attacks import kills
from tests.attacks.victims import Victim, attack, calibration, engines, export, in_child, make_pristine

MUST_BE_ZERO = (*kills.MUST_BE_ZERO, "commands that exchanged the folder after all")


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Kill export, calibration and the building of engines on an overlay and on a mount point.

    Raises:
        SkipTest: this machine lets us mount nothing.
    """
    result = folder / "figures.json"
    reason = "unshare(1) is not installed"
    for options in (["-m"], ["-rm"]):
        if shutil.which("unshare") is None:
            break
        tried = subprocess.run(
            ["unshare", *options, "sh", "-c", _TRIAL], capture_output=True, text=True, check=False, cwd=folder
        )
        if tried.returncode == 0:
            command = ["unshare", *options, sys.executable, "-m", "tests.attacks.kills_mounted"]
            subprocess.run([*command, str(scale), str(seed), str(folder), str(result)], check=True)
            figures: dict[str, int] = json.loads(result.read_text(encoding="utf-8"))
            return figures
        reason = tried.stderr.strip().splitlines()[-1] if tried.stderr.strip() else "no reason given"
    raise unittest.SkipTest(f"no overlay can be mounted here: {reason}")


_TRIAL = """mkdir -p trial && mount -t tmpfs none trial && cd trial && mkdir a b c d &&
mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c d"""


def overlay(root: Path, pristine: Path) -> Callable[[], None]:
    """Return what mounts ``root/place`` anew, with a bundle in its lower layer."""
    lower, upper, work, place = (root / name for name in ("lower", "upper", "work", "place"))
    shutil.copytree(pristine, lower / "model.mtl")
    place.mkdir()

    def reset() -> None:
        if os.path.ismount(place):
            subprocess.run(["umount", "-l", str(place)], check=True)
        for layer in (upper, work):
            shutil.rmtree(layer, ignore_errors=True)
            layer.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(place)], check=True)

    return reset


def mount_point(root: Path, pristine: Path) -> Callable[[], None]:
    """Return what mounts a folder with a bundle at ``root/place/model.mtl`` anew."""
    store, target = root / "store", root / "place" / "model.mtl"

    mounted = False

    def reset() -> None:
        nonlocal mounted
        if mounted:
            subprocess.run(["umount", "-l", str(target)], check=True)
        mounted = True
        for folder in (store, target.parent):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, store)
        target.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(store), str(target)], check=True)

    return reset


def victims(root: Path, seed: int) -> list[Victim]:
    """Return the commands on both kinds of folders; all files lie in a file system of their own."""
    subprocess.run(["mount", "-t", "tmpfs", "none", str(root)], check=True)
    many, one, images = make_pristine(root, seed)
    found = []
    for kind, make in (("overlay", overlay), ("mount point", mount_point)):
        for name, pristine, command in (
            ("export", many, None),
            ("calibration", many, calibration),
            ("engines", one, engines),
        ):
            own = root / f"{kind}-{name}".replace(" ", "-")
            own.mkdir()
            target = own / "place" / "model.mtl"
            if command is None:
                run_it = export(target, own)
            elif command is calibration:
                run_it = calibration(target, images)
            elif (built := engines(target)) is not None:
                run_it = built
            else:
                continue
            found.append(Victim(f"{name} on {kind}", target, run_it, make(own, pristine)))
    return found


def main() -> None:
    """Run in the mount namespace: scale, seed, folder and file of results are the arguments."""
    scale, seed, folder, result = sys.argv[1:]
    root = Path(folder) / "mounted"
    root.mkdir()
    figures = Counter(dict.fromkeys(("kills", *MUST_BE_ZERO), 0))
    for victim in victims(root, int(seed)):
        victim.reset()
        inode = victim.target.stat().st_ino
        if in_child(victim.run, root / "child.log") != 0 or victim.target.stat().st_ino != inode:
            figures["commands that exchanged the folder after all"] += 1
        attack([victim], float(scale), int(seed), root, figures, every_signal=False)
    Path(result).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
