"""The network's own PyTorch ``forward`` as a contestant: what to start, without PyTorch in this room."""

from __future__ import annotations

from pathlib import Path

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime.bundle.manifest import Bundle, digest
from mtl_deploy.runtime.errors import OptionError

STARTER = "mtl_deploy.export.baselines.pytorch:start"
PRECISION = "fp32"  # what a loaded network computes in
_FORMS = {"pytorch": "PyTorch's forward, eager", "pytorch_compile": "PyTorch's forward, torch.compile"}
_GPU_PROVIDERS = ("CUDA", "Tensorrt", "NvTensorRTRTX")  # those that run on NVIDIA's GPUs, as PyTorch's own build does


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
        bundle: that the checkpoint was exported to; its tasks and preprocessing hold.
        checkpoint: the file.
        model: ``package.module:factory`` of the network, as for ``mtl-export``. Never taken from the bundle: it is code.
        trust_pickle: let the file run code.
        settings: threads hold for PyTorch too; the provider says whether it runs on the GPU.
        precision: of the run; the contestants' names tell theirs where it is another.
        engines: whether the run measures engines, which are on a GPU.

    Raises:
        OptionError: there is no such file.
        BackendError: the provider is ONNX Runtime's default one, and ONNX Runtime is missing.
    """
    if not checkpoint.exists():
        raise OptionError(f"--checkpoint {checkpoint}: no such file; give the one that the bundle was exported from")
    suffix = "" if precision == PRECISION else f"@{PRECISION}"
    options = {
        "checkpoint": str(checkpoint.resolve()),
        "model": model,
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


def checkpoint_warning(bundle: Bundle, checkpoint: Path) -> str | None:
    """Say that a checkpoint is not the one that the bundle was made from; None where it is, or the bundle does not tell."""
    recorded = bundle.manifest.provenance.get("checkpoint", {})
    if not recorded.get("sha256") or digest(checkpoint) == recorded["sha256"]:
        return None
    return (
        f"{checkpoint} is not the file that {bundle.path} was exported from ({recorded.get('file', 'unknown')}): its SHA-256 is "
        "another; PyTorch may compute something else than the graphs"
    )


def _on_gpu(settings: Settings) -> bool:
    from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

    providers = settings.providers or default_providers()
    return providers[0].startswith(_GPU_PROVIDERS)
