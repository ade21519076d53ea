from __future__ import annotations

import pytest

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.html.metrics import METRICS, described
from mtl_deploy.bench.html.quality import accuracy
from mtl_deploy.calibration.kinds.registry import metric_of


@pytest.mark.parametrize("key", METRICS)
def test_a_metric_is_what_the_calibration_says_that_it_is(key: str) -> None:
    metric = metric_of(key)
    assert METRICS[key] == (metric.name, "share" if metric.share else "unit" if metric.has_unit else "ratio")


def test_a_metric_of_a_part_and_an_unknown_one() -> None:
    assert described("mae:left_eye.x", classes=False) == ("mean absolute error of left_eye.x", "unit")
    assert described("new", classes=True) == ("new", "share")
    assert described("new", classes=False) == ("new", "unit")


def test_a_share_is_in_percent_and_a_ratio_has_no_unit() -> None:
    def cell(task: str, variant: str, unit: str, drop: float, **metrics: float) -> dict[str, object]:
        ends = {"drop": drop, "drop_low": drop, "drop_high": drop}
        given = {"task": task, "variant": variant, "samples": 9, "metrics": metrics, "agreement": None, "unit": unit}
        return {**given, **ends, "mean_error": 0.01, "max_error": 0.1}

    cells = [cell("id", name, "1 - cosine", 0.02, verification=0.975) for name in ("fp32", "int8")]
    cells += [cell("points", name, "pixels", 0.003, nme=0.0512, mae=3.25) for name in ("fp32", "int8")]
    text = "".join(map(str, accuracy(At({"accuracy": {"cells": cells}}))))
    assert "id: verification accuracy, %" in text
    assert "97.5" in text
    assert "id: mean difference from fp32, 1 - cosine" in text
    assert "points: normalised mean error<" in text
    assert "points: mean absolute error, pixels" in text
    assert "+2" in text
