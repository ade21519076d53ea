"""The graphs of a bundle: for each precision, views of one clean graph, turned into files one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtl_deploy import __version__
from mtl_deploy.calibration.graph.file import to_file
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.errors import TraceError

from .cost import Cost
from .split import Sharing, extract

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class GraphVariant:
    """One graph of a bundle. Its weights are shared in memory with the other graphs of the same precision.

    Attributes:
        role: ``shared`` or ``separate``.
        precision: ``fp32`` or ``fp16``.
        signature: its own; one task for a separate model.
        model: the graph.
        cost: for one image.
        batch: the only batch that it takes; None if it takes any.
        details: what else the manifest records about it.
    """

    role: str
    precision: str
    signature: Signature
    model: ir.Model
    cost: Cost
    batch: int | None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The file's path in the bundle."""
        if self.role == "shared":
            return f"{self.precision}.onnx"
        task = self.signature.tasks[0].name
        return f"separate/{task}.onnx" if self.precision == "fp32" else f"separate/{task}.{self.precision}.onnx"

    def content(self) -> bytes:
        """Return the ``.onnx`` file: the same bytes at each call.

        Raises:
            TraceError: see :func:`serialize`.
        """
        return serialize(self.model, self.signature)

    def artifact(self, content: bytes, sha256: str | None = None) -> Artifact:
        """Return the manifest's entry for the file.

        Args:
            content: the ``.onnx`` file.
            sha256: its SHA-256 in hexadecimal, if it is known.
        """
        return Artifact(
            path=self.path,
            role=self.role,
            tasks=tuple(task.name for task in self.signature.tasks),
            precision=self.precision,
            backend="onnxruntime",
            batch_min=self.batch or 1,
            batch_max=self.batch,
            opset=self.model.opset_imports[""],
            sha256=sha256 or hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            parameters=self.cost.parameters,
            multiply_adds=self.cost.multiply_adds,
            details=self.details,
        )


def variants(
    model: ir.Model,
    precision: str,
    signature: Signature,
    shares: Sharing,
    batch: int | None,
    *,
    separate: bool,
    details: dict[str, Any] | None = None,
) -> Iterator[GraphVariant]:
    """Make the shared graph of a precision and, if wanted, one graph per task with a backbone of its own.

    Args:
        model: the shared graph, with outputs named like the tasks.
        precision: of the shared graph.
        signature: of the shared graph.
        shares: what the tasks share, for the costs.
        batch: the only batch that the graph takes; None if it takes any.
        separate: whether to make the single-task graphs.
        details: what else the manifest records about the shared graph.
    """
    yield GraphVariant("shared", precision, signature, model, shares.shared, batch, details or {})
    for task in signature.tasks if separate else ():
        alone = extract(model, [task.name])
        yield GraphVariant(
            "separate", precision, signature.subset([task.name]), alone, shares.separate[task.name], batch
        )


def serialize(model: ir.Model, signature: Signature | None = None) -> bytes:
    """Turn a graph into the bytes of an ``.onnx`` file; the signature, if given, is recorded in its metadata.

    Raises:
        TraceError: the graph is larger than the 2 GiB that one ONNX file can hold.
    """
    model.producer_name, model.producer_version = "mtl-deploy", __version__
    if signature is not None:
        model.metadata_props[METADATA_KEY] = signature.to_json()
    return to_file(model)


def require_valid(content: bytes) -> None:
    """Check an ``.onnx`` file against ONNX's rules, including shape and type inference.

    Raises:
        TraceError: it breaks a rule.
    """
    import onnx

    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TraceError(f"the graph is not valid ONNX: {' '.join(str(error).split())}") from error
