"""What a manifest says about a runnable file: an artifact, or a part of a network that is cut into several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Artifact:
    """One runnable file of a bundle.

    Attributes:
        path: relative to the bundle, with ``/``; never leaves it.
        role: ``shared`` (all tasks, one backbone), ``separate`` (one task, a backbone of its own) or ``part`` (:class:`Part`).
        tasks: names of the tasks it serves, in the order of its outputs.
        precision: ``fp32``, ``fp16``, ``int8`` (in TensorRT's style) or ``int8-cpu`` (in the style that processors run fastest).
        backend: ``onnxruntime`` (a graph) or ``tensorrt`` (an engine).
        batch_min: smallest batch that it takes.
        batch_max: largest batch that it takes; None where there is no bound.
        opset: the ONNX opset of a graph; None for an engine.
        sha256: of the file, hexadecimal.
        size_bytes: of the file.
        parameters: number of weights and biases.
        multiply_adds: multiply-adds of one image.
        details: what else is known (an engine's library, version and GPU; tensors that an FP16 graph keeps in FP32).
    """

    path: str
    role: str
    tasks: tuple[str, ...]
    precision: str
    backend: str
    batch_min: int
    batch_max: int | None
    opset: int | None
    sha256: str
    size_bytes: int
    parameters: int
    multiply_adds: int
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return its entry in ``manifest.json``."""
        return asdict(self) | {"tasks": list(self.tasks)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Artifact:
        """Read a checked entry. Fields that this release does not know are ignored."""
        known = {key: value for key, value in data.items() if key in Artifact.__dataclass_fields__}
        return Artifact(**known | {"tasks": tuple(data["tasks"])})


@dataclass(frozen=True)
class Border:
    """A tensor that goes into a part or comes out of it.

    Attributes:
        name: the same in the part that gives it and in those that take it.
        dtype: numpy's name of its type.
        one: its shape for the smallest batch, of images of the network's default size.
        more: what each further image adds to each size.
    """

    name: str
    dtype: str
    one: tuple[int, ...]
    more: tuple[int, ...]

    def shape(self, further: int) -> tuple[int, ...]:
        """Return its shape for so many images more than the smallest batch."""
        return tuple(size + further * more for size, more in zip(self.one, self.more, strict=True))

    def size_in_bytes(self, images: int) -> int:
        """Return its bytes per image, the smallest batch having so many images."""
        return prod(self.one) * np.dtype(self.dtype).itemsize // images

    def to_dict(self) -> dict[str, Any]:
        """Return its entry in ``manifest.json``."""
        return {"name": self.name, "dtype": self.dtype, "one": list(self.one), "more": list(self.more)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Border:
        """Read :meth:`to_dict`'s result back."""
        return cls(data["name"], data["dtype"], tuple(data["one"]), tuple(data["more"]))


@dataclass(frozen=True)
class Part(Artifact):
    """A part of a network: what the named tasks need and no other does. All parts of a precision and backend are the network.

    Attributes:
        inputs: the image, or what other parts give.
        outputs: tasks, by their names, and what other parts take.
    """

    inputs: tuple[Border, ...] = ()
    outputs: tuple[Border, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return its entry in ``manifest.json``."""
        borders = {word: [border.to_dict() for border in getattr(self, word)] for word in ("inputs", "outputs")}
        return super().to_dict() | borders

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Part:
        """Read a checked entry."""
        base = Artifact.from_dict(data)
        fields = {name: getattr(base, name) for name in Artifact.__dataclass_fields__}
        inputs, outputs = (tuple(Border.from_dict(each) for each in data[word]) for word in ("inputs", "outputs"))
        return cls(**fields, inputs=inputs, outputs=outputs)
