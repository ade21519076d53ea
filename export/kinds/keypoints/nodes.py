"""Nodes that turn heatmaps into points: the highest pixel, moved by a quarter, or the mean under a softmax.

Height and width come from the graph, so sizes may be free. All arithmetic on positions is exact in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task

if TYPE_CHECKING:
    import onnx_ir as ir


class Peaks:
    """Nodes on the heatmaps of one task.

    Args:
        task: with its size and stride.
        chain: its ``last`` is the heatmaps, ``(N, K, h, w)``.
    """

    def __init__(self, task: Task, chain: Chain) -> None:
        self._task, self._chain = task, chain
        self._maps = chain.last
        self._flat = chain.add("Reshape", "flat", chain.last, self._whole("one_row", [0, task.size, -1]))
        self._score = chain.add("TopK", "highest", self._flat, self._whole("one", [1]), outputs=2, axis=2)
        self._place: ir.Value = chain.nodes[-1].outputs[1]
        shape = chain.add("Shape", "shape", self._maps)
        self._height = chain.add("Gather", "height", shape, self._whole("second_last", [2]))
        self._width = chain.add("Gather", "width", shape, self._whole("last", [3]))

    def highest(self) -> None:
        """Add the highest pixel, moved by a quarter towards the higher neighbour."""
        chain, position = self._chain, self._position()
        offset = chain.add("Mul", "moved", self._towards(), self._inside(position))
        self._finish(chain.add("Add", "at", position, offset))

    def mean(self) -> None:
        """Add the mean position under the softmax."""
        chain = self._chain
        scaled = chain.add("Mul", "beta", self._flat, chain.constant("beta.factor", float(self._task.options.beta)))
        shares = chain.add("Softmax", "softmax", scaled, axis=2)
        size = chain.add("Concat", "size", self._whole("kept", [0, self._task.size]), self._height, self._width, axis=0)
        chain.add("Reshape", "as_maps", shares, size)
        maps = chain.last
        means = []
        for word, along, side in (("x", 2, self._width), ("y", 3, self._height)):
            total = chain.add("ReduceSum", f"sum_{word}", maps, self._whole(f"axis_{word}", [along]), keepdims=0)
            places = self._counted(word, side)
            weighted = chain.add("Mul", f"weighted_{word}", total, places)
            last = self._whole(f"all_{word}", [2])
            means.append(chain.add("ReduceSum", f"mean_{word}", weighted, last, keepdims=1))
        self._finish(chain.add("Concat", "at", *means, axis=2))

    def _counted(self, word: str, side: ir.Value) -> ir.Value:
        chain = self._chain
        stop = chain.add("Squeeze", f"stop_{word}", side, self._whole(f"only_{word}", [0]))
        count = chain.add("Range", f"range_{word}", self._whole(f"from_{word}", 0), stop, self._whole(f"by_{word}", 1))
        return chain.add("Cast", f"places_{word}", count, to=_float())

    def _finish(self, position: ir.Value) -> None:
        chain = self._chain
        scaled = chain.add("Mul", "stride", position, chain.constant("pixels", float(self._task.stride)))
        chain.add("Concat", "points", scaled, self._score, axis=2)

    def _position(self) -> ir.Value:
        """Return column and row of the highest pixel, ``(N, K, 2)``."""
        chain = self._chain
        place = chain.add("Cast", "place", self._place, to=_float())
        width = chain.add("Cast", "width_float", self._width, to=_float())
        middle = chain.add("Add", "middle", place, chain.constant("half", 0.5))
        chain.add("Div", "rows", middle, width)
        row = chain.add("Floor", "row", chain.last)
        chain.add("Mul", "before", row, width)
        column = chain.add("Sub", "column", place, chain.last)
        return chain.add("Concat", "position", column, row, axis=2)

    def _towards(self) -> ir.Value:
        """Return a quarter with the sign of the step from the pixel before to the next one, along x and y, ``(N, K, 2)``."""
        chain = self._chain
        along_y = chain.add("Mul", "step_y", self._width, self._whole("rows_away", [0, 0, -1, 1]))
        step = chain.add("Add", "step", along_y, self._whole("columns_away", [-1, 1, 0, 0]))
        chain.add("Add", "neighbours", self._place, step)
        chain.add("Max", "not_before", chain.last, self._whole("first", [0]))
        kept = chain.last
        pixels = chain.add("Mul", "pixels", self._height, self._width)
        end = chain.add("Sub", "end", pixels, self._whole("one_less", [1]))
        kept = chain.add("Min", "not_after", kept, end)
        around = chain.add("GatherElements", "around", self._flat, kept, axis=2)
        sides = [
            chain.add("Gather", word, around, self._whole(f"{word}.sides", places), axis=2)
            for word, places in (("ahead", [1, 3]), ("behind", [0, 2]))
        ]
        chain.add("Sub", "rise", *sides)
        chain.add("Sign", "sign", chain.last)
        return chain.add("Mul", "quarter", chain.last, chain.constant("quarter.factor", 0.25))

    def _inside(self, position: ir.Value) -> ir.Value:
        """Return 1 where a pixel lies beyond the second one from the border along both axes, else 0, ``(N, K, 1)``."""
        chain = self._chain
        sides = chain.add("Concat", "sides", self._width, self._height, axis=0)
        sides = chain.add("Cast", "sides_float", sides, to=_float())
        far = chain.add("Sub", "far", sides, chain.constant("border", 1.0))
        above = chain.add("Greater", "above", position, chain.constant("second", 1.0))
        below = chain.add("Less", "below", position, far)
        chain.add("And", "both", above, below)
        chain.add("Cast", "both_float", chain.last, to=_float())
        chain.add("ReduceSum", "axes_inside", chain.last, self._whole("axes", [2]), keepdims=1)
        chain.add("Greater", "is_inside", chain.last, chain.constant("one_and_a_half", 1.5))
        return chain.add("Cast", "inside", chain.last, to=_float())

    def _whole(self, word: str, numbers: int | list[int]) -> ir.Value:
        return self._chain.constant(word, np.array(numbers, np.int64))


def _float() -> int:
    import onnx_ir as ir

    return int(ir.DataType.FLOAT)
