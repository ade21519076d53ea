"""What a bundle lacks that was asked for, and what would make it."""

from __future__ import annotations

from mtl_deploy.runtime.bundle.manifest import PRECISIONS, Bundle


def lacking(bundle: Bundle, precision: str | None, backend: str | None) -> str:
    """Return the error where a bundle has no artifact of a precision for a backend: what it has, and how to make the other.

    Args:
        bundle: the bundle.
        precision: the wanted one; None: any.
        backend: likewise; ``tensorrt`` asks for an engine, others for a graph.
    """
    shared = [artifact for artifact in bundle.manifest.artifacts if artifact.role == "shared"]
    has = ", ".join(f"{one.path} ({one.precision}, {one.backend})" for one in shared) or "none"
    what = "engine" if backend == "tensorrt" else "artifact" if backend is None else "graph"
    asked = f"{f'{precision} ' if precision else ''}{what}{' for TensorRT' if what == 'engine' else ''}"
    return f"{bundle.path} has no {asked}; it has {has}: {_remedy(bundle, precision, backend)}"


def _remedy(bundle: Bundle, precision: str | None, backend: str | None) -> str:
    graphs = {
        one.precision for one in bundle.manifest.artifacts if one.role == "shared" and one.backend == "onnxruntime"
    }
    if precision is not None and precision not in PRECISIONS:
        return f"there is no precision {precision!r}; choose {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
    if backend == "tensorrt" and precision == "int8-cpu":
        return "int8-cpu is for processors; ask for int8 here"
    if backend == "tensorrt" and (precision is None or precision in graphs):
        return (
            f"build engines where they will run, with mtl-export {bundle.path}, or leave the backend out to run a graph"
        )
    if precision in ("int8", "int8-cpu"):
        return f"mtl-calibrate {bundle.path} --calibration-data PHOTOS/ makes INT8 graphs"
    reasons = bundle.manifest.provenance.get("left_out", {})
    if precision in reasons:
        return f"{precision} was left out, since {reasons[precision]}"
    return "choose one of them, or export again"
