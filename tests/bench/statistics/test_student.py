from __future__ import annotations

import pytest

from mtl_deploy.bench.statistics.student import student_t


@pytest.mark.parametrize(  # National Institute of Standards and Technology: e-Handbook of Statistical Methods, section 1.3.6.7.2
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (9, 2.262), (10, 2.228), (15, 2.131), (30, 2.042), (100, 1.984)]
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_t(degrees) == pytest.approx(quantile, abs=0.0006)


@pytest.mark.parametrize(
    ("degrees", "share", "quantile"), [(4, 0.8, 0.941), (30, 0.9, 1.310), (2, 0.2, -1.061), (1, 0.5, 0.0)]
)
def test_other_quantiles_are_those_of_the_tables(degrees: int, share: float, quantile: float) -> None:
    assert student_t(degrees, share) == pytest.approx(quantile, abs=0.0006)


def test_degrees_need_not_be_whole() -> None:
    assert student_t(2) > student_t(2.5) > student_t(3)
    assert student_t(1e6) == pytest.approx(1.962, abs=0.002)
