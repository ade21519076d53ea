"""Values in a unit, judged by the mean absolute error."""

from __future__ import annotations

from mtl_deploy.calibration.kinds.values import ValueKind


class Regression(ValueKind):
    """Numbers as labels, several separated by spaces."""

    one_number = True
    corrects_mean = True


KIND = Regression()
