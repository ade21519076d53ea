"""torchvision's weights: the runtime makes the same pixels of an image as their own transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torchvision
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from mtl_deploy.export.options.images import Stated
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.export.preprocessing.preset_torchvision import torchvision_preset
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.images.loading import load_pixels, prepare
from tests.export.preprocessing.presets import PHOTO, RESNET


def weights_of(kind: str) -> list[Any]:
    """Return a member of torchvision's weights for each different transform of a kind."""
    found = {}
    for model in torchvision.models.list_models():
        for weights in torchvision.models.get_model_weights(model):
            transform = weights.transforms()
            if type(transform).__name__ == kind:
                found.setdefault(repr(transform), weights)
    return list(found.values())


def test_every_classifiers_transform_is_expressed_to_the_bit() -> None:
    different = weights_of("ImageClassification")
    assert len(different) > 20
    assert {weights.transforms().interpolation for weights in different} >= {
        InterpolationMode.BILINEAR,
        InterpolationMode.BICUBIC,
    }
    for weights in different:
        transform = weights.transforms()
        preprocessing, notes = combine(Stated(input="float"), torchvision_preset(f"torchvision:{weights}"))
        resized = Resize(transform.resize_size, interpolation=transform.interpolation)(PHOTO)
        pixels = np.asarray(CenterCrop(transform.crop_size)(resized))
        np.testing.assert_array_equal(load_pixels(PHOTO, preprocessing)[0], pixels, err_msg=str(weights))
        np.testing.assert_allclose(prepare(PHOTO, preprocessing)[0][0], transform(PHOTO).numpy(), atol=1e-5, rtol=1e-5)
        assert len(notes) == 1
        assert f"preprocessing from --transform torchvision:{weights}: image size " in notes[0]


def test_a_segmentations_transform_is_expressed_as_far_as_one_size_goes() -> None:
    (weights,) = weights_of("SemanticSegmentation")
    expected = weights.transforms()(PHOTO).numpy()
    preset = torchvision_preset(f"torchvision:{weights}")
    whole, notes = combine(Stated(input="float", size=expected.shape[1:]), preset)
    np.testing.assert_allclose(prepare(PHOTO, whole)[0][0], expected, atol=1e-5)
    assert len(notes) == 1
    assert "it does not crop" in notes[0]
    square, _ = combine(Stated(input="float"), preset)
    left = round((expected.shape[2] - 520) / 2)
    np.testing.assert_allclose(prepare(PHOTO, square)[0][0], expected[:, :, left : left + 520], atol=1e-5)


def test_a_detectors_transform_leaves_the_size_to_the_user() -> None:
    for weights in weights_of("ObjectDetection"):
        preprocessing, notes = combine(
            Stated(input="float", size=(333, 500)), torchvision_preset(f"torchvision:{weights}")
        )
        np.testing.assert_allclose(prepare(PHOTO, preprocessing)[0][0], weights.transforms()(PHOTO).numpy(), atol=1e-6)
        assert "does not resize" in notes[0]


@pytest.mark.parametrize("kind", ["VideoClassification", "OpticalFlow"])
def test_what_cannot_be_expressed_is_refused_by_name(kind: str) -> None:
    for weights in weights_of(kind):
        with pytest.raises(
            OptionError, match=rf"{weights}: its transform {kind} does not resize and crop single images"
        ):
            torchvision_preset(f"torchvision:{weights}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ResNet50_Weights.IMAGENET1K_V2", "write torchvision:NAME_Weights.MEMBER"),
        ("torchvision:", "write torchvision:NAME"),
        ("timm:resnet50", "write torchvision:NAME"),
        ("torchvision:ResNet50_Weights.IMAGENET21K", "has no 'IMAGENET21K'; it has IMAGENET1K_V1, IMAGENET1K_V2"),
        ("torchvision:ResNet5_Weights.DEFAULT", "no weights of this name"),
        ("torchvision:resnet50.DEFAULT", "no weights of this name"),
        ("torchvision:a.b.c", "no weights of this name"),
    ],
)
def test_names_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        torchvision_preset(text)


def test_weights_without_a_member_are_the_default_ones_by_name() -> None:
    assert torchvision_preset("torchvision:ResNet50_Weights").source == f"--transform {RESNET}"
