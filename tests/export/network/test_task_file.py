"""Task files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_deploy.export.network.task_file import read_task_file
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
output = "faces.0"
columns = [2, 7]
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
        Task(
            "race",
            "multiclass",
            labels=("White", "Black", "Asian", "Indian", "Other"),
            output="faces.0",
            columns=(2, 7),
        ),
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
        (TASK.replace("regression", "horoscope"), "task 1: task 'age': unknown kind 'horoscope'"),
        (TASK + "scale = 'big'\n", "task 1: scale: 'big' is not a number"),
        (TASK + TASK, "two tasks are called 'age'"),
        (TASK + "columns = [3]\n", "task 1: columns: a list of 1; expected 2"),
        (
            TASK + "columns = [4, 4]\n",
            r"task 1: task 'age': columns \[4, 4\]: give the first and the one after the last",
        ),
        (TASK + "columns = [-1, 4]\n", r"task 1: columns\[0\]: -1"),
        (TASK.replace("regression", "raw") + "labels = ['a', 'b']\n", "task 1: task 'age': a raw tensor has no labels"),
        (
            TASK.replace("regression", "raw") + "unit = 'm'\n",
            "task 1: task 'age': only a regression.* has a unit",
        ),
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
