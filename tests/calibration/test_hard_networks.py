"""What the networks of the end-to-end tests are like, shown with ONNX Runtime's own quantizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

if TYPE_CHECKING:
    from hard_networks import Deployed

Run = Callable[..., dict[str, np.ndarray]]


class Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(images, 8))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def min_max(network: Deployed, folder: Path, *, symmetric: bool) -> onnx.ModelProto:
    """Quantize by plain min-max per tensor, weights per channel."""
    quantize_static(
        network.bundle / "fp32.onnx",
        folder / "int8.onnx",
        Reader(network.calibration.images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    return onnx.load(folder / "int8.onnx")


def drops(network: Deployed, folder: Path, run: Run, *, symmetric: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Return the scores in FP32, and what INT8 loses of each."""
    from hard_networks import scores

    held_out = network.evaluation
    before = scores(held_out, run(onnx.load_from_string(network.content), held_out.images))
    after = scores(held_out, run(min_max(network, folder, symmetric=symmetric), held_out.images))
    loss = {task: (after[task] - before[task]) * (1 if task == "ink" else -1) for task in before}
    print({task: f"{before[task]:.4f}, drop {loss[task]:+.4f}" for task in before})
    return before, loss


def test_uneven_scales_and_the_outlier_leave_the_answers_as_they_were() -> None:
    import hard_networks

    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mobile, plain = hard_networks.mobile().eval(), hard_networks.plain().eval()
    with torch.inference_mode():
        before = [*mobile(images), *plain(images)]
    hard_networks.unbalance(mobile.backbone[0], range(4, 7))
    hard_networks.add_outlier(plain, images)
    with torch.inference_mode():
        after = [*mobile(images), *plain(images)]
        hidden = plain.ink[:2](plain.backbone(images)).amax(0).sort().values
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-5)
    assert hidden[-1] / hidden[-2] == pytest.approx(hard_networks.OUTLIER, rel=1e-3)
    scales = mobile.backbone[0][5].conv[-1].weight
    assert 30 < scales.max() / scales.min() <= hard_networks.UNEVEN


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
def test_min_max_costs_the_mobile_network_three_points_of_digits_and_a_tenth_of_ink(
    symmetric: bool, digits_mobile: Deployed, tmp_path: Path, run: Run
) -> None:
    before, loss = drops(digits_mobile, tmp_path, run, symmetric=symmetric)
    assert before["digit"] > 0.95
    assert before["parity"] > 0.97
    assert before["ink"] < 3
    assert loss["digit"] > 0.03
    assert loss["ink"] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
def test_min_max_costs_the_outliers_head_alone(
    symmetric: bool, digits_outlier: Deployed, tmp_path: Path, run: Run
) -> None:
    before, loss = drops(digits_outlier, tmp_path, run, symmetric=symmetric)
    assert before["ink"] < 2
    assert loss["ink"] > 0.5
    assert abs(loss["digit"]) < 0.01
    assert abs(loss["parity"]) < 0.01


@pytest.mark.slow
def test_min_max_hardly_costs_the_demo_network_anything(digits_resnet: Deployed, tmp_path: Path, run: Run) -> None:
    before, loss = drops(digits_resnet, tmp_path, run, symmetric=False)
    assert before["digit"] > 0.95
    assert before["parity"] > 0.97
    assert before["ink"] < 3
    assert loss["digit"] < 0.02
    assert loss["parity"] < 0.02
