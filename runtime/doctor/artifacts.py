"""Which files of a bundle run on this machine, and why the others do not.

By default it goes by what the manifest and the machine say, and imports no backend. With ``run`` each file runs once on an image of
zeros, in a process of its own, so that a library that ends it does not end the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mtl_deploy.runtime.backends.openvino.library import is_installed as has_openvino
from mtl_deploy.runtime.backends.tensorrt.library import TITLES, Release, installed
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.backends.tensorrt.start import installed_version, require_driver
from mtl_deploy.runtime.bundle.manifest import SUFFIX, Artifact, Bundle
from mtl_deploy.runtime.cuda.gpu import find_gpu
from mtl_deploy.runtime.errors import MtlError
from mtl_deploy.runtime.measured.choice import matching, where_int8_does_not_pay
from mtl_deploy.runtime.measured.here import libraries
from mtl_deploy.runtime.measured.record import read

from .children import run

_TIMEOUT_S = 300.0


def describe_bundle(bundle: Bundle, onnxruntime: Mapping[str, Any], *, tried: bool) -> dict[str, Any]:
    """Return what a bundle holds and which of its files run here.

    Args:
        bundle: an open one.
        onnxruntime: its ``providers``, and the ``fault`` where it has none.
        tried: run each file once; otherwise judge by what the manifest and the machine say.
    """
    manifest = bundle.manifest
    reasons = {one.path: _reason(bundle, one, onnxruntime) for one in manifest.artifacts}
    times: dict[str, float] = {}
    chosen, warning = None, None
    if tried:
        answers = _tried(bundle, [path for path, reason in reasons.items() if reason is None])
        reasons |= {path: answer.get("fault") for path, answer in answers.items() if path in reasons}
        times = {path: answer["ms"] for path, answer in answers.items() if "ms" in answer}
        chosen, warning = answers[""].get("artifact"), answers[""].get("warning") or answers[""].get("fault")
    return {
        "name": manifest.name,
        "signed": (bundle.path / "manifest.json.sig").is_file(),
        "unchecked": list(manifest.unchecked),
        "measured": _private(_measured(bundle), bundle),
        "versions": manifest.provenance.get("libraries", {}),
        "tasks": [{"name": task.name, "kind": task.kind} for task in manifest.tasks],
        "tried": tried,
        "chosen": chosen,
        "warning": _private(warning, bundle),
        "artifacts": [
            {
                "path": one.path,
                "role": one.role,
                "precision": one.precision,
                "backend": one.backend,
                "runs": reasons[one.path] is None,
                "reason": _private(reasons[one.path], bundle),
                "first_run_ms": times.get(one.path),
            }
            for one in manifest.artifacts
        ],
    }


def _measured(bundle: Bundle) -> str:
    """Return whether it was measured which of the bundle's graphs is fastest here, and where INT8 does not pay."""
    reading = read(bundle.path)
    if not reading.exists:
        return f"not measured: mtl-bench {bundle.manifest.name}{SUFFIX} --record finds out which graph is fastest here"
    if reading.problem is not None:
        return reading.problem
    run, lack = matching(reading, tuple(libraries()), None)
    if run is None:
        return f"{lack}: mtl-bench {bundle.manifest.name}{SUFFIX} --record measures here"
    return "; ".join([f"on such a machine, {run.measured}", *where_int8_does_not_pay(run)])


def _private(text: str | None, bundle: Bundle) -> str | None:
    """Return a message without the folder that the bundle lies in."""
    if text is None:
        return None
    for folder in {str(bundle.path.absolute()), str(bundle.path.resolve()), str(bundle.path)}:
        text = text.replace(f"{folder}/", "").replace(folder, bundle.manifest.name)
    return text


def _reason(bundle: Bundle, artifact: Artifact, onnxruntime: Mapping[str, Any]) -> str | None:
    """Return why a file does not run here; None where nothing is known that speaks against it."""
    try:
        bundle.read(artifact)
        if artifact.backend == "tensorrt":
            return _engine_reason(EngineRecord.from_details(artifact.details, artifact.path))
    except MtlError as error:
        return str(error)
    if not onnxruntime["providers"] and not has_openvino():
        return str(onnxruntime["fault"])
    return None


def _engine_reason(record: EngineRecord) -> str | None:
    """Return what an engine misses here, in the order in which a start would find it, without importing its library."""
    try:
        gpu = find_gpu()
        require_driver(record.library, gpu.driver)
    except MtlError as error:
        return f"{record.built_for}; this machine: {error}"
    problem: str | None = f"{TITLES[record.library]} is not installed"
    if record.library in installed():
        version = installed_version(record.library)
        if version is None:
            return None  # no wheel says it: --run does
        problem = record.misfit(Release(record.library, version, None), gpu)
    elif find_spec("cuda") is None:
        problem = f"{problem}, nor is cuda-bindings"
    return None if problem is None else f"{record.built_for}; this machine: {problem}"


def _tried(bundle: Bundle, paths: list[str]) -> dict[str, dict[str, Any]]:
    """Run files one after another, and at last what loading the bundle chooses, whose path is empty."""
    left = [*paths, ""]
    answers: dict[str, dict[str, Any]] = {}
    while left:
        ended = run("mtl_deploy.runtime.doctor.trial", [str(bundle.path.absolute()), *left], _TIMEOUT_S)
        for line in ended.lines:
            if line.startswith('{"path"'):
                answer = json.loads(line)
                answers[answer["path"]] = answer
        if (
            ended.fault is not None
            and (guilty := next((path for path in left if path not in answers), None)) is not None
        ):
            answers[guilty] = {"fault": ended.fault}
        rest = [path for path in left if path not in answers]
        if len(rest) == len(left):  # nothing was said: no file is to blame
            return answers | {path: {"fault": "gave no answer"} for path in rest}
        left = rest
    return answers
