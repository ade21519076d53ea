"""Embeddings: whether pairs of images are told apart, and how far two networks' vectors turn from each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import Array, Floats, ImageLabels, Metric, Usual
from mtl_deploy.calibration.kinds.rows import RowKind
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.kinds.embedding.kind import of_unit_length

from .pairs import Pairs, array_pairs, checked, read_pairs
from .verification import area, drawn_shares, right_answers


class _Judged(NamedTuple):
    """Pairs whose images both are among some rows: rows of the two images, whether they show the same, cosines."""

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    same: npt.NDArray[np.bool_]
    cosines: Floats


class Embedding(RowKind):
    """A row is ``(2 + size + 3 * width,)``.

    It holds the image's number, the size, the vector at unit length, and the pairs as :meth:`.pairs.Pairs.read` returns them.
    """

    metrics = {"verification": Metric("verification accuracy"), "verification_auc": Metric("area under the ROC curve")}
    each_image = False
    one_value = "one vector for all images"

    def unit(self, task: Task) -> str:
        return "1 - cosine"

    def same_size(self, task: Task, other: Task) -> bool:
        return True  # vectors are compared within one network

    # ---- labels

    def find_labels(
        self, task: Task, folder: Path, root: Path, images: Sequence[Path], preprocessing: Preprocessing
    ) -> tuple[ImageLabels | None, tuple[str, ...]]:
        file = folder / f"{task.name}.csv"
        return read_pairs(file, images, (root, folder)) if file.is_file() else (None, ())

    def labels_from_array(
        self, task: Task, array: Array, preprocessing: Preprocessing, where: str, positions: npt.NDArray[np.intp]
    ) -> ImageLabels | None:
        found = Pairs(positions.astype(np.int64), checked(array_pairs(array, where), where))
        if not found.known.any():
            raise ImageError(
                f"{where}: none of its {len(array)} pairs has both of its images among the {len(found)} that are used"
            )
        return found

    # ---- answers

    def answers(self, task: Task, output: Array, signature: Signature) -> list[Any]:
        vectors = output.reshape(len(output), -1).astype(np.float64)
        return list(of_unit_length(vectors))

    def row(self, task: Task, answer: Any, truth: Any) -> Floats:
        return np.concatenate([truth[:1], [len(answer)], answer, truth[1:]])

    def has_truth(self, task: Task, rows: Floats) -> npt.NDArray[np.bool_]:
        return np.ones(len(rows), np.bool_)  # images without a pair have no row

    def measured(self, task: Task, rows: Floats) -> dict[str, float]:
        judged = _judged(rows)
        if not len(judged.same):
            return dict.fromkeys(self.metrics, float("nan"))
        right = float(right_answers(judged.cosines, judged.same).mean())
        if not np.isfinite(rows[:, _vectors(rows)]).all():
            right = float("-inf")  # NaN is no answer
        return {"verification": right, "verification_auc": area(judged.cosines, judged.same)}

    def drawn(self, task: Task, rows: Floats, counts: Floats) -> Floats:
        judged = _judged(rows)
        return drawn_shares(
            judged.cosines, judged.same, counts[:, judged.first]
        )  # a pair is drawn with its first image

    def apart(self, task: Task, answer: Any, reference: Any) -> tuple[float, float]:
        cosine = float(answer @ reference)
        away = np.inf if np.isnan(cosine) else max(1.0 - cosine, 0.0)
        return away, away

    def ends(self, task: Task, answer: Any) -> tuple[Array, Array]:
        return answer, answer

    def variation(self, task: Task) -> VariedVectors:
        return VariedVectors()

    def spread_row(self, task: Task, expected: Any, found: Any) -> Floats:
        return np.array([((expected - found) ** 2).sum(), *expected])

    def relative(self, task: Task, rows: Floats) -> float:
        spread = float(((rows[:, 1:] - rows[:, 1:].mean(axis=0)) ** 2).sum(axis=1).mean())
        return float(np.sqrt(rows[:, 0].mean())) / (np.sqrt(spread) or 1.0)

    def usual_rows(self, task: Task, rows: Floats) -> Usual | None:
        same = _judged(rows).same
        if not len(same) or same.all() or not same.any():
            return None
        found = rows.copy()
        found[:, _vectors(rows)] = 1 / np.sqrt(rows[0, 1])  # one vector for all
        word = "the same" if same.mean() >= 0.5 else "different"
        figure = self.measured(task, found)["verification"]
        return Usual(f"calling every pair {word}", found, 1 - figure, "verification accuracy", " points")


class VariedVectors:
    """How much unit vectors vary."""

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._count = 0

    def add(self, answer: Any) -> None:
        """Add a vector; one that is not finite does not count."""
        if np.isfinite(answer).all():
            self._sum = self._sum + answer
            self._count += 1

    @property
    def ignoring(self) -> float:
        """The mean of 1 minus the cosine with the mean direction."""
        return max(1.0 - float(np.linalg.norm(self._sum)) / max(self._count, 1), 0.0)


def _vectors(rows: Floats) -> slice:
    """Return the columns of the vectors."""
    return slice(2, 2 + int(rows[0, 1]))


def _judged(rows: Floats) -> _Judged:
    """Return the pairs among some rows, in the order of the file."""
    columns = _vectors(rows)
    numbers, vectors = rows[:, 0].astype(np.int64), rows[:, columns]
    pairs = rows[:, columns.stop :].reshape(len(rows), -1, 3)
    owner, slot = np.nonzero(~np.isnan(pairs[:, :, 0]))
    other, same, place = pairs[owner, slot].T
    order = np.argsort(numbers, kind="stable")
    found = np.searchsorted(numbers, other, sorter=order)
    found = order[np.minimum(found, len(order) - 1)]
    here = numbers[found] == other
    by_file = np.argsort(place[here], kind="stable")
    first, second = owner[here][by_file], found[here][by_file]
    cosines = (vectors[first] * vectors[second]).sum(axis=1)
    return _Judged(first, second, same[here][by_file] == 1, cosines)


KIND = Embedding()
