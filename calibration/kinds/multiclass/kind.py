"""One of several classes, judged by accuracy."""

from __future__ import annotations

from mtl_deploy.calibration.kinds.classes import ClassKind


class Multiclass(ClassKind):
    """As many classes as the network has outputs."""

    least = 0.02


KIND = Multiclass()
