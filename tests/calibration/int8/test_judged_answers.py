"""What FP32 answers is taken from the pass that observes ranges, for the images that it is asked for and no others."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.calibration.int8 import judged_answers
from mtl_deploy.calibration.int8.judged_answers import JudgedAnswers

OUTPUTS = {"age": np.arange(10.0)[:, None], "race": np.arange(30.0).reshape(10, 3)}


def test_rows_are_those_of_the_positions() -> None:
    answers = JudgedAnswers(np.array([0, 3, 4, 9]))
    for start in range(0, 10, 4):
        assert answers.outputs is None  # the pass has not ended
        answers.add({name: rows[start : start + 4] for name, rows in OUTPUTS.items()})
    assert answers.outputs is not None
    for name, rows in OUTPUTS.items():
        np.testing.assert_array_equal(answers.outputs[name], rows[[0, 3, 4, 9]])


def test_large_maps_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged_answers, "MOST", 100)
    answers = JudgedAnswers(np.arange(10))
    for start in range(0, 10, 2):
        answers.add({name: rows[start : start + 2] for name, rows in OUTPUTS.items()})
    assert answers.outputs is None


def test_outputs_without_a_row_per_image_are_not_kept() -> None:
    answers = JudgedAnswers(np.arange(2))
    answers.add({"anchors": np.zeros((5, 2)), "age": np.zeros((2, 1))})
    assert answers.outputs is None
