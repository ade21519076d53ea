"""Somebody else's graph becomes ours: the same rows, a free batch where that changes none, and one line where it cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import given_graphs
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from mtl_deploy.export.network.given.load import LoadedGraph, load_graph
from mtl_deploy.export.network.given.take import take
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import MtlError

SIZE = given_graphs.SIZE
PLAIN = Preprocessing(height=SIZE, width=SIZE)
PIXELS = Preprocessing(height=SIZE, width=SIZE, mean=(0.0,) * 3, std=(1 / 255,) * 3)


def loaded(model: onnx.ModelProto, folder: Path) -> LoadedGraph:
    """Write and load a graph."""
    file = folder / "given.onnx"
    file.write_bytes(model.SerializeToString())
    return load_graph(file, (SIZE, SIZE), None)


def images(count: int, *, pixels: bool) -> torch.Tensor:
    """Return what a network takes."""
    random = np.random.default_rng(1)
    if pixels:
        return torch.from_numpy(random.integers(0, 256, (count, 3, SIZE, SIZE)).astype(np.float32))
    return torch.from_numpy(random.normal(size=(count, 3, SIZE, SIZE)).astype(np.float32))


def given_answers(model: onnx.ModelProto, tensor: torch.Tensor) -> dict[str, np.ndarray]:
    """Run the file itself, one image or one of its batches at a time, as nothing in the package does."""
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"  # which ONNX Runtime refuses twice
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = next(v for v in session.get_inputs())
    array = tensor.numpy()
    if image.shape[-1] == 3:
        array = array.transpose(0, 2, 3, 1)
    array = np.ascontiguousarray(array.astype(np.uint8 if image.type == "tensor(uint8)" else np.float32))
    batch = image.shape[0] if isinstance(image.shape[0], int) else 1
    repeated = np.repeat(array, batch, axis=0)
    names = [value.name for value in session.get_outputs()]
    rows = [session.run(names, {image.name: repeated[k : k + batch]}) for k in range(0, len(repeated), batch)]
    return {name: np.concatenate([row[place][:1] for row in rows]) for place, name in enumerate(names)}


def taken_answers(model: ir.Model, tensor: torch.Tensor) -> dict[str, np.ndarray]:
    """Run what was made of it."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: tensor.numpy()}), strict=True))


@pytest.mark.parametrize("style", given_graphs.RUNS)
def test_every_style_becomes_the_same_graph_with_a_free_batch(style: str, tmp_path: Path) -> None:
    model = given_graphs.RUNS[style]()
    found = loaded(model, tmp_path).graph
    taken = take(found, found.outputs, PIXELS if found.entry.pixels else PLAIN)
    assert taken.batch is None, taken.note
    assert taken.model.opset_imports[""] == 18
    assert list(taken.model.graph.inputs[0].shape or [])[1:] == [3, SIZE, SIZE]
    tolerance = 2e-3 if style == "half" else 1e-5  # the file itself rounds to FP16
    for count in (1, 3):
        tensor = images(count, pixels=style.startswith("pixels"))
        expected = given_answers(model, tensor)
        for name, array in taken_answers(taken.model, tensor).items():
            assert array.shape == expected[name].shape
            scale = float(np.abs(expected[name]).max())
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=tolerance * scale)


def resized() -> onnx.ModelProto:
    """Return a graph with a map that is resized twice: by scales, whose name is the one that the other would get, and to sizes."""
    tail = [
        onnx.helper.make_node("Resize", ["r2", "", "up_scales"], ["twice"], "by_scales", mode="nearest"),
        onnx.helper.make_node("Resize", ["r2", "", "", "up_sizes"], ["up"], "to_sizes", mode="nearest"),
        onnx.helper.make_node("GlobalAveragePool", ["twice"], ["mean"], "pool_twice"),
        onnx.helper.make_node("Add", ["up", "mean"], ["map"], "both"),
    ]
    more = {"up_scales": np.array([1, 1, 2, 2], np.float32), "up_sizes": np.array([1, 8, 32, 32])}
    outputs = [("age", onnx.TensorProto.FLOAT, [1, 1]), ("map", onnx.TensorProto.FLOAT, [1, 8, 32, 32])]
    return given_graphs.graph(batch=1, tail=tail, outputs=outputs, more=more)


def reshaped() -> onnx.ModelProto:
    """Return a graph that flattens by a constant of the name that an open shape would get."""
    flatten = [onnx.helper.make_node("Reshape", ["pooled", "features_shape"], ["features"], "flatten")]
    return given_graphs.graph(batch=1, flatten=flatten, more={"features_shape": np.array([1, 8])})


def renamed() -> onnx.ModelProto:
    """Return a graph whose outputs begin as names of a bundle's graph do, and so do values inside it."""
    model = given_graphs.pixels()
    others = {
        "age": "image_quality", "race": "decode_age", "mean": "preprocess.scale", "std": "network.given_image_0", "c1": "image0",
    }  # fmt: skip
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [others.get(name, name) for name in names]
    for named in (*model.graph.output, *model.graph.initializer):
        named.name = others.get(named.name, named.name)
    return model


@pytest.mark.parametrize("make", [resized, reshaped, renamed])
def test_names_that_a_graph_already_has_stay_apart_from_those_that_are_added(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    model = make()
    found = loaded(model, tmp_path).graph
    taken = take(found, found.outputs, PIXELS if found.entry.pixels else PLAIN)
    assert taken.batch is None, taken.note
    tensor = images(3, pixels=found.entry.pixels)
    expected, answers = given_answers(model, tensor), taken_answers(taken.model, tensor)
    assert set(answers) == set(found.outputs) == set(expected)
    for name, array in answers.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5 * np.abs(expected[name]).max())


def test_the_shape_of_a_map_behind_poolings_is_the_one_that_it_has(tmp_path: Path) -> None:
    pool = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}
    tail = [
        onnx.helper.make_node("MaxPool", ["r1"], ["p1"], "first", **pool),
        onnx.helper.make_node("AveragePool", ["p1"], ["map"], "second", **pool),
    ]
    image = ("x", onnx.TensorProto.FLOAT, ["N", 3, 34, 34])  # maps of 17, 9 and 5, where ONNX infers 10 and 6
    model = given_graphs.graph(image=image, tail=tail, outputs=[("map", onnx.TensorProto.FLOAT, ["N", 8, None, None])])
    found = loaded(model, tmp_path).graph
    taken = take(found, found.outputs, Preprocessing(height=34, width=34))
    tensor = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 34, 34)).astype(np.float32))
    [array] = taken_answers(taken.model, tensor).values()
    np.testing.assert_allclose(array, found(tensor)["map"].numpy(), rtol=0, atol=1e-6)
    assert array.shape[1:] == tuple(taken.model.graph.outputs[0].shape or ())[1:] == (8, 5, 5)


@pytest.mark.parametrize("style", given_graphs.STAYS)
def test_a_batch_stays_where_freeing_it_would_change_a_row(style: str, tmp_path: Path) -> None:
    model = given_graphs.STAYS[style]()
    found = loaded(model, tmp_path).graph
    taken = take(found, found.outputs, PLAIN)
    assert taken.batch == 1
    assert "stays" in taken.note
    tensor = images(1, pixels=False)
    for name, array in taken_answers(taken.model, tensor).items():
        np.testing.assert_allclose(array, found(tensor)[name].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("style", given_graphs.REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(style: str, tmp_path: Path) -> None:
    make, message = given_graphs.REFUSED[style]
    with pytest.raises(MtlError) as caught:
        loaded(make(), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "given.onnx" in str(caught.value)


@pytest.mark.parametrize(
    "style", [style for style in given_graphs.RUNS if style not in ("microsoft", "half", "upsampled 9")]
)
def test_float64_and_float32_agree(style: str, tmp_path: Path) -> None:
    found = loaded(given_graphs.RUNS[style](), tmp_path).graph
    tensor = images(3, pixels=style.startswith("pixels"))
    single, double = found(tensor), found(tensor.double())
    for name in found.outputs:
        assert double[name].dtype == torch.float64
        error = (single[name] - double[name]).abs().max()
        assert 0 < error <= 2e-6 * double[name].abs().max()


def test_free_sizes_stay_free(tmp_path: Path) -> None:
    image = ("x", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    model = given_graphs.graph(image=image)
    found = loaded(model, tmp_path).graph
    taken = take(found, found.outputs, Preprocessing(height=SIZE, width=SIZE, multiple=16))
    assert [str(side) for side in taken.model.graph.inputs[0].shape or []] == ["batch", "3", "height", "width"]
    tensor = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, 48, 64)).astype(np.float32))
    expected = given_answers(model, tensor)
    for name, array in taken_answers(taken.model, tensor).items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5 * np.abs(expected[name]).max())


def test_left_out_outputs_and_foreign_operators_are_named(tmp_path: Path) -> None:
    assert any("class (int64)" in note for note in loaded(given_graphs.leftovers(), tmp_path).notes)
    assert any("com.microsoft (1 Gelu)" in note for note in loaded(given_graphs.microsoft(), tmp_path).notes)
    assert any("FP16" in note for note in loaded(given_graphs.half(), tmp_path).notes)


def test_a_graph_that_needs_a_newer_opset_keeps_it(tmp_path: Path) -> None:
    middle = [onnx.helper.make_node("Gelu", ["features"], ["f"], "gelu")]
    found = loaded(given_graphs.graph(opset=20, ir_version=9, middle=middle), tmp_path).graph
    assert take(found, found.outputs, PLAIN).model.opset_imports[""] == 20
    assert take(found, found.outputs, PLAIN, opset=21).model.opset_imports[""] == 21
    with pytest.raises(MtlError, match="pass --opset 20"):
        take(found, found.outputs, PLAIN, opset=17)
