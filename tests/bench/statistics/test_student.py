from __future__ import annotations

import pytest

from mtl_deploy.bench.statistics.student import student_t


@pytest.mark.parametrize(  # National Institute of Standards and Technology: e-Handbook of Statistical Methods, section 1.3.6.7.2
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (9, 2.262), (10, 2.228), (15, 2.131), (30, 2.042), (100, 1.984)]
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_t(degrees) == pytest.approx(quantile, abs=0.03)
