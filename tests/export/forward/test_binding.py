"""Tasks bound to what a network returns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_deploy.export.forward.binding import Binding, bind_tasks, refuse_entries
from mtl_deploy.export.forward.selected import Selected, as_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

AGE, GENDER = Task("age", "regression"), Task("gender", "binary")
RACE = Task("race", "multiclass", labels=("a", "b", "c"))


def tensor(*shape: int) -> torch.Tensor:
    return torch.randn(4, *shape)


BY_PLACE = (tensor(1), tensor(1), tensor(3))
BY_NAME = {"race": tensor(3), "gender": tensor(1), "age": tensor(1)}


def bind(tasks: tuple[Task, ...] | None, result: object, image: tuple[int, int] = (64, 64)) -> Binding:
    return bind_tasks(tasks, None, result, 4, image)


def bound(tasks: tuple[Task, ...], result: object) -> dict[str, tuple[object, int]]:
    return {task.name: (task.output, task.size) for task in bind(tasks, result).tasks}


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


def test_what_no_task_reads_is_left_out_and_named_in_one_line() -> None:
    result = {"age": tensor(1), "gender": tensor(1), "hidden": [tensor(8, 4, 4)] * 9, "epoch": 3, "loss": None}
    found = bind((AGE, GENDER), result)
    assert found.paths == ("age", "gender")
    assert len(found.left_out) == 11
    assert found.notes == (
        "11 outputs that no task reads left out: hidden.0, hidden.1, hidden.2, hidden.3, hidden.4, hidden.5, and 5 more",
    )


def test_place_counts_among_the_outputs_that_can_be_one() -> None:
    result = (3, tensor(1), None, tensor(1), torch.zeros(4, 2, dtype=torch.int64), torch.zeros(1, 30, 4), tensor(3))
    assert bound((AGE, GENDER, RACE), result) == {"age": (1, 1), "gender": (3, 1), "race": (6, 3)}


def test_a_path_leads_into_what_nests() -> None:
    result = {"det": [tensor(1), (tensor(3), tensor(5, 2))], "aux": tensor(7)}
    tasks = (Task("a", "regression", output="det.0"), Task("b", "raw", output="det.1.1"))
    found = bind(tasks, result)
    assert [(task.output, task.size, task.shape) for task in found.tasks] == [("det.0", 1, ()), ("det.1.1", 10, (5, 2))]


def test_one_tensor_serves_several_tasks_by_columns() -> None:
    packed = tensor(18)
    tasks = (Task("race", "multiclass", columns=(0, 7)), Task("gender", "binary", columns=(7, 9)))
    found = bind(tasks, packed)
    assert found.paths == (0,)
    assert [(task.output, task.size) for task in found.tasks] == [(0, 7), (0, 2)]
    assert torch.equal(as_task(found.tasks[1], packed), packed[:, 7:9])


def test_channels_of_a_map_are_columns_too() -> None:
    found = bind(
        (Task("seg", "segmentation", output=0, columns=(0, 3)), Task("depth", "depth", output=0, columns=(3, 4))),
        (tensor(4, 32, 32),),
    )
    assert [(task.size, task.stride) for task in found.tasks] == [(3, 2), (1, 2)]


def test_several_tasks_may_read_one_output() -> None:
    found = bind((Task("age", "regression", output=0), Task("as_is", "raw", output=0)), BY_PLACE)
    assert found.paths == (0,)
    assert found.left_out == ("1", "2")


def test_one_task_is_enough_and_shares_nothing() -> None:
    assert bind((RACE,), tensor(3)).notes == ("there is one task, so nothing is shared",)
    assert bind((Task("r", "multiclass", output=2),), BY_PLACE).tasks[0].size == 3


@pytest.mark.parametrize(
    ("kind", "shape", "size", "tail"),
    [
        ("regression", (), 1, (1,)),
        ("regression", (5, 2), 10, (10,)),
        ("multiclass", (3, 1, 1), 3, (3,)),
        ("depth", (32, 32), 1, (1, 32, 32)),
        ("segmentation", (5, 32, 32), 5, (5, 32, 32)),
        ("raw", (), 1, (1,)),
        ("raw", (30, 4), 120, (30, 4)),
        ("raw", (3, 8, 8, 6), 1152, (3, 8, 8, 6)),
    ],
)
def test_map_or_rows_is_decided_by_the_kind(
    kind: str, shape: tuple[int, ...], size: int, tail: tuple[int, ...]
) -> None:
    value = tensor(*shape)
    task = bind((Task("a", kind), GENDER), (value, tensor(1))).tasks[0]  # type: ignore[arg-type]
    assert task.size == size
    assert tuple(as_task(task, value).shape) == (4, *tail)


def test_the_networks_own_tasks_hold_until_others_are_given() -> None:
    defaults = (AGE, GENDER, RACE)
    assert [task.name for task in bind_tasks(None, defaults, BY_PLACE, 4).tasks] == ["age", "gender", "race"]
    own = (Task("a", "regression"), Task("b", "regression"), Task("c", "multiclass"))
    assert [task.name for task in bind_tasks(own, defaults, BY_PLACE, 4).tasks] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((AGE, GENDER, RACE, Task("hair", "multiclass")), "4 tasks, and 3 outputs of the network that can be one"),
        ((AGE, GENDER), "2 tasks, and 3 outputs .* which is task 'age'"),
        ((AGE, RACE, GENDER), "'race' is multiclass but the network returns 1 value"),
        ((AGE, GENDER, Task("race", "multiclass", labels=("a", "b"))), "2 labels but the network returns 3"),
        ((AGE, GENDER, Task("race", "multiclass", output=0)), "'age' and 'race' are both bound to output 0"),
        (
            (AGE, GENDER, Task("race", "multiclass", output=3)),
            r"task 'race': the network has no output 3; it returns 0 \(N, 1\)",
        ),
        ((AGE, GENDER, Task("race", "multiclass", output="race")), "no output 'race'"),
        (
            (AGE, GENDER, Task("race", "multiclass", output=2, columns=(1, 4))),
            r"columns \[1, 4\] of an output of shape \(N, 3\)",
        ),
        ((), "no task is given"),
    ],
    ids=[
        "too-many",
        "too-few",
        "wrong-kind",
        "wrong-labels",
        "shared",
        "past-the-end",
        "name-of-a-tuple",
        "columns",
        "none",
    ],
)
def test_tasks_that_do_not_fit_are_refused(tasks: tuple[Task, ...], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        bind(tasks, BY_PLACE)


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        (AGE, tensor(3, 8, 8), "a map of 8x8; declare it depth"),
        (RACE, tensor(30, 4), "one row of classes per image.*declare it raw"),
        (Task("d", "depth"), tensor(1), "is depth, one map per image"),
        (Task("d", "depth"), tensor(1, 7, 7), "not one whole stride"),
        (Task("d", "depth", columns=(0, 1)), tensor(8, 8), r"\(N, 8, 8\), which is one map per image"),
        (GENDER, tensor(40), "40 yes-or-no answers, declare it multilabel"),
    ],
)
def test_an_output_of_another_shape_is_refused(task: Task, value: torch.Tensor, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        bind((task, Task("other", "regression")), (value, tensor(1)))


def test_one_tensor_for_several_tasks_wants_columns() -> None:
    with pytest.raises(TaskError, match=r"one tensor \(N, 18\) for 2 tasks; give each task the 'columns'"):
        bind((AGE, GENDER), tensor(18))


def test_without_tasks_the_error_proposes_options_for_the_outputs_found() -> None:
    with pytest.raises(TaskError) as caught:
        bind(None, {"age": tensor(1), "skin tone": tensor(40), "boxes": tensor(30, 4), "det": [tensor(2)]})
    message = str(caught.value)
    assert (
        "--task age=regression --task task2=multiclass --task boxes=raw --task 'task4=multiclass;output=det.0'"
        in message
    )
    assert "several yes-or-no attributes in one output are multilabel" in message


def test_a_network_that_returns_one_entry_per_image_is_told_so() -> None:
    def detector(count: int) -> list[dict[str, torch.Tensor]]:
        return [{"boxes": torch.zeros(3 + place, 4)} for place in range(count)]

    with pytest.raises(TaskError, match=r"one entry per image \(a list, of boxes"):
        refuse_entries({2: detector(2), 5: detector(5)})
    refuse_entries({2: [tensor(1), tensor(1)], 5: [tensor(1), tensor(1)]})


def test_a_squeezed_batch_of_one_is_put_back() -> None:
    class Squeezing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"age": x.mean((1, 2, 3)).squeeze(), "race": x[:, :, 0, 0].squeeze()}

    selected = Selected(Squeezing(), ("race", "age"), ((3,), ()))
    race, age = selected(torch.ones(1, 3, 4, 4))
    assert (race.shape, age.shape) == ((1, 3), (1,))


@given(st.permutations(["a", "b", "c", "d"]), st.permutations(["a", "b", "c", "d"]))
def test_names_bind_whatever_the_orders_of_tasks_and_outputs(tasks: list[str], outputs: list[str]) -> None:
    sizes = {name: "abcd".index(name) + 2 for name in outputs}
    result = {name: tensor(size) for name, size in sizes.items()}
    found = bind(tuple(Task(name, "multiclass") for name in tasks), result).tasks
    assert [(task.name, task.output, task.size) for task in found] == [(name, name, sizes[name]) for name in tasks]
