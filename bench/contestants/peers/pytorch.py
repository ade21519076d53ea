"""The network's own PyTorch ``forward`` as a contestant: what is started; this room itself does not import PyTorch."""

from __future__ import annotations

from pathlib import Path

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime.bundle.manifest import Bundle, digest
from mtl_deploy.runtime.errors import OptionError

STARTER = "mtl_deploy.export.baselines.pytorch:start"
PRECISION = "fp32"  # in which a loaded network computes
_FORMS = {"pytorch": "PyTorch's forward, eager", "pytorch_compile": "PyTorch's forward, torch.compile"}
_GPU_PROVIDERS = ("CUDA", "Tensorrt", "NvTensorRTRTX")  # those that run on NVIDIA GPUs, as PyTorch's CUDA build does


def baseline_specs(
    bundle: Bundle,
    checkpoint: Path,
    model: str | None,
    trust_pickle: bool,
    settings: Settings,
    *,
    precision: str = PRECISION,
    engines: bool = False,
) -> list[Spec]:
    """Return the contestants that run a checkpoint with PyTorch: eager and with ``torch.compile``.

    Args:
        bundle: the bundle that the checkpoint was exported to; its tasks and preprocessing are used.
        checkpoint: the checkpoint's file.
        model: ``package.module:factory`` of the network, as for ``mtl-export``. It is never taken from the bundle, as it is code.
        trust_pickle: let the file run code.
        settings: the run's; PyTorch gets the same number of threads, and the provider says whether it runs on the GPU.
        precision: the run's; the contestants' names contain their own where it differs.
        engines: whether the run measures engines, which run on a GPU.

    Raises:
        OptionError: there is no such file.
        BackendError: no provider is given, and ONNX Runtime, which has the default, is missing.
    """
    if not checkpoint.exists():
        raise OptionError(f"--checkpoint {checkpoint}: no such file; give the one that the bundle was exported from")
    suffix = "" if precision == PRECISION else f"@{PRECISION}"
    options = {
        "checkpoint": str(checkpoint.resolve()),
        "model": model,
        "weights": _recorded_weights(bundle),
        "trust_pickle": trust_pickle,
        "device": "cuda" if engines or _on_gpu(settings) else "cpu",
    }
    return [
        Spec(
            name=name + suffix,
            title=title + (f", {PRECISION}" if suffix else ""),
            kind="pytorch",
            path=bundle.path,
            artifacts=(),
            tasks=tuple(task.name for task in bundle.manifest.tasks),
            precision=PRECISION,
            settings=settings,
            starter=STARTER,
            options=options | {"compile": name == "pytorch_compile"},
        )
        for name, title in _FORMS.items()
    ]


def _recorded_weights(bundle: Bundle) -> str | None:
    """Return which of several weights in its checkpoint a bundle was made from; None: the likeliest."""
    options = bundle.manifest.provenance.get("options")
    weights = options.get("weights") if isinstance(options, dict) else None
    return weights if isinstance(weights, str) else None


def checkpoint_warning(bundle: Bundle, checkpoint: Path) -> str | None:
    """Return a warning where the bundle was made from another checkpoint; None where it was not, or does not record which."""
    recorded = bundle.manifest.provenance.get("checkpoint", {})
    if not recorded.get("sha256") or digest(checkpoint) == recorded["sha256"]:
        return None
    return (
        f"{checkpoint} is not the file that {bundle.path} was exported from ({recorded.get('file', 'unknown')}): its SHA-256 "
        "differs, so PyTorch may compute something else than the graphs"
    )


def _on_gpu(settings: Settings) -> bool:
    from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

    providers = settings.providers or default_providers()
    return providers[0].startswith(_GPU_PROVIDERS)
