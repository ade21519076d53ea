"""Statistics are those of the graph's own tensors, over all batches, and what is not finite is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from mtl_deploy.calibration.graph.typed import with_outputs
from mtl_deploy.calibration.observe.statistics import TensorStatistics, observe
from mtl_deploy.runtime.errors import ImageError

TENSORS = ["pixels", "planes", "scaled", "normal", "stem", "stem_relu", "body", "sum", "sum_relu", "pool", "features"]


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 24])
def test_ranges_are_those_of_the_tensors(multi_head: Any, run: Any, photos: np.ndarray, opset: int) -> None:
    model = multi_head(opset)
    seen = observe(model, [photos], threads=1)
    actual = run(with_outputs(model, list(seen)), photos, optimize=False)
    assert set(seen) == set(actual) >= {*TENSORS, "age", "gender", "race"}
    for name, values in actual.items():
        assert seen[name].minimum == pytest.approx(values.min(), rel=1e-5, abs=1e-6), name
        assert seen[name].maximum == pytest.approx(values.max(), rel=1e-5, abs=1e-6), name
        assert seen[name].finite


def test_batches_are_merged(multi_head: Any, photos: np.ndarray) -> None:
    model = multi_head()
    together = observe(model, [photos], threads=1)
    apart = observe(model, (photos[i : i + 1] for i in range(len(photos))), threads=1)
    assert list(together) == list(apart)
    for name, one in together.items():
        assert (one.minimum, one.maximum) == pytest.approx(
            (apart[name].minimum, apart[name].maximum), rel=1e-5, abs=1e-6
        )


def test_weights_and_integers_are_left_out_and_float_inputs_are_in(
    multi_head: Any, sketch: Any, photos: np.ndarray
) -> None:
    model = multi_head()
    assert not {weight.name for weight in model.graph.initializer} & set(observe(model, [photos]))
    assert "image" not in observe(model, [photos])
    graph = sketch(image="float", size=4)
    model = graph.model({graph.node("Relu", "image", name="y"): ("batch", 3, 4, 4)})
    image = np.linspace(-3, 5, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    assert observe(model, [image]) == {"image": TensorStatistics(-3, 5), "y": TensorStatistics(0, 5)}


@pytest.mark.parametrize("position", [0, 17, -1], ids=["first", "inside", "last"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_what_is_not_finite_is_named_wherever_it_stands(sketch: Any, value: float, position: int) -> None:
    graph = sketch(image="float", size=4)
    graph.node("Add", "image", graph.weight("one", np.float32(1)), name="more")
    graph.node(
        "Clip", "image", graph.weight("low", np.float32(-1)), graph.weight("high", np.float32(1)), name="clipped"
    )
    model = graph.model({"more": ("batch", 3, 4, 4), "clipped": ("batch", 3, 4, 4)})
    sound = np.full((1, 3, 4, 4), 0.5, np.float32)
    broken = sound.copy()
    broken.ravel()[position] = value
    seen = observe(model, [sound, broken, sound])
    assert [seen[name].finite for name in ("image", "more", "clipped")] == [False, False, not np.isnan(value)]
    assert seen["more"].absmax == np.inf
    assert np.isnan(value) or seen["clipped"].absmax == 1


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf], ids=str)
def test_ranges_that_follow_from_others_are_those_of_the_tensors(sketch: Any, run: Any, value: float) -> None:
    graph = sketch(image="float", size=4)
    graph.node("Neg", "image", name="negative")
    graph.node("Relu", "negative", name="positive")
    graph.node("Relu", "image", name="own")
    graph.node("Flatten", "positive", name="flat")
    graph.node("Neg", "flat", name="last")
    graph.node("Relu", "last", name="nothing")
    model = graph.model({name: ("batch", *[None] * (3 if name == "own" else 1)) for name in ("own", "nothing")})
    image = np.linspace(-3, 5, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    image[0, 0, 0, 0] = value
    seen = observe(model, [image])
    assert list(seen) == ["image", "negative", "positive", "own", "flat", "last", "nothing"]
    actual = run(with_outputs(model, list(seen)), image, optimize=False)
    for name, values in actual.items():
        if not np.isnan(value):
            assert (seen[name].minimum, seen[name].maximum) == (values.min(), values.max()), name
            assert seen[name].finite == np.isfinite(values).all(), name
        else:
            assert not seen[name].finite


def test_the_graph_is_not_changed(multi_head: Any, photos: np.ndarray) -> None:
    model = multi_head()
    before = model.SerializeToString(deterministic=True)
    observe(model, [photos])
    with_outputs(model, ["stem"])
    assert model.SerializeToString(deterministic=True) == before


def test_no_batch_is_an_error(multi_head: Any) -> None:
    with pytest.raises(ImageError, match="at least one batch"):
        observe(multi_head(), [])


def test_inner_tensors_become_outputs(multi_head: Callable[..., onnx.ModelProto], run: Any, photos: np.ndarray) -> None:
    model = multi_head()
    wide = with_outputs(model, ["sum", "age", "stem"])
    onnx.checker.check_model(wide, full_check=True)
    outputs = run(wide, photos)
    assert list(outputs) == ["age", "gender", "race", "sum", "stem"]
    assert outputs["stem"].shape == (4, 8, 16, 16)
    for name, values in run(model, photos).items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-5)


@pytest.mark.parametrize("name", ["nowhere", "stem.weight", "image"])
def test_only_float_tensors_can_become_outputs(multi_head: Any, name: str) -> None:
    with pytest.raises(KeyError, match=name):
        with_outputs(multi_head(), [name])
