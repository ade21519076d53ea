"""Raw tensors in the accuracy of precisions: compared with FP32, relative to their spread, without labels."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.calibration.accuracy.matrix import compare
from mtl_deploy.calibration.data.arrays import read_arrays
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.kinds.raw.kind import RELATIVE
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError

BOXES = Task("boxes", "raw", size=12, shape=(3, 4))


def data(count: int) -> CalibrationData:
    return CalibrationData(np.zeros((count, 8, 8, 3), np.uint8), {}, "zeros")


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_differences_are_shares_of_the_spread_whatever_the_unit(size: float) -> None:
    exact = size * np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    off = exact + np.float32(0.04 * size)  # a hundredth of four standard deviations
    matrix = compare({"fp32": {"boxes": exact}, "int8": {"boxes": off}}, data(64), [BOXES], decoded=True)
    cell = matrix.cell("boxes", "int8")
    assert cell.unit == RELATIVE
    assert cell.mean_error == pytest.approx(0.01, rel=0.1)
    assert (cell.agreement, cell.drop) == (None, None)
    assert f"mean difference from fp32, {RELATIVE}" in matrix.text()


def test_labels_of_a_raw_tensor_are_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/data.npz"
    np.savez(path, **{"images": np.zeros((4, 8, 8, 3), np.uint8), "labels/boxes": np.zeros(4)})
    from pathlib import Path

    with pytest.raises(ImageError, match="labels/boxes: a raw tensor has no labels"):
        read_arrays(Path(path), Preprocessing(height=8, width=8), [BOXES], None, 0)
