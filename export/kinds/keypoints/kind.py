"""Keypoints: heatmaps become points in the graph.

The position of a peak is right or wrong, so an error counts by its margin: by how much the heatmap is lower at the pixel that was
found, and how much the neighbours differ where it was moved the wrong way. Means under a softmax are numbers, judged as numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import ExportKind, Outputs, Scales, text
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.dense import in_half
from mtl_deploy.export.kinds.keypoints.nodes import Peaks
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.keypoints.heatmaps import is_inside, steps

if TYPE_CHECKING:
    import torch

ON_GRID = 1e-3  # pixels of a heatmap that a position may be off a quarter


class Keypoints(ExportKind):
    """Heatmaps ``(N, K, h, w)``, one per point."""

    def as_task(self, task: Task, value: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
        if value.ndim not in (3, 4):
            raise TaskError(
                f"task {task.name!r} is keypoints, one heatmap per point (N, K, h, w), but its output is {text(given)}; if "
                "these are coordinates, declare it vector or regression"
            )
        return value if value.ndim == 4 else value.unsqueeze(1)

    def changes(self, task: Task) -> bool:
        return True

    def decode(self, task: Task, chain: Chain) -> None:
        peaks = Peaks(task, chain)
        if task.options.decoding == "argmax":
            peaks.highest()
        else:
            peaks.mean()

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import pad

        count, points, height, width = raw.shape
        scores = raw.amax((2, 3))
        if task.options.decoding == "soft-argmax":
            shares = (task.options.beta * raw).flatten(2).softmax(2).unflatten(2, (height, width))
            grids = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            y, x = ((shares * grid).sum((2, 3)) for grid in grids)
            return torch.stack([task.stride * x, task.stride * y, scores], dim=2)
        place = raw.flatten(2).argmax(2)
        y, x = place // width, place % width
        around = pad(raw, (1, 1, 1, 1))
        images, maps = torch.arange(count)[:, None], torch.arange(points)[None]
        rise_x = around[images, maps, y + 1, x + 2] - around[images, maps, y + 1, x]
        rise_y = around[images, maps, y + 2, x + 1] - around[images, maps, y, x + 1]
        inside = (x >= 2) & (x <= width - 2) & (y >= 2) & (y <= height - 2)
        x, y = (at + 0.25 * torch.sign(rise) * inside for at, rise in ((x, rise_x), (y, rise_y)))
        return torch.stack([task.stride * x, task.stride * y, scores], dim=2).to(raw.dtype)

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        return Scales(apart=decoded)

    def view(self, task: Task, array: Outputs) -> Outputs:
        return array.reshape(len(array), -1) if array.ndim == 3 else array

    def by_margin(self, task: Task) -> bool:
        return bool(task.options.decoding == "argmax")

    def margins(self, task: Task, raw: Outputs) -> npt.NDArray[np.float16]:
        # the smaller difference of neighbours, -1 where a peak is not moved; how much lower pixels beside it, and all others, are
        height, width = raw.shape[2:]
        rows, columns = np.divmod(raw.reshape(*raw.shape[:2], -1).argmax(axis=2), width)
        rises = np.minimum(*(np.abs(step) for step in steps(raw, rows, columns)))
        rises = np.where(is_inside(rows, columns, height, width), rises, -1)
        found = np.zeros((*rows.shape, 3))
        for image, point in np.ndindex(rows.shape):
            lower = raw[image, point].max() - raw[image, point]
            row, column = rows[image, point], columns[image, point]
            near = np.zeros(lower.shape, bool)
            near[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
            far = lower[~near].min(initial=np.inf)
            near[row, column] = False
            beside = lower[near].min(initial=np.inf)
            found[image, point] = rises[image, point], min(beside, far), min(far, lower.max())
        return in_half(found)

    def lost(self, task: Task, found: Outputs, wanted: Outputs, raw: Outputs) -> Outputs:
        if found.shape != wanted.shape:
            return np.full(wanted.shape, np.inf)
        height, width = raw.shape[2:]
        cell, moved, sound = _on_grid(task, found, height, width)
        columns, rows = cell[..., 0], cell[..., 1]
        images, points = np.indices(rows.shape)
        inside = is_inside(rows, columns, height, width)[..., None]
        rises = np.stack(steps(raw, rows, columns), axis=2)
        meant = 0.25 * np.sign(rises) * inside
        cost = np.where(np.abs(moved - meant) > ON_GRID, np.where(inside, np.abs(rises), np.inf), 0.0)
        there = raw[images, points, rows, columns]
        lower = raw.max(axis=(2, 3)) - there
        score = np.abs(found[..., 2].astype(np.float64) - there)
        lost = np.concatenate([lower[..., None] + cost, score[..., None]], axis=2)
        return np.where(sound[..., None] & ~np.isnan(lost), lost, np.inf)

    def lost_margin(self, task: Task, found: Outputs, wanted: Outputs, margins: Outputs) -> Outputs:
        if found.shape != wanted.shape:
            return np.full(wanted.shape, np.inf)
        ours, moved, sound = _on_grid(task, found)
        theirs, meant, _ = _on_grid(task, wanted)
        apart = np.abs(ours - theirs).max(axis=2)
        rises, beside, far = np.moveaxis(margins.astype(np.float64), -1, 0)
        lower = np.where(apart == 0, 0.0, np.where(apart == 1, beside, far))
        wrong = (np.abs(moved - meant) > ON_GRID) & (apart == 0)[..., None]
        cost = np.where(wrong, np.where(rises < 0, np.inf, rises)[..., None], 0.0)
        score = np.abs(found[..., 2].astype(np.float64) - wanted[..., 2])
        lost = np.concatenate([lower[..., None] + cost, score[..., None]], axis=2)
        return np.where(sound[..., None] & ~np.isnan(lost), lost, np.inf)


def _on_grid(
    task: Task, points: Outputs, height: int | None = None, width: int | None = None
) -> tuple[npt.NDArray[np.intp], Outputs, npt.NDArray[np.bool_]]:
    """Return each point's column and row ``(N, K, 2)``, by how much it is moved from there, and whether a point can be so."""
    at = points[..., :2].astype(np.float64) / task.stride
    whole = np.rint(np.nan_to_num(at, nan=-9, posinf=-9, neginf=-9))
    moved = at - whole
    away = np.abs(moved)
    quarters = (away <= ON_GRID) | (np.abs(away - 0.25) <= ON_GRID)
    sound: npt.NDArray[np.bool_] = np.asarray((quarters & (whole >= 0)).all(axis=2))
    if height is not None and width is not None:
        last = np.array([width - 1, height - 1])
        sound = sound & (whole <= last).all(axis=2)
        whole = np.minimum(whole, last)
    cell: Any = np.maximum(whole, 0).astype(np.intp)
    return cell, moved, sound


KIND = Keypoints()
