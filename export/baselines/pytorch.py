"""The checkpoint's own PyTorch ``forward`` as a contestant of ``mtl-bench``: eager, or compiled with ``torch.compile``.

It is here because the benchmark itself does not import torch: a spec names :func:`start`, which is looked up in the contestant's
own process.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.export.graph.causes import named_line
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.errors import BackendError, MtlError, OptionError
from mtl_deploy.runtime.images.seen import seen_pixels

if TYPE_CHECKING:
    import torch

    from mtl_deploy.export.network.network import Network

_NEEDED = ("torch", "onnx", "onnxscript")  # what loading a network needs
_SIZES = 64  # batch sizes that are compiled; beyond that torch.compile would silently continue in eager mode


class Baseline:
    """A loaded network with the inputs and outputs of the deployed graph.

    Args:
        name: the contestant's key.
        network: with the tasks of the bundle.
        signature: of the deployed graph.
        device: ``cpu`` or ``cuda``; copies to and from it are part of a call.
        compiled: whether to compile the network, for each batch size at the first call with that size.
    """

    def __init__(self, name: str, network: Network, signature: Signature, device: str, *, compiled: bool) -> None:
        import torch

        self.name = name
        self._signature = signature
        self._device = torch.device(device)
        module: Any = network.selected.to(self._device)
        if compiled:
            module = torch.compile(module, dynamic=False)
        self._network = replace(network, selected=module)
        self._compiled = compiled
        preprocessing = signature.preprocessing
        std = 255 * np.asarray(preprocessing.std)
        self._scale = self._channels(1 / std)
        self._shift = self._channels(-np.asarray(preprocessing.mean) * 255 / std)
        where = torch.cuda.get_device_name(self._device) if device == "cuda" else "CPU"
        self.details = f"PyTorch {torch.__version__}, {where}, {'torch.compile' if compiled else 'eager'}"

    def __call__(self, batch: Batch) -> Mapping[str, npt.NDArray[np.generic]]:
        """Normalise, run ``forward``, decode.

        Args:
            batch: what the graph takes: ``(N, H, W, C) uint8``, or ``(N, C, H, W) float32``, normalised.

        Returns:
            The outputs by task, as the graph gives them.

        Raises:
            BackendError: the network cannot be compiled here.
            TraceError: ``forward`` fails on the batch.
        """
        import torch

        with torch.inference_mode():
            tensor = self._input(self._seen(batch))
            try:
                raw = self._network(tensor)
            except MtlError as error:
                if not self._compiled:
                    raise
                raise BackendError(f"torch.compile failed: {_reason(error)}") from error
            return {name: value.cpu().numpy() for name, value in self._outputs(raw).items()}

    def close(self) -> None:
        """Free the network."""
        del self._network

    def _seen(self, batch: npt.NDArray[Any]) -> torch.Tensor:
        """Return a batch as the network's images; frames of a camera are prepared on the processor, as an application does."""
        import torch

        return torch.from_numpy(seen_pixels(batch, self._signature.preprocessing))

    def _input(self, images: torch.Tensor) -> torch.Tensor:
        """Copy a batch to the device, as ``(N, C, H, W) float32``, contiguous, as images reach a network in training."""
        images = images.to(self._device)
        if self._signature.preprocessing.input == "float":
            return images
        if self._signature.preprocessing.order == "bgr":
            images = images.flip(3)
        return (images.permute(0, 3, 1, 2).float() * self._scale + self._shift).contiguous()

    def _outputs(self, raw: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        from mtl_deploy.export.verification.expected import decode

        found = {}
        for task in self._signature.tasks:
            values = raw[task.name].float()
            found[task.name] = decode(task, values) if self._signature.outputs == "decoded" else values
        return found

    def _channels(self, values: npt.NDArray[np.float64]) -> torch.Tensor:
        import torch

        return torch.tensor(values, dtype=torch.float32, device=self._device).view(1, -1, 1, 1)


def start(spec: Spec) -> Baseline:
    """Load the checkpoint that ``spec.options`` names, with the tasks and the preprocessing of the bundle.

    Args:
        spec: with the options ``checkpoint``, ``model``, ``weights``, ``trust_pickle``, ``compile`` and ``device``.

    Raises:
        BackendError: PyTorch, its GPU or the compiler that ``torch.compile`` needs is missing.
        CheckpointError: the file holds no usable network.
        TaskError: the network's outputs are not the bundle's tasks.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BackendError(
            f"PyTorch's forward needs {missing[0]}, which is not installed: pip install 'mtl-deploy[export]'"
        )
    import torch

    from mtl_deploy.export.network.file_kind import FileKind, file_kind
    from mtl_deploy.export.network.network import load_network
    from mtl_deploy.export.options.export import Options

    options: Mapping[str, Any] = spec.options
    if file_kind(Path(options["checkpoint"])) is FileKind.ONNX:
        raise OptionError(
            f"--checkpoint {options['checkpoint']}: an ONNX graph, which PyTorch does not run; leave the option out "
            "(graphs and --peers are measured without it), or name the PyTorch checkpoint behind it"
        )
    if options["device"] == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"PyTorch {torch.__version__} finds no GPU here; install the build for this machine's CUDA")
    if spec.settings.threads is not None:
        torch.set_num_threads(spec.settings.threads)
    if options["compile"]:
        require_compiler(options["device"])
    manifest = open_bundle(spec.path).manifest
    signature = manifest.signature
    network = load_network(
        Options(
            checkpoint=Path(options["checkpoint"]),
            model=options["model"],
            weights=options.get("weights"),
            trust_pickle=options["trust_pickle"],
            constants=_constants(manifest.provenance),
            tasks=signature.tasks,
            preprocessing=signature.preprocessing,
            image_size_given=True,
            outputs=signature.outputs,
        )
    )
    return Baseline(spec.name, network, signature, options["device"], compiled=options["compile"])


def _constants(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other arguments of ``forward`` that the bundle was exported with."""
    return {name: _as_tuple(value) for name, value in provenance.get("options", {}).get("constants", {}).items()}


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(part) for part in value) if isinstance(value, list) else value


def load_libraries(spec: Spec) -> None:  # noqa: ARG001 - the same for every spec
    """Import PyTorch, so that memory can be measured before a network is loaded."""
    if find_spec("torch") is not None:
        import torch  # noqa: F401


def require_compiler(device: str) -> None:
    """Compile one addition, to find out whether ``torch.compile`` works here before a network is compiled.

    Args:
        device: ``cpu``, which needs a C++ compiler, or ``cuda``, which needs Triton and a C compiler.

    Raises:
        BackendError: it does not; the message says why.
    """
    import torch
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SIZES)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    try:
        with warnings.catch_warnings(), torch.inference_mode(), torch._inductor.config.patch(force_disable_caches=True):
            warnings.simplefilter("ignore")  # says that caches are off
            torch.compile(lambda x: x + 1, dynamic=False)(torch.zeros(4, device=device))
    except Exception as error:  # its parts raise errors of many kinds
        raise BackendError(f"torch.compile does not work here: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return the innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    remedy = "; install g++" if "compiler" in str(error).lower() else ""
    return f"{named_line(error)}{remedy}"
