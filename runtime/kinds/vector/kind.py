"""Named values: raw * scale + offset, and where they are coordinates, in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.drawing import Mark
from mtl_deploy.runtime.predictions.summary import LISTED, SHOWN, describe_numbers

from .fields import (
    VectorOptions,
    check_count,
    check_fields,
    factors,
    options_of,
    shifts,
    value_names,
    value_units,
)
from .frame import in_image, way_back
from .marks import marks_of
from .values import Values


class Vector(Kind):
    """Values of one image, each with its name and unit; an output ``(N, k, m)`` counts row by row."""

    name = "vector"
    called = "a vector"
    takes = frozenset(("unit", "scale", "offset"))
    options = VectorOptions
    of_values = True
    after_colon = "names"
    example = "vector:left_eye.x,left_eye.y,right_eye.x,right_eye.y;frame=unit"

    def check(self, task: Task) -> None:
        check_fields(task)

    def check_size(self, task: Task, size: int) -> None:
        check_count(task, size)

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        numbers = output.astype(np.float32, copy=False)
        values = numbers if form == "decoded" else numbers * factors(task) + shifts(task)
        frame = options_of(task).frame
        if frame is not None and placements is not None:
            ways = np.stack([way_back(frame, placement) for placement in placements])
            values = in_image(task, values[: len(ways)].astype(np.float64), ways).astype(np.float32)
        names, units = value_names(task), value_units(task)
        return [
            Prediction(
                task.name,
                task.kind,
                Values(row, names, units),
                unit=Values(row, names, units).unit,
                finite=is_finite(row),
            )
            for row in values
        ]

    def words(self, prediction: Prediction) -> str:
        value: Values = prediction.value
        if value.names == tuple(map(str, range(len(value)))):
            return describe_numbers(value.numbers, value.unit)
        points = value.points
        inside = {f"{name}.{axis}" for name in points for axis in "xy"}
        said = [f"{name} ({x:.4g}, {y:.4g})" for name, (x, y) in points.items()]
        own = zip(value.names, value.numbers, value.units, strict=True)
        said += [
            f"{name} {number:.4g}{f' {unit}' if unit and value.unit is None else ''}"
            for name, number, unit in own
            if name not in inside
        ]
        suffix = f" {value.unit}" if value.unit else ""
        if len(value) <= LISTED:
            return ", ".join(said) + suffix
        noun = "points" if len(said) == len(points) else "values"
        return f"{', '.join(said[:SHOWN])}, ... ({len(said)} {noun}{suffix and ' in'}{suffix})"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        value: Values = prediction.value
        data: dict[str, object] = {"values": {name: json_number(one) for name, one in value.to_dict().items()}}
        if value.unit is None and any(value.units):
            return data | {"units": dict(zip(value.names, value.units, strict=True))}
        return data | {"unit": value.unit}

    def same(self, one: Any, other: Any) -> bool:
        return bool(one == other)

    def marks(self, task: Task, prediction: Prediction) -> Sequence[Mark]:
        return () if options_of(task).frame is None else marks_of(prediction.value)


KIND = Vector()
