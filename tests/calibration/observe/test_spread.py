from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.calibration.observe.spread import Spread, spread

RANDOM = np.random.default_rng(3)


def test_a_spread_holds_most_of_the_values_and_no_offset() -> None:
    values = 2005.5 + 0.4 * RANDOM.standard_normal((4000, 1))
    found = float(spread(values)[0])
    assert found == pytest.approx(1.6, rel=0.05)
    assert (np.abs(values - values.mean()) < found / 2).mean() == pytest.approx(0.954, abs=0.01)


def test_batches_add_up_even_far_from_zero() -> None:
    values = 1e6 + RANDOM.standard_normal((60, 3, 4, 5)) * np.array([1, 10, 100])[:, None, None]
    gathered = Spread()
    for start in range(0, 60, 7):
        gathered.add(values[start : start + 7])
    expected = 4 * values.std(axis=(0, 2, 3))
    np.testing.assert_allclose(gathered.each, expected, rtol=1e-9)
    np.testing.assert_allclose(gathered.pooled, [np.sqrt((expected**2).mean())], rtol=1e-9)
    np.testing.assert_allclose(gathered.largest, np.abs(values).max(axis=(0, 2, 3)))


def test_a_constant_has_no_spread() -> None:
    assert spread(np.full((9, 2), 0.1)).tolist() == [0.0, 0.0]
