"""Decoding against other people's arithmetic: torchvision's box coder, and the networks' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime.kinds.detection.boxes import decode_rows
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

SIZE = (64, 96)  # height, width


def rows(count: int, columns: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(2, count, columns)) * scale).astype(np.float32)


@pytest.mark.parametrize("form", ["xyxy", "cxcywh", "xywh"])
def test_coordinates_are_torchvisions(form: Any) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops import box_convert

    raw = np.abs(rows(9, 5))
    found = decode_rows(raw, DetectionOptions(format=form, classes=1), SIZE)
    wanted = box_convert(torch.tensor(raw[..., :4]), form, "xyxy").numpy()
    np.testing.assert_allclose(found[..., :4], wanted, rtol=1e-6)
    np.testing.assert_array_equal(found[..., 4], raw[..., 4])


def test_shares_become_pixels_and_y_before_x_is_turned_around() -> None:
    raw = np.array([[[0.25, 0.5, 0.75, 1.0, 0.9]]], np.float32)
    options = DetectionOptions(format="yxyx", normalized=True, classes=1)
    np.testing.assert_allclose(decode_rows(raw, options, SIZE)[0, 0, :4], [48, 16, 96, 48])


@pytest.mark.parametrize("variances", [(1.0, 1.0), (0.1, 0.2)])
def test_offsets_are_torchvisions_box_coder(variances: tuple[float, float]) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection._utils import BoxCoder

    raw = rows(50, 4 + 2 + 4)
    raw[..., 6:8] = raw[..., 6:8] * 30 + 40  # centres
    raw[..., 8:] = np.abs(raw[..., 8:]) * 20 + 4
    options = DetectionOptions(
        format="offsets", scores="softmax", background="last", variances=variances, anchors_file="a.npy", classes=1
    )
    found = decode_rows(raw, options, SIZE)
    coder = BoxCoder(weights=tuple(1 / variances[part] for part in (0, 0, 1, 1)), bbox_xform_clip=100.0)
    centre, extent = raw[0, :, 6:8], raw[0, :, 8:]
    anchors = torch.tensor(np.concatenate([centre - extent / 2, centre + extent / 2], axis=1))
    wanted = coder.decode_single(torch.tensor(raw[0, :, :4]), anchors).numpy()
    np.testing.assert_allclose(found[0, :, :4], wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[..., 4], torch.tensor(raw[..., 4:6]).softmax(-1)[..., 0], rtol=1e-5)


def test_offsets_with_y_first_are_the_same_with_columns_exchanged() -> None:
    raw = rows(20, 4 + 1 + 4)
    raw[..., 7:] = np.abs(raw[..., 7:]) + 1
    first = {"format": "offsets", "anchors_file": "a.npy", "classes": 1}
    turned = raw.copy()
    turned[..., :4] = raw[..., [1, 0, 3, 2]]
    plain = decode_rows(raw, DetectionOptions(**first), SIZE)  # type: ignore[arg-type]
    np.testing.assert_array_equal(plain, decode_rows(turned, DetectionOptions(**first, axes="yx"), SIZE))  # type: ignore[arg-type]


def test_retinafaces_landmarks_lie_at_their_anchors() -> None:
    """decode_landm of biubug6/Pytorch_Retinaface: prior centre + offset * variance * prior size."""
    raw = rows(7, 4 + 1 + 10 + 4)
    options = DetectionOptions(format="offsets", variances=(0.1, 0.2), anchors_file="a.npy", classes=1, landmarks=5)
    found = decode_rows(raw, options, SIZE)[..., 5:].reshape(2, 7, 5, 2)
    priors = raw[..., 15:]
    for point in range(5):
        wanted = priors[..., :2] + raw[..., 5 + 2 * point : 7 + 2 * point] * 0.1 * priors[..., 2:]
        np.testing.assert_allclose(found[..., point, :], wanted, rtol=1e-5, atol=1e-6)


def test_distributions_of_distances_are_their_expectation() -> None:
    torch = pytest.importorskip("torch")
    raw = rows(11, 64 + 3 + 3)
    raw[..., -1] = 8
    found = decode_rows(raw, DetectionOptions(format="ltrb", scores="sigmoid", strides=(8,), bins=16, classes=3), SIZE)
    spread = torch.tensor(raw[..., :64], dtype=torch.float64).view(2, 11, 4, 16).softmax(-1)
    distances = (spread * torch.arange(16.0, dtype=torch.float64)).sum(-1).numpy() * 8
    point = raw[..., -3:-1]
    wanted = np.concatenate([point - distances[..., :2], point + distances[..., 2:]], axis=-1)
    np.testing.assert_allclose(found[..., :4], wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[..., 4:], torch.tensor(raw[..., 64:67]).sigmoid(), rtol=1e-5)


def test_distances_and_landmarks_in_pixels_need_no_stride() -> None:
    raw = np.array([[[1, 2, 3, 4, 0.5, 5, 6, 20, 30, 8]]], np.float32)
    options = DetectionOptions(format="ltrb", distances="pixels", strides=(8,), classes=1, landmarks=1)
    assert decode_rows(raw, options, SIZE)[0, 0].tolist() == [19, 28, 23, 34, 0.5, 25, 36]
    options = DetectionOptions(format="ltrb", strides=(8,), classes=1, landmarks=1)
    assert decode_rows(raw, options, SIZE)[0, 0].tolist() == [12, 14, 44, 62, 0.5, 60, 78]


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def test_grid_cells_are_darknets_yolov5s_and_yoloxs() -> None:
    raw = rows(13, 4 + 1 + 2 + 5)
    raw[..., -5:-3] = np.round(raw[..., -5:-3]) * 16 + 160
    raw[..., -3] = 16
    raw[..., -2:] = [30, 61]
    corner, anchor = raw[..., -5:-3], raw[..., -2:]
    common: dict[str, Any] = {
        "scores": "sigmoid",
        "classes": 2,
        "strides": (16,),
        "parts": ("boxes+objectness+scores",),
    }
    anchors = (((30.0, 61.0),),)
    third = decode_rows(raw, DetectionOptions(format="yolov3", anchors=anchors, **common), SIZE)
    fifth = decode_rows(raw, DetectionOptions(format="yolov5", anchors=anchors, **common), SIZE)
    centre, extent = sigmoid(raw[..., :2]) * 16 + corner, np.exp(raw[..., 2:4]) * anchor
    np.testing.assert_allclose(third[..., :2], centre - extent / 2, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(third[..., 2:4], centre + extent / 2, rtol=1e-4, atol=1e-3)
    centre, extent = (sigmoid(raw[..., :2]) * 2 - 0.5) * 16 + corner, (sigmoid(raw[..., 2:4]) * 2) ** 2 * anchor
    np.testing.assert_allclose(fifth[..., :2], centre - extent / 2, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fifth[..., 2:4], centre + extent / 2, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fifth[..., 4:], sigmoid(raw[..., 4:5]) * sigmoid(raw[..., 5:7]), rtol=1e-5)
    last = decode_rows(raw[..., :-2], DetectionOptions(format="yolox", **common), SIZE)
    centre, extent = raw[..., :2] * 16 + corner, np.exp(raw[..., 2:4]) * 16
    np.testing.assert_allclose(last[..., :2], centre - extent / 2, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(last[..., 2:4], centre + extent / 2, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("background", "kept"), [("none", [0, 1, 2]), ("first", [1, 2]), ("last", [0, 1])])
def test_the_background_has_no_box(background: Any, kept: list[int]) -> None:
    raw = rows(5, 4 + 3)
    options = DetectionOptions(scores="softmax", background=background, classes=len(kept))
    powers = np.exp(raw[..., 4:].astype(np.float64))
    wanted = (powers / powers.sum(axis=-1, keepdims=True))[..., kept]
    np.testing.assert_allclose(decode_rows(raw, options, SIZE)[..., 4:], wanted, rtol=1e-5)


def test_saturated_scores_stay_probabilities() -> None:
    raw = np.array([[[0, 0, 1, 1, -200.0], [0, 0, 1, 1, 200.0]]], np.float32)
    found = decode_rows(raw, DetectionOptions(scores="sigmoid", classes=1), SIZE)[0, :, 4]
    assert found.tolist() == [0, 1]


def test_coefficients_pass_as_they_are_and_keypoints_keep_their_scores() -> None:
    raw = rows(3, 4 + 1 + 6 + 2)
    options = DetectionOptions(normalized=True, classes=1, keypoints=2, coefficients=2)
    found = decode_rows(raw, options, SIZE)
    np.testing.assert_array_equal(found[..., -2:], raw[..., -2:])
    np.testing.assert_array_equal(found[..., [7, 10]], raw[..., [7, 10]])
    np.testing.assert_allclose(found[..., [5, 6]], raw[..., [5, 6]] * [96, 64], rtol=1e-6)
