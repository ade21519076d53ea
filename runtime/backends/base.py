"""The protocol that every backend follows. What runs an artifact is a backend; callers know no more than this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mtl_deploy.runtime.arrays import TensorSpec


class Backend(Protocol):
    """Runs one artifact. Implementations are safe to call from several threads at once."""

    name: str
    """The backend's word in manifests and on command lines: ``onnxruntime``, ``openvino`` or ``tensorrt``."""
    details: str
    """For people: the provider or device, with the library's version."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    """The artifact's own metadata; empty where the format has none."""

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        into: Mapping[str, Any] | None = None,
        *,
        stream: int | None = None,
        on_device: bool = False,
    ) -> dict[str, Any]:
        """Run once.

        Args:
            inputs: one C-contiguous array per input, of the declared dtype and shape. A backend on a GPU also takes arrays there.
            outputs: names of the outputs to return. Graphs compute no more than these; an engine always computes all.
            into: C-contiguous arrays to write outputs to, by name; the result then holds the same arrays. They may be on the
                GPU.
            stream: handle of the caller's CUDA stream; None: the backend's own, which the call waits for.
            on_device: leave the outputs that have no array in ``into`` on the GPU, as
                :class:`~mtl_deploy.runtime.cuda.arrays.DeviceArray`.

        Raises:
            RunError: the library failed; the error holds its message.
            BackendError: the backend has no GPU, and the call asks for one.
        """
        ...

    def close(self) -> None:
        """Free what the backend holds. A closed backend cannot run; closing twice is allowed."""
        ...
