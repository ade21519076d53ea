"""Rotations: two vectors made orthogonal by Gram and Schmidt, and their cross product (Zhou et al., CVPR 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.kinds.base import ExportKind, Scales
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.rotation.fields import by_columns
from mtl_deploy.runtime.kinds.rotation.matrices import SHORTEST

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

_TURNED = (0, 3, 6, 1, 4, 7, 2, 5, 8)  # a matrix whose rows become its columns


class Rotation(ExportKind):
    """The decoded output is ``(N, 9)``, row by row; its entries are judged together."""

    def changes(self, task: Task) -> bool:
        return task.size == 6 or by_columns(task)

    def decode(self, task: Task, chain: Chain) -> None:
        if task.size == 6:
            _orthogonal(chain)
        if by_columns(task):
            _taken(chain, "rows", chain.last, _TURNED)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import normalize

        three = raw
        if task.size == 6:
            first = normalize(
                raw[:, :3], dim=1, eps=SHORTEST
            )  # 6DRepNet's way to the same: the third before the second
            third = normalize(torch.linalg.cross(first, raw[:, 3:]), dim=1, eps=SHORTEST)
            three = torch.cat([first, torch.linalg.cross(third, first), third], 1)
        return three.reshape(-1, 3, 3).mT.flatten(1) if by_columns(task) else three

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        return Scales()

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return self.decoded(task, raw) if decoded else raw


def _orthogonal(chain: Chain) -> None:
    """Add the nodes that make nine values of six; none is a weighted layer, so that typing leaves them in FP32."""
    raw = chain.last
    first = _unit(chain, "first", _taken(chain, "a", raw, (0, 1, 2)))
    second = _taken(chain, "b", raw, (3, 4, 5))
    along = _dot(chain, "along", first, second)
    along = chain.add("Mul", "projection", along, first)
    second = _unit(chain, "second", chain.add("Sub", "rejection", second, along))
    turned = {
        name: _taken(chain, name, value, order)
        for name, value, order in (
            ("first_yzx", first, (1, 2, 0)),
            ("second_zxy", second, (2, 0, 1)),
            ("first_zxy", first, (2, 0, 1)),
            ("second_yzx", second, (1, 2, 0)),
        )
    }
    plus = chain.add("Mul", "plus", turned["first_yzx"], turned["second_zxy"])
    minus = chain.add("Mul", "minus", turned["first_zxy"], turned["second_yzx"])
    third = chain.add("Sub", "cross", plus, minus)
    chain.add("Concat", "three", first, second, third, axis=1)


def _taken(chain: Chain, word: str, value: ir.Value, columns: tuple[int, ...]) -> ir.Value:
    return chain.add("Gather", word, value, chain.constant(f"{word}_columns", np.array(columns, np.int64)), axis=1)


def _dot(chain: Chain, word: str, one: ir.Value, other: ir.Value) -> ir.Value:
    product = chain.add("Mul", f"{word}_products", one, other)
    axis = chain.constant(f"{word}_axis", np.array([1], np.int64))
    return chain.add("ReduceSum", f"{word}_sum", product, axis, keepdims=1)


def _unit(chain: Chain, word: str, vector: ir.Value) -> ir.Value:
    length = chain.add("Sqrt", f"{word}_length", _dot(chain, word, vector, vector))
    length = chain.add("Max", f"{word}_at_least", length, chain.constant(f"{word}_shortest", SHORTEST))
    return chain.add("Div", f"{word}_unit", vector, length)


KIND = Rotation()
