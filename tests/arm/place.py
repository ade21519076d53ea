"""A place where programs for ARM run on this machine: Debian's Python for arm64, wheels for it, and an emulator.

Nothing outside the folder changes: apt gets its own lists, caches and an empty record of what is installed; packages are unpacked,
not installed. It asks the sources that apt and pip are configured with. Delete the folder to make it again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
LIBRARIES = {"numpy": ("numpy",), "pillow": ("pillow",), "onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
"""Wheels, by name, with what installs the same library here."""
OLDEST_GLIBC = 17  # of manylinux2014
CORES = 2  # that programs see


@dataclass(frozen=True)
class Place:
    """What was made.

    Attributes:
        folder: where everything is.
        python: Debian's Python for arm64.
        site: the unpacked wheels.
    """

    folder: Path
    python: Path
    site: Path

    def emulator(self, machine: str) -> str:
        """Return QEMU's user-mode emulator of a machine: this system's, or the one in the folder."""
        for name in (f"qemu-{machine}-static", f"qemu-{machine}"):
            if (found := shutil.which(name)) is not None:
                return found
        return str(self.folder / "qemu" / "usr" / "bin" / f"qemu-{machine}-static")


def make_place(folder: Path) -> Place:
    """Make what is missing.

    Raises:
        SystemExit: this system has no apt, or something cannot be had.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise SystemExit(
                f"no {tool} here: the packages for arm64 are Debian's; run this on Debian or a system made from it"
            )
    folder = folder.resolve()
    root, site = folder / "root", folder / "site"
    if not root.is_dir():
        say("Fetching Debian's packages for arm64")
        _make_root(folder, root)
    if not site.is_dir():
        say("Fetching wheels for arm64")
        _make_site(folder, site, _python(root), _glibc(root))
    place = Place(folder, root / "usr" / "bin" / f"python{_python(root)}", site)
    if not Path(place.emulator("aarch64")).exists():
        say("Fetching QEMU")
        _make_emulator(folder)
    return place


def say(words: str) -> None:
    print(f"==> {words}", file=sys.stderr, flush=True)


def _make_root(folder: Path, root: Path) -> None:
    apt = _apt(folder)
    _run([*apt, "update"])
    _run([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES])
    _unpack(folder / "apt" / "cache" / "archives", root)
    for name in ("lib", "lib64"):  # links, in releases whose packages hold usr/lib alone
        if not (root / name).exists() and (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")


def _make_emulator(folder: Path) -> None:
    downloads = folder / "emulator"
    downloads.mkdir(exist_ok=True)
    _run([*_apt(folder), "download", f"qemu-user-static:{native_architecture()}"], cwd=downloads)
    _unpack(downloads, folder / "qemu")


def native_architecture() -> str:
    """Return Debian's name of this machine's architecture."""
    return _run(["dpkg", "--print-architecture"]).strip()


def _apt(folder: Path) -> list[str]:
    """Return apt-get for arm64, with lists, caches and a record of installed packages in the folder: an empty one."""
    own = folder / "apt"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (own / part).mkdir(parents=True, exist_ok=True)
    (own / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Dir::State": own / "state",
        "Dir::State::status": own / "status",
        "Dir::Cache": own / "cache",
        "Dir::Cache::archives": own / "cache" / "archives",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "",
        "APT::Keep-Downloaded-Packages": "true",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    return ["apt-get", "-qq", *options, "-o", f"APT::Architectures::={native_architecture()}"]


def _unpack(packages: Path, target: Path) -> None:
    """Unpack every package of a folder; the target is there only when all of it is."""
    unfinished = target.with_name(target.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(unfinished)])
    unfinished.rename(target)


def _python(root: Path) -> str:
    """Return the version of the root folder's Python, such as ``3.11``."""
    (found,) = (path.name.removeprefix("python") for path in (root / "usr" / "bin").glob("python3.[0-9]*"))
    return found


def _glibc(root: Path) -> int:
    """Return N of the root folder's glibc 2.N."""
    (package,) = (root.parent / "apt" / "cache" / "archives").glob("libc6_*.deb")
    return int(package.name.split("_")[1].split("-")[0].split(".")[1])


def platforms(glibc: int) -> list[str]:
    """Return the platforms whose wheels run with glibc 2.N, the newest first."""
    return [*(f"manylinux_2_{n}_aarch64" for n in range(glibc, OLDEST_GLIBC - 1, -1)), "manylinux2014_aarch64"]


def requirements() -> list[str]:
    """Return the wheels to get: of the versions that are installed here, so that the processor is all that differs."""
    found = [f"{name}=={_version(names)}" for name, names in LIBRARIES.items()]
    try:
        return [*found, f"openvino=={version('openvino')}"]
    except PackageNotFoundError:
        return found


def _version(names: Sequence[str]) -> str:
    for name in names:
        with suppress(PackageNotFoundError):
            return version(name)
    raise SystemExit(
        f"{' or '.join(names)} is not installed here; install it: its answers are what ARM's are compared with"
    )


def _make_site(folder: Path, site: Path, python: str, glibc: int) -> None:
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--dest", str(wheels)]
    targets = [part for name in platforms(glibc) for part in ("--platform", name)]
    _run([*pip, "--only-binary=:all:", "--implementation", "cp", "--python-version", python, *targets, *requirements()])
    unfinished = site.with_name(site.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unfinished)
    unfinished.rename(site)


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} ... {command[-1]} failed:\n{done.stderr or done.stdout}")
    return done.stdout
