from __future__ import annotations

from dataclasses import replace

import pytest

from mtl_deploy.runtime.bundle.schema import VERIFICATION
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.files.json_schema import check

ROW = Row("fp32.onnx", "age", 32, 1e-5, 1e-6, 1e-4, None)


@pytest.mark.parametrize("against", [None, "fp32.onnx"])
def test_the_record_has_every_figure_and_the_file_that_it_is_compared_with_where_there_is_one(
    against: str | None,
) -> None:
    record = replace(ROW, against=against).to_dict()
    assert set(record) | {"against"} == set(VERIFICATION["properties"])
    assert record.get("against") == against
    assert ("against" in record) == (against is not None)
    check(record, VERIFICATION)


def test_errors_beyond_what_is_allowed_and_nan_do_not_pass() -> None:
    assert ROW.passed
    assert not replace(ROW, excess=1.01).passed
    assert not replace(ROW, excess=float("nan")).passed
    assert not replace(ROW, structure_excess=float("nan")).passed
