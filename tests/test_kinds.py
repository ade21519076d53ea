"""The registries of kinds: what one room has, the others have, under one name and with one meaning."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from mtl_deploy.calibration.kinds import registry as in_calibration
from mtl_deploy.calibration.kinds.base import Metric
from mtl_deploy.export.kinds import registry as in_export
from mtl_deploy.runtime.bundle.kinds.base import SHARED
from mtl_deploy.runtime.bundle.kinds.options import option_names, option_schemas
from mtl_deploy.runtime.bundle.kinds.registry import KINDS, task_kind
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task, task_schema
from mtl_deploy.runtime.files.json_schema import check

ROOT = Path(__file__).parents[1]
ROOMS = {"runtime": KINDS, "calibration": in_calibration.KINDS, "export": in_export.KINDS}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_every_kind_in_a_folder_of_its_name(room: str) -> None:
    assert list(ROOMS[room]) == list(KINDS)
    folders = {file.parent.name for file in (ROOT / room / "kinds").glob("*/kind.py")}
    assert folders == set(KINDS)
    for name, path in ROOMS[room].items():
        assert path == f"mtl_deploy.{room}.kinds.{name}.kind"
        assert import_module(path).KIND is not None


@pytest.mark.parametrize("name", KINDS)
def test_a_kinds_own_fields_are_told_apart_from_the_shared_ones(name: str) -> None:
    kind = task_kind(name)
    assert kind.name == name
    assert kind.takes <= set(SHARED)
    assert set(option_names(kind)).isdisjoint(field.name for field in fields(Task))
    for schema in option_schemas(kind).values():
        assert schema, "an option without a schema takes anything"


@pytest.mark.parametrize("name", KINDS)
def test_the_example_of_a_kind_is_a_task_that_its_record_gives_back(name: str) -> None:
    task = parse_task(f"x={task_kind(name).example}")
    assert task.kind == name
    record = task.to_dict()
    check(record, task_schema(task.of))
    assert Task.from_dict(record) == task


def test_a_metrics_key_means_the_same_in_every_kind() -> None:
    found: dict[str, Metric] = {}
    for name in in_calibration.KINDS:
        metrics = in_calibration.named(name).metrics
        assert metrics, f"{name} has no main metric"
        for key, metric in metrics.items():
            assert found.setdefault(key, metric) == metric, f"{key} of {name} is another metric elsewhere"
