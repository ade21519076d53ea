"""What the metrics in a bundle's manifest are called, and whether they are shares: the calibration that measured them says so."""

from __future__ import annotations

from typing import Literal

Form = Literal["share", "unit", "ratio"]
"""In percent, in the task's unit, or without one."""

METRICS: dict[str, tuple[str, Form]] = {
    "mae": ("mean absolute error", "unit"),
    "accuracy": ("accuracy", "share"),
    "balanced_accuracy": ("balanced accuracy", "share"),
    "f1": ("F1", "share"),
    "mean_accuracy": ("mean accuracy", "share"),
    "mean_ap": ("mAP", "share"),
    "mean_iou": ("mean IoU", "share"),
    "pixel_accuracy": ("pixel accuracy", "share"),
    "iou": ("IoU", "share"),
    "dice": ("Dice", "share"),
    "rmse": ("RMSE", "unit"),
    "abs_rel": ("mean relative error", "share"),
    "within_1.25": ("within a factor of 1.25", "share"),
    "mean_angle": ("mean angular error", "unit"),
    "within_11.25": ("within 11.25 degrees", "share"),
    "within_22.5": ("within 22.5 degrees", "share"),
    "within_30": ("within 30 degrees", "share"),
    "nme": ("normalised mean error", "ratio"),
    "spread_error": ("mean error over the labels' spread", "ratio"),
    "point_distance": ("mean distance of points", "unit"),
    "geodesic": ("mean geodesic error", "unit"),
    "mae_yaw": ("mean absolute error of yaw", "unit"),
    "mae_pitch": ("mean absolute error of pitch", "unit"),
    "mae_roll": ("mean absolute error of roll", "unit"),
    "pck": ("PCK", "share"),
    "oks": ("OKS", "share"),
    "map": ("mAP 50:95", "share"),
    "map_50": ("mAP 50", "share"),
    "verification": ("verification accuracy", "share"),
    "verification_auc": ("area under the ROC curve", "share"),
}


def described(key: str, *, classes: bool) -> tuple[str, Form]:
    """Return a metric's name and form; of ``KEY:PART``, those of ``KEY`` with the part.

    Args:
        key: as in the manifest.
        classes: whether the task has classes, whose unknown metrics are taken for shares.
    """
    word, _, part = key.partition(":")
    name, form = METRICS.get(word, (word, "share" if classes else "unit"))
    return f"{name} of {part}" if part else name, form
