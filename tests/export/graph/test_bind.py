from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.export.graph.bind import bind_by_value
from mtl_deploy.runtime.errors import TraceError

RNG = np.random.default_rng(5)
AGE, GENDER, RACE = (RNG.standard_normal((4, size)).astype(np.float32) for size in (1, 1, 5))
REFERENCES = {"age": AGE, "gender": GENDER, "race": RACE}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_outputs_are_found_in_any_order(order: tuple[int, ...]) -> None:
    outputs = [list(REFERENCES.values())[i] for i in order]
    noise = [output + 1e-6 * RNG.standard_normal(output.shape) for output in outputs]

    assert [order[position] for position in bind_by_value(noise, REFERENCES)] == [0, 1, 2]


def test_a_flat_output_equals_a_column() -> None:
    assert bind_by_value([GENDER[:, 0], AGE[:, 0], RACE], REFERENCES) == [1, 0, 2]


def test_an_output_that_nothing_equals_is_named_with_the_figures() -> None:
    with pytest.raises(TraceError, match=r"task 'gender'.*differs by"):
        bind_by_value([AGE, GENDER + 0.5, RACE], REFERENCES)


def test_tasks_with_equal_values_are_refused() -> None:
    with pytest.raises(TraceError, match="'age' and 'gender' give the same values"):
        bind_by_value([AGE, AGE, RACE], {"age": AGE, "gender": AGE, "race": RACE})


def test_a_network_that_gives_nan_is_told_so() -> None:
    with pytest.raises(TraceError, match=r"task 'age'.*NaN"):
        bind_by_value([AGE, GENDER, RACE], {**REFERENCES, "age": AGE * np.nan})
