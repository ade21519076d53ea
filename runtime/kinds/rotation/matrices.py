"""Rotation matrices: from six values, the nearest to nine values, and as angles.

Sources: six values: Zhou, Barnes, Lu, Yang, Li: On the Continuity of Rotation Representations in Neural Networks, CVPR 2019. The
nearest rotation: Levinson et al.: An Analysis of SVD for Deep Rotation Estimation, NeurIPS 2020. Angles: the matrix is
``Rz(roll) @ Ry(yaw) @ Rx(pitch)``, as in 6DRepNet (Hempel et al., ICIP 2022) and the labels of 300W-LP and AFLW2000 that it reads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

SHORTEST = 1e-8
"""Vectors are divided by no less than this, as in 6DRepNet."""
_LOCKED = 1e-6  # cosine of the yaw, below which pitch and roll turn about one axis


def from_six(values: Values, *, columns: bool) -> Values:
    """Return rotation matrices ``(N, 3, 3)`` from two vectors each.

    The first becomes unit length, the second unit length and at a right angle to it, and the third is their cross product.

    Args:
        values: ``(N, 6)``.
        columns: whether the vectors are columns of the matrix, otherwise its rows.
    """
    first = _unit(values[:, :3])
    second = values[:, 3:]
    second = _unit(second - (first * second).sum(axis=1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=2 if columns else 1)


def nearest(matrices: Values) -> Floats:
    """Return the rotation matrices that are nearest to matrices ``(N, 3, 3)``, float64; NaN where one is not finite."""
    found = np.full(matrices.shape, np.nan)
    finite = np.isfinite(matrices).all(axis=(1, 2))
    if finite.any():
        left, _, right = np.linalg.svd(matrices[finite].astype(np.float64))
        sign = np.sign(np.linalg.det(left @ right))
        left[:, :, 2] *= sign[:, None]
        found[finite] = left @ right
    return found


def angles(matrices: Values) -> Floats:
    """Return yaw, pitch and roll ``(N, 3)`` in degrees; at a yaw of 90 degrees, where they are not unique, the roll is 0."""
    r = np.asarray(matrices, np.float64)
    cosine = np.hypot(r[:, 0, 0], r[:, 1, 0])
    locked = cosine < _LOCKED
    yaw = np.arctan2(-r[:, 2, 0], cosine)
    pitch = np.where(locked, np.arctan2(-r[:, 1, 2], r[:, 1, 1]), np.arctan2(r[:, 2, 1], r[:, 2, 2]))
    roll = np.where(locked, 0.0, np.arctan2(r[:, 1, 0], r[:, 0, 0]))
    found: Floats = np.degrees(np.stack([yaw, pitch, roll], axis=1))
    return found


def from_angles(degrees: Values) -> Floats:
    """Return the rotation matrices ``(N, 3, 3)`` of yaw, pitch and roll ``(N, 3)`` in degrees."""
    yaw, pitch, roll = np.radians(np.asarray(degrees, np.float64)).T
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    (sy, sp, sr), (cy, cp, cr) = ([form(each) for each in (yaw, pitch, roll)] for form in (np.sin, np.cos))
    about_x = _matrices([one, zero, zero, zero, cp, -sp, zero, sp, cp])
    about_y = _matrices([cy, zero, sy, zero, one, zero, -sy, zero, cy])
    about_z = _matrices([cr, -sr, zero, sr, cr, zero, zero, zero, one])
    found: Floats = about_z @ about_y @ about_x
    return found


def apart(one: Values, other: Values) -> Floats:
    """Return the angles ``(N,)`` in degrees by which rotations ``(N, 3, 3)`` differ: the geodesic distance.

    It takes the arcsine of half the chord, which is exact for small angles; the arccosine of the trace is not. NaN stays NaN.
    """
    chord = np.linalg.norm(np.asarray(one, np.float64) - other, axis=(1, 2)) / (2 * np.sqrt(2))
    found: Floats = np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))
    return found


def _unit(vectors: Values) -> Values:
    lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    found: Values = vectors / np.maximum(lengths, vectors.dtype.type(SHORTEST))
    return found


def _matrices(entries: list[Floats]) -> Floats:
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)
