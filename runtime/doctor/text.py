"""The report as text for one screen: what is there, then what is wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from mtl_deploy.runtime.backends.tensorrt.library import TITLES
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.console.width import width

_NAMES = 14  # characters of the first column
_KEPT = "\N{NO-BREAK SPACE}"  # between a library and its version


def text(found: Mapping[str, Any]) -> str:
    """Return the document of ``mtl-doctor --json`` for people."""
    lines = [*_machine(found["machine"]), *_libraries(found["libraries"], found["onnxruntime"])]
    problems = list(found["libraries"]["problems"])
    shown = [row for name, said in lines if said for row in _row(name, said)]
    shown += [row for problem in problems for row in _row("problem", problem)]
    if (bundle := found["bundle"]) is not None:
        shown += ["", *_bundle(bundle)]
    return "\n".join(shown) + "\n"


def _row(name: str, said: str) -> list[str]:
    first, rest = f"{name:<{_NAMES}}", " " * _NAMES
    wrapped = textwrap.wrap(
        said, width(), initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_KEPT, " ") for line in wrapped]


def _machine(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    python = f"{found['implementation']} {found['python']}"
    yield (
        "system",
        ", ".join(filter(None, (found["distribution"], found["system"], _if(found["container"], "a container")))),
    )
    cores = f"{found['usable_cores']} cores" if found["usable_cores"] else ""
    memory = _gigabytes(found["memory_bytes"])
    yield "machine", ", ".join(filter(None, (found["board"], found["processor"], cores, memory)))
    yield "python", python + _if(found["virtual_environment"], ", a virtual environment")
    if (jetson := found["jetson"]) is not None:
        l4t = f"Jetson Linux {jetson['l4t'] or 'of an unknown release'}"
        yield (
            "jetson",
            f"{l4t}, " + (f"JetPack {jetson['jetpack']}" if jetson["jetpack"] else "no package nvidia-jetpack"),
        )
    driver = found["driver"]
    known = [
        _if(driver["version"], f"NVIDIA {driver['version']}"),
        _if(driver["cuda"], f"CUDA {driver['cuda']} and earlier"),
    ]
    yield "driver", ", ".join(filter(None, known)) or str(driver["fault"])
    for gpu in found["gpus"]["found"]:
        yield f"gpu {gpu['index']}", f"{gpu['name']}, SM {gpu['compute_capability']}, {_gigabytes(gpu['memory_bytes'])}"
    if not found["gpus"]["found"]:
        yield "gpu", str(found["gpus"]["fault"])
    yield "set", ", ".join(found["variables_set"])


def _libraries(found: Mapping[str, Any], onnxruntime: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "mtl-deploy", f"{found['mtl_deploy']} ({found['installed_as']})"
    yield "libraries", ", ".join(f"{name}{_KEPT}{version}" for name, version in found["versions"].items())
    for name, title in TITLES.items():
        engine = found["tensorrt"].get(name)
        yield name, "not installed" if engine is None else _engine(title, engine)
    here = found["versions"].get("openvino")
    yield "openvino", "not installed" if here is None else f"OpenVINO {here}"
    yield "providers", ", ".join(onnxruntime["providers"]) or str(onnxruntime["fault"])
    for name, lack in found["commands"].items():
        missing = ", ".join(lack["missing"])
        yield name, f"needs {missing}: {lack['install']}" if missing else "has what it needs"


def _engine(title: str, found: Mapping[str, Any]) -> str:
    version = found["version"] or "of a version that only an import tells"
    return f"{title} {version}" + (f", for CUDA {found['cuda']}" if found["cuda"] else "")


def _bundle(found: Mapping[str, Any]) -> Iterator[str]:
    tasks = ", ".join(f"{task['name']} ({task['kind']})" for task in found["tasks"])
    yield from _row("bundle", f"{found['name']}{_if(found['signed'], ', signed')}: {tasks}")
    if found["unchecked"]:
        yield from _row("", f"a quick export, for development: {'; '.join(found['unchecked'])}")
    yield from _row("measured", found["measured"])
    if found["chosen"] is not None:
        yield from _row("load()", f"chooses {found['chosen']}")
    if found["warning"] is not None:
        yield from _row("", found["warning"])
    yield ""
    verb = "ran" if found["tried"] else "runs"
    header = ["file", "precision", f"{verb} here"]
    rows = [[one["path"], one["precision"], _answer(one, tried=found["tried"])] for one in found["artifacts"]]
    yield from table(header, rows).splitlines()
    reasons: dict[str, list[str]] = {}
    for one in found["artifacts"]:
        if one["reason"] is not None:
            reasons.setdefault(one["reason"], []).append(one["path"])
    if reasons:
        yield ""
    for reason, paths in reasons.items():
        yield from textwrap.wrap(
            f"{', '.join(paths)}: {reason}",
            width(),
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _answer(artifact: Mapping[str, Any], *, tried: bool) -> str:
    if not artifact["runs"]:
        return "no"
    return f"yes, {artifact['first_run_ms']:.1f} ms the first time" if tried else "yes"


def _if(condition: object, said: str) -> str:
    return said if condition else ""


def _gigabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e9:.1f} GB"
