"""``--max-drop``: what each task may lose, in the unit of its metric."""

from __future__ import annotations

import pytest

from mtl_deploy.calibration.search.budgets import parse_budgets
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import OptionError

AGE = Task("age", "regression", unit="years")
GENDER = Task("gender", "binary")
RACE = Task("race", "multiclass")


def test_budgets_are_read_a_task_at_a_time() -> None:
    budgets = parse_budgets("age=0.1, gender=0.5%,race=0.02", [AGE, GENDER, RACE])
    assert budgets == pytest.approx({"age": 0.1, "gender": 0.005, "race": 0.02})
    assert parse_budgets("race=1%", [AGE, GENDER, RACE]) == pytest.approx({"race": 0.01})


def test_one_figure_stands_for_all_tasks() -> None:
    assert parse_budgets("0.5%", [GENDER, RACE]) == pytest.approx({"gender": 0.005, "race": 0.005})
    assert parse_budgets("0", [AGE, GENDER]) == {"age": 0.0, "gender": 0.0}


def test_percent_of_a_regression_is_of_its_own_error() -> None:
    assert parse_budgets("1%", [AGE, GENDER], {"age": 5.0}) == pytest.approx({"age": 0.05, "gender": 0.01})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agee=0.1", "no task is called 'agee'; the tasks are age, gender, race"),
        ("age=0.1,age=0.2", "named twice"),
        ("age=0.1,gender", "write TASK=FIGURE"),
        ("age=much", "'much' is not a figure"),
        ("age=-1", "0 or more"),
        ("age=nan", "not a figure"),
        ("age=inf", "not a figure"),
        ("age=", "not a figure"),
        ("", "not a figure"),
        ("age=1%", "needs labels; give it in years"),
        ("race=0.5", "write 0.5% for percentage points"),
    ],
)
def test_budgets_that_cannot_be_read_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_budgets(text, [AGE, GENDER, RACE])
