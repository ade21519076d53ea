"""What decides about the goals: figures with intervals, errors per task, photographs that differ."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.statistics.nested import Interval

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.mark.parametrize(
    ("value", "low", "high", "state"),
    [(1.0, 0.9, 1.2, "met"), (1.05, 1.01, 1.1, "undecided"), (1.05, 1.04, 1.06, "not met")],
)
def test_a_figure_above_its_goal_counts_by_its_interval(
    load: Any, value: float, low: float, high: float, state: str
) -> None:
    goals = load("goals")
    assert goals.at_most(Interval(value, low, high), 1.03) == state
    assert goals.at_least(Interval(1 / value, 1 / high, 1 / low), 1 / 1.03) == state


@pytest.mark.parametrize(
    ("figure", "bound", "state"),
    [
        (Interval(17, 15, 18), Interval(12, 11, 13), "met"),
        (Interval(15, 14, 17), Interval(12, 11, 13), "undecided"),
        (Interval(10, 9, 11), Interval(12, 11, 13), "out of reach here"),
        (Interval(10, 9, 11), Interval(15, 14, 17), "not met"),
        (Interval(10, 9, 11), Interval(18, 17, 19), "not met"),
    ],
)
def test_a_goal_is_out_of_reach_only_where_the_machine_cannot_reach_it(
    load: Any, figure: Interval, bound: Interval, state: str
) -> None:
    assert load("goals").within_reach(figure, bound, 16) == state


def test_the_chain_that_bounds_int8_computes_in_int8_and_as_much_as_asked(load: Any) -> None:
    openvino = pytest.importorskip("openvino")
    module = load("goal_peak")
    wanted = 1_000_000_000
    model = module.chain(openvino, module.pixels(wanted))
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes = [
        node
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_rt_info()["layerType"].value == "Convolution"
    ]
    assert {node.get_rt_info()["runtimePrecision"].value for node in nodes} <= {"u8", "i8"}
    done = sum(int(np.prod(node.get_output_shape(0))) * module.CHANNELS for node in nodes)
    assert len(nodes) == module.LAYERS
    assert done == pytest.approx(wanted, rel=0.01)


def test_errors_are_compared_task_by_task(load: Any) -> None:
    errors = load("goal_errors").Errors()
    rng = np.random.default_rng(0)
    for _ in range(40):
        exact = {"age": rng.standard_normal((1, 3)).astype(np.float32), "wall": rng.integers(0, 4, (1, 8, 8))}
        noise = rng.standard_normal((1, 3)).astype(np.float32)
        wrong = exact["wall"].copy()
        wrong[0, :2] += 1  # a quarter of the pixels
        errors.add(
            exact,
            {"age": exact["age"] + 0.2 * noise, "wall": wrong},
            {"age": exact["age"] + 0.1 * noise[:, ::-1], "wall": wrong},
        )
    age, wall = errors.ratio("age"), errors.ratio("wall")
    assert age.value == pytest.approx(2, rel=1e-4)
    assert 1.2 < age.low < 2 < age.high < 3
    assert (wall.value, wall.low, wall.high) == (1, 1, 1)
    rows = {row[0]: row[1:] for row in errors.rows()}
    assert rows["wall"] == ["pixels of another class", "25.00 %", "25.00 %"]
    assert 0.15 < float(rows["age"][1].split()[0]) / 100 < 0.25


def test_photographs_for_calibration_and_for_errors_differ(load: Any) -> None:
    photographs = load("goal_bundles").photographs
    first, second = photographs(4, 32, 48, seed=1), photographs(4, 32, 48, seed=2)
    assert first.shape == (4, 32, 48, 3)
    assert np.array_equal(first, photographs(4, 32, 48, seed=1))
    assert all(np.abs(one.astype(int) - other).mean() > 5 for one, other in zip(first, second, strict=True))


def test_residual_blocks_of_every_network_are_found(load: Any) -> None:
    bundles = load("goal_bundles")
    found = {
        key: sum(bundles.last_norm(part) is not None for part in bundles.fresh(key).modules())
        for key in bundles.networks()
    }
    assert found == {
        "resnet50": 16,
        "mobilenet_v2": 10,
        "mobilenet_v3_large": 10,
        "efficientnet_b0": 9,
        "refinenet": 10,
    }
    blocks = [part for part in bundles.fresh("resnet50").modules() if bundles.last_norm(part) is not None]
    assert all(bundles.last_norm(block) is block.bn3 for block in blocks)  # and not the shortcut's
