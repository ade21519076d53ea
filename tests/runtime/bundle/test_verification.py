from __future__ import annotations

from dataclasses import replace

import pytest

from mtl_deploy.runtime.bundle.schema import VERIFICATION
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.files.json_schema import check

ROW = Row("fp32.onnx", "age", 32, 1e-5, 1e-6, 1e-4, None)


@pytest.mark.parametrize("given", [{}, {"against": "fp32.onnx"}, {"cut_from": "fp32.onnx"}])
def test_the_record_has_every_figure_and_names_other_files_only_where_there_are_any(given: dict[str, str]) -> None:
    record = replace(ROW, **given).to_dict()
    assert set(record) | {"against", "cut_from"} == set(VERIFICATION["properties"])
    assert {key: record[key] for key in ("against", "cut_from") if key in record} == given
    check(record, VERIFICATION)


def test_errors_beyond_what_is_allowed_and_nan_do_not_pass() -> None:
    assert ROW.passed
    assert not replace(ROW, excess=1.01).passed
    assert not replace(ROW, excess=float("nan")).passed
    assert not replace(ROW, structure_excess=float("nan")).passed
