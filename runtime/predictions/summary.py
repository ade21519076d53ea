"""Maps and numbers summed up in one line, or in a few numbers: for tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.runtime.arrays import Array

LISTED = 12  # numbers that a line lists; of more it shows the first few
SHOWN = 4  # the first few


def class_name(label: str) -> str:
    """Return a class's label, so that it reads as one: ``class 3`` for ``3``, ``class 3-9`` for ``3-9``."""
    return label if any(character.isalpha() for character in label) else f"class {label}"


def with_share(label: str, share: str) -> str:
    """Return a class's label with its share: ``wall 61 %``, but ``class 3: 61 %`` where two numbers would meet."""
    name = class_name(label)
    return f"{name}: {share}" if name[-1:].isdigit() else f"{name} {share}"


def describe_numbers(values: Array, unit: str | None) -> str:
    """Return numbers of any shape in one line: all of them, or the first few with how many there are and their range."""
    flat = values.ravel()
    suffix = f" {unit}" if unit else ""
    if flat.size <= LISTED:
        return ", ".join(f"{value:.4g}" for value in flat) + suffix
    first = ", ".join(f"{value:.4g}" for value in flat[:SHOWN])
    finite = flat[np.isfinite(flat)]
    span = f"from {finite.min():.4g} to {finite.max():.4g}{suffix}" if finite.size else "none of them finite"
    return f"{first}, ... ({flat.size} values, {span})"


def describe_raw(value: Array) -> str:
    """Return one line for a raw tensor: its values if they are few, otherwise its shape and range."""
    if value.size <= LISTED:
        return describe_numbers(value, None)
    shape = "x".join(map(str, value.shape))
    found = _finite_range(value)
    if found is None:
        return f"{shape} values, none finite"
    least, mean, greatest = found
    return f"{shape} values, {least:.4g} to {greatest:.4g}, mean {mean:.4g}"


def summarize_raw(value: Array) -> dict[str, object]:
    """Return a raw tensor's shape and range, JSON-ready; its values too where they are as few as a line shows."""
    found = _finite_range(value)
    least, mean, greatest = (None, None, None) if found is None else found
    data: dict[str, object] = {"shape": list(value.shape), "min": least, "mean": mean, "max": greatest}
    if value.size > LISTED:
        return data
    numbers = [float(number) if np.isfinite(number) else None for number in value.ravel()]
    return data | {"values": numbers}


def _finite_range(value: Array) -> tuple[float, float, float] | None:
    finite = value[np.isfinite(value)]
    if not finite.size:
        return None
    return float(finite.min()), float(finite.mean(dtype=np.float64)), float(finite.max())


def class_shares(value: Array, labels: Sequence[str], unseen: int | None = None) -> dict[str, float]:
    """Return each present class's share of the pixels, the largest first; by its index where there are no labels.

    Pixels that the network has not seen are not counted.
    """
    seen = value.ravel() if unseen is None else value[value != unseen]
    if value.dtype == np.uint8:
        counts = dict(enumerate(np.bincount(seen, minlength=1).tolist()))
    else:  # in a graph that is not ours they may be anything
        counts = {int(index): int(count) for index, count in zip(*np.unique(seen, return_counts=True), strict=True)}
    order = sorted((index for index, count in counts.items() if count), key=lambda index: (-counts[index], index))
    return {labels[index] if 0 <= index < len(labels) else str(index): counts[index] / seen.size for index in order}


def depth_range(value: Array) -> tuple[float, float, float] | None:
    """Return the least, median and greatest finite value; None where there is none."""
    depth = value[np.isfinite(value)].astype(np.float32, copy=False)
    if not depth.size:
        return None
    return float(depth.min()), float(np.median(depth)), float(depth.max())


def mean_direction(value: Array) -> tuple[float, float, float]:
    """Return the unit vector along the sum of ``(H, W, 3)`` normals; zeros where they cancel out."""
    vectors = value.reshape(-1, 3)
    if not np.isfinite(total := vectors.sum(axis=0, dtype=np.float64)).all():
        total = vectors[np.isfinite(vectors).all(axis=1)].sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    x, y, z = (float(part) for part in (total / length if length > 0 else np.zeros(3)))
    return x, y, z
