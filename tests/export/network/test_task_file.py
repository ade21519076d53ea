"""Task files, and tasks bound to a network's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_deploy.export.network.outputs import Key
from mtl_deploy.export.network.task_file import bind_tasks, read_task_file
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

FILE = """
# what the three heads mean
[[task]]
name = "age"
kind = "regression"
unit = "years"
scale = 100.0
output = 0

[[task]]
name = "gender"
kind = "binary"
labels = ["male", "female"]
threshold = 0.4

[[task]]
name = "race"
kind = "multiclass"
labels = ["White", "Black", "Asian", "Indian", "Other"]
output = "race_logits"
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "tasks.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_reads_every_field(tmp_path: Path, encoding: str) -> None:
    assert read_task_file(write(tmp_path, FILE.encode(encoding))) == (
        Task("age", "regression", unit="years", scale=100.0, output=0),
        Task("gender", "binary", labels=("male", "female"), threshold=0.4),
        Task("race", "multiclass", labels=("White", "Black", "Asian", "Indian", "Other"), output="race_logits"),
    )


TASK = '[[task]]\nname = "age"\nkind = "regression"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no task in it"),
        ("[[task]]\nname =\n", r"not valid TOML: .*line 2"),
        (b"name = '\xff'", "not UTF-8"),
        ('[[tasks]]\nname = "age"\n', r"unknown entry 'tasks'.*\[\[task\]\]"),
        ('[task]\nname = "age"\n', "not a list of tables"),
        ('task = ["age"]\n', "not a list of tables"),
        (TASK + "[[task]]\nkind = 'binary'\n", "task 2: field 'name' is missing"),
        (TASK + "colour = 'red'\n", "task 1: unknown field 'colour'"),
        (TASK + "labels = ['a', 'b']\n", "task 1: task 'age': a regression has a unit"),
        (TASK.replace("regression", "detection"), "task 1: task 'age': unknown kind 'detection'"),
        (TASK + "scale = 'big'\n", "task 1: scale: 'big' is not a number"),
        (TASK + TASK, "two tasks are called 'age'"),
        (TASK + "labels = 0.5\n", "task 1: labels: 0.5 is not a list"),
        (TASK + "labels = [1]\n", r"task 1: labels\[0\]: 1 is not text"),
        (TASK + f"scale = {'9' * 5000}\n", "not valid TOML|more than 64 bits"),
        (TASK + "size = 99999999999\n", "task 1: size: 99999999999 is more than"),
        (TASK + "scale = nan\n", r"task\[0\]\.scale: nan is not a finite number"),
        (TASK + "unit = 1979-05-27\n", "task 1: unit: datetime.date"),
        (TASK + f"labels = {'[' * 5000}{']' * 5000}\n", "nested"),
        (TASK + "threshold = 1979-99-99\n", "not valid TOML"),
    ],
    ids=lambda value: (
        "" if isinstance(value, bytes) else value.strip().splitlines()[-1][:60] if value.strip() else "empty"
    ),
)
def test_errors_name_file_table_and_field(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TaskError, match=message) as caught:
        read_task_file(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"nowhere\.toml: No such file"):
        read_task_file(tmp_path / "nowhere.toml")
    with pytest.raises(TaskError, match="Is a directory"):
        read_task_file(tmp_path)


AGE, GENDER = Task("age", "regression"), Task("gender", "binary")
RACE = Task("race", "multiclass", labels=("a", "b", "c"))
BY_PLACE: dict[Key, int] = {0: 1, 1: 1, 2: 3}
BY_NAME: dict[Key, int] = {"race": 3, "gender": 1, "age": 1}


def bound(tasks: tuple[Task, ...], sizes: dict[Key, int]) -> dict[str, tuple[Key | None, int]]:
    return {task.name: (task.output, task.size) for task in bind_tasks(tasks, None, sizes)}


def test_a_tuple_is_bound_by_place() -> None:
    assert bound((AGE, GENDER, RACE), BY_PLACE) == {"age": (0, 1), "gender": (1, 1), "race": (2, 3)}


def test_a_dict_is_bound_by_name_whatever_its_order() -> None:
    assert bound((AGE, GENDER, RACE), BY_NAME) == {"age": ("age", 1), "gender": ("gender", 1), "race": ("race", 3)}


def test_an_output_field_wins_over_name_and_place() -> None:
    tasks = (Task("gender", "regression", output="age"), Task("age", "binary", output="gender"), RACE)
    assert bound(tasks, BY_NAME) == {"gender": ("age", 1), "age": ("gender", 1), "race": ("race", 3)}


def test_a_position_names_an_output_of_a_dict() -> None:
    tasks = (Task("years", "regression", output=2), Task("sex", "binary", output=1), Task("r", "multiclass", output=0))
    assert bound(tasks, BY_NAME) == {"years": ("age", 1), "sex": ("gender", 1), "r": ("race", 3)}


def test_outputs_are_left_out_only_when_every_task_says_which_it_is() -> None:
    assert bound((Task("race", "multiclass", output=2),), BY_PLACE) == {"race": (2, 3)}
    with pytest.raises(TaskError, match=r"2 tasks \(age, gender\) for 3 outputs .*'output'"):
        bind_tasks((AGE, GENDER), None, BY_PLACE)


def test_the_networks_own_tasks_hold_until_others_are_given() -> None:
    defaults = (AGE, GENDER, RACE)
    assert [task.name for task in bind_tasks(None, defaults, BY_PLACE)] == ["age", "gender", "race"]
    own = (Task("a", "regression"), Task("b", "regression"), Task("c", "multiclass"))
    assert [task.name for task in bind_tasks(own, defaults, BY_PLACE)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((AGE, GENDER, RACE, Task("hair", "multiclass")), "4 tasks .* for 3 outputs of the network"),
        ((AGE, RACE, GENDER), "'race' is multiclass but the network returns 1 value"),
        ((AGE, GENDER, Task("race", "multiclass", labels=("a", "b"))), "2 labels but the network returns 3"),
        ((AGE, GENDER, Task("race", "multiclass", output=0)), "'age' and 'race' are both bound to output 0"),
        ((AGE, GENDER, Task("race", "multiclass", output=3)), "no output 3; its outputs are 0, 1, 2"),
        ((AGE, GENDER, Task("race", "multiclass", output=-1)), "no output -1"),
        ((AGE, GENDER, Task("race", "multiclass", output="race")), "no output 'race'"),
        ((), "no task is given"),
    ],
    ids=["too-many", "wrong-kind", "wrong-labels", "shared", "past-the-end", "negative", "name-of-a-tuple", "none"],
)
def test_tasks_that_do_not_fit_are_refused(tasks: tuple[Task, ...], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        bind_tasks(tasks, None, BY_PLACE)


def test_without_tasks_the_error_proposes_options_for_the_outputs_found() -> None:
    with pytest.raises(TaskError) as caught:
        bind_tasks(None, None, {"age": 1, "skin tone": 6})
    message = str(caught.value)
    assert "2 outputs ('age' of size 1, 'skin tone' of size 6)" in message
    assert "--task age=regression --task task2=multiclass" in message
    assert "--tasks FILE" in message


@given(st.permutations(["a", "b", "c", "d"]), st.permutations(["a", "b", "c", "d"]))
def test_names_bind_whatever_the_orders_of_tasks_and_outputs(tasks: list[str], outputs: list[str]) -> None:
    sizes: dict[Key, int] = {name: "abcd".index(name) + 2 for name in outputs}
    found = bind_tasks([Task(name, "multiclass") for name in tasks], None, sizes)
    assert [(task.name, task.output, task.size) for task in found] == [(name, name, sizes[name]) for name in tasks]
