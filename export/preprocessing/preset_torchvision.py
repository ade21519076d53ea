"""The preprocessing that torchvision's weights were evaluated with, from their own ``transforms()``. Nothing is downloaded."""

from __future__ import annotations

from typing import Any, cast

from mtl_deploy.export.options.images import INTERPOLATIONS, Channels
from mtl_deploy.runtime.bundle.preprocessing import Interpolation
from mtl_deploy.runtime.errors import OptionError

from .preset import Preset

LIBRARY = "torchvision"
_FORM = f"write {LIBRARY}:NAME_Weights.MEMBER, such as {LIBRARY}:ResNet50_Weights.IMAGENET1K_V2"


def torchvision_preset(text: str) -> Preset:
    """Return what the transform of published weights says.

    torchvision's presets are in its ``transforms/_presets.py``: ``ImageClassification`` resizes the shorter side and cuts out
    the centre, ``SemanticSegmentation`` resizes the shorter side, ``ObjectDetection`` only scales values to 0..1. PIL images are
    resized by Pillow, with antialiasing whatever ``antialias`` says.

    Args:
        text: ``torchvision:NAME_Weights.MEMBER``.

    Raises:
        OptionError: there are no such weights, or their transform cannot be expressed.
    """
    library, _, name = text.partition(":")
    if library != LIBRARY or not name:
        raise OptionError(f"--transform {text!r}: {_FORM}")
    weights = _find(text, name)
    transform = weights.transforms()
    kind = type(transform).__name__
    source = f"--transform {LIBRARY}:{weights}"
    if kind == "ObjectDetection":
        remark = "it does not resize, so --image-size and --fit are up to you"
        return Preset(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), source=source, remark=remark)
    if kind not in ("ImageClassification", "SemanticSegmentation"):
        raise OptionError(
            f"{source}: its transform {kind} does not resize and crop single images; say how images are prepared "
            "with --image-size, --fit, --resize-to, --interpolation, --mean and --std"
        )
    mode = transform.interpolation.value.replace("nearest-exact", "nearest")  # the same in Pillow
    lacking = {}
    if mode not in INTERPOLATIONS:
        lacking["interpolation"] = f"its interpolation {mode!r} is not one of {', '.join(INTERPOLATIONS)}"
    resize_to = transform.resize_size and tuple(map(int, transform.resize_size))
    crop = getattr(transform, "crop_size", resize_to)  # where nothing is cropped, the smallest input
    size = None if not crop else (int(crop[0]), int(crop[-1]))
    remark = ""
    if kind == "SemanticSegmentation":
        remark = (
            "it does not crop, so images of several shapes have several sizes; here the centre is cut out at one size "
            "(--image-size), or use --fit letterbox"
            if resize_to
            else "it does not resize, so --image-size and --fit are up to you"
        )
    return Preset(
        size=size,
        fit="crop" if resize_to else None,
        resize_to=resize_to or None,
        interpolation=cast("Interpolation", mode) if mode in INTERPOLATIONS else None,
        mean=cast("Channels", tuple(map(float, transform.mean))),
        std=cast("Channels", tuple(map(float, transform.std))),
        source=source,
        lacking=lacking,
        remark=remark,
        any_size=kind == "SemanticSegmentation",
    )


def _find(text: str, name: str) -> Any:
    """Look weights up by name."""
    try:
        from torchvision.models import get_weight
    except ImportError as error:
        raise OptionError(
            f"--transform {text!r} needs torchvision, which does not load ({error}): pip install torchvision"
        ) from error
    family, _, member = name.partition(".")
    try:
        return get_weight(name if member else f"{family}.DEFAULT")
    except KeyError:
        known = ", ".join(type(get_weight(f"{family}.DEFAULT")).__members__)
        raise OptionError(f"--transform {text!r}: {family} has no {member!r}; it has {known}") from None
    except (ValueError, TypeError):
        raise OptionError(
            f"--transform {text!r}: torchvision has no weights of this name; {_FORM} (torchvision.models.list_models and "
            "get_model_weights list them)"
        ) from None
