"""Several precisions in step, on the real ONNX Runtime: the same figures as from all outputs at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dense_bundle import LABELS, SIZE, dense_graph, dense_signature, write_dense_bundle

from mtl_deploy.calibration.accuracy.evaluate import evaluate, relative_errors, stored
from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.accuracy.run import run_graph
from mtl_deploy.calibration.cli import main
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.dense_labels import LabelArray
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.tasks import Task

IMAGES = 20


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return synthetic_images(IMAGES, *SIZE, seed=0)


def truth(images: np.ndarray, graph: bytes, signature: object) -> dict[str, LabelArray]:
    """What the network says, with every tenth column unknown and depth 0.1 metres off."""
    outputs = run_graph(graph, images, signature.preprocessing)  # type: ignore[attr-defined]
    arrays = {
        "seg": np.where(np.arange(SIZE[1]) % 10 == 0, 255, outputs["seg"]),
        "depth": np.where(np.arange(SIZE[1]) % 10 == 0, np.nan, outputs["depth"] + 0.1),
        "normals": outputs["normals"].transpose(0, 2, 3, 1),
    }
    return {
        task.name: LabelArray(task, arrays[task.name], signature.preprocessing, "test")  # type: ignore[attr-defined]
        for task in signature.tasks  # type: ignore[attr-defined]
    }


def test_dense_figures_are_those_of_all_pixels_at_once(images: np.ndarray) -> None:
    signature = dense_signature()
    graph = dense_graph(signature)
    dense = truth(images, graph, signature)
    data = CalibrationData(images, {}, "test", dense=dense)
    outputs = run_graph(graph, images, signature.preprocessing)
    moved = {name: values.copy() for name, values in outputs.items()}
    moved["seg"][:, ::2] = (moved["seg"][:, ::2] + 1) % len(LABELS)
    moved["depth"] += 0.4
    moved["normals"] = -moved["normals"]
    found = evaluate({"fp32": graph, "moved": stored(moved)}, data, signature, threads=1)
    matrix = found.matrix
    right = matrix.cell("seg", "fp32").metrics
    assert right["mean_iou"] == right["pixel_accuracy"] == 1
    assert matrix.cell("depth", "fp32").metrics["rmse"] == pytest.approx(0.1, rel=1e-4)
    assert matrix.cell("depth", "moved").metrics["rmse"] == pytest.approx(0.3, rel=1e-4)
    assert matrix.cell("depth", "moved").drop == pytest.approx(0.2, rel=1e-3)
    assert matrix.cell("normals", "moved").metrics["mean_angle"] == pytest.approx(180, abs=0.1)
    assert matrix.cell("normals", "moved").unit == "degrees"
    half = matrix.cell("seg", "moved")
    assert half.agreement == pytest.approx(0.5)
    kind = kind_of(signature.tasks[0])
    straight = sum(kind.row(signature.tasks[0], moved["seg"][i], dense["seg"].read(i)) for i in range(IMAGES))
    assert half.metrics["mean_iou"] == pytest.approx(float(kind.total(signature.tasks[0], straight)["mean_iou"]))
    assert half.drop == pytest.approx(1 - half.metrics["mean_iou"])
    apart = found.apart["moved", "depth"]
    assert apart.mean == pytest.approx(0.4, rel=1e-4)
    assert apart.scale == pytest.approx(float(np.sqrt(2 / np.pi) * outputs["depth"].std()), rel=1e-4)
    assert not found.outputs["fp32"]  # no picture was kept
    text = matrix.text()
    assert "mean IoU, %" in text
    assert "RMSE, metres" in text
    assert "mean angular error, degrees" in text
    assert AccuracyMatrix.from_dict(matrix.to_dict()) == matrix


def test_raw_outputs_and_graphs_at_stride_are_brought_to_the_images_size(images: np.ndarray) -> None:
    decoded = dense_signature()
    data = CalibrationData(images, {}, "test", dense=truth(images, dense_graph(decoded), decoded))
    for options in ({"outputs": "logits"}, {"argmax": False}):
        signature = dense_signature(**options)
        matrix = evaluate({"fp32": dense_graph(signature)}, data, signature, threads=1).matrix
        assert matrix.cell("seg", "fp32").metrics["mean_iou"] > 0.999
        assert matrix.cell("depth", "fp32").metrics["rmse"] == pytest.approx(0.1, rel=1e-3)
        assert matrix.cell("normals", "fp32").metrics["mean_angle"] < 0.01
    small = dense_signature(upsample=False)
    matrix = evaluate({"fp32": dense_graph(small)}, data, small, threads=1).matrix
    assert 0.5 < matrix.cell("seg", "fp32").metrics["mean_iou"] < 1


def test_a_fixed_batch_gives_the_same(images: np.ndarray) -> None:
    signature = dense_signature()
    data = CalibrationData(images, {}, "test", dense=truth(images, dense_graph(signature), signature))
    any_batch = evaluate({"fp32": dense_graph(signature)}, data, signature, threads=1).matrix
    three = evaluate({"fp32": dense_graph(signature, 3)}, data, signature, batch=3, threads=1).matrix
    for one, other in zip(any_batch.cells, three.cells, strict=True):
        assert one.metrics == pytest.approx(other.metrics)


def test_without_truth_variants_are_compared_with_the_first(images: np.ndarray) -> None:
    signature = dense_signature()
    data = CalibrationData(images, {}, "test")
    matrix = evaluate({"fp32": dense_graph(signature), "same": dense_graph(signature)}, data, signature).matrix
    assert not matrix.labelled
    for cell in matrix.cells:
        assert (cell.drop, cell.metrics, cell.samples, cell.mean_error) == (None, {}, IMAGES, 0)
    assert matrix.cell("seg", "same").agreement == 1


def test_the_error_of_a_method_is_its_worst_task_relative_to_the_spread(images: np.ndarray) -> None:
    signature = dense_signature()
    graph = dense_graph(signature)
    assert relative_errors(graph, {"same": graph}, images, signature, threads=1) == {"same": 0.0}
    flipped = dense_graph(dense_signature(valid_range=(0.5, 1.0)))  # clips depth
    error = relative_errors(graph, {"clipped": flipped}, images, signature, threads=1)["clipped"]
    depth = run_graph(graph, images, signature.preprocessing)["depth"].astype(np.float64)
    expected = np.sqrt(np.mean((depth - depth.clip(0.5, 1.0)) ** 2)) / depth.std()
    assert error == pytest.approx(expected, rel=1e-4)


def test_a_dense_network_is_quantized_within_its_budgets(tmp_path: Path, images: np.ndarray) -> None:
    """Labels are what the network says in FP32: what INT8 loses is seen to the pixel."""
    bundle = write_dense_bundle(tmp_path / "dense.mtl")
    many = synthetic_images(96, *SIZE, seed=1)
    with load(bundle) as model:
        answers = model(many)
    labels = {
        "labels/seg": answers["seg"],
        "labels/depth": answers["depth"],
        "labels/normals": answers["normals"].transpose(0, 2, 3, 1),
    }
    np.savez(tmp_path / "data.npz", images=many, **labels)
    command = [str(bundle), "--calibration-data", str(tmp_path / "data.npz"), "-q", "--threads", "1"]
    assert main([*command, "-o", str(tmp_path / "free.mtl")]) == 0
    free = AccuracyMatrix.from_dict(open_bundle(tmp_path / "free.mtl").manifest.accuracy)
    assert free.cell("seg", "fp32").metrics["mean_iou"] == 1
    assert 0.9 < free.cell("seg", "int8-cpu").metrics["mean_iou"] < 1
    loses = {name: max(free.cell(name, v).drop or 0 for v in ("int8", "int8-cpu")) for name in ("depth", "normals")}
    assert 0 < loses["depth"] < 0.5
    assert 0 < loses["normals"] < 10
    budget = f"depth={loses['depth'] / 4:.4f},normals={loses['normals'] * 2:.4f}"
    assert main([*command, "-o", str(tmp_path / "kept.mtl"), "--max-drop", budget]) == 0
    manifest = open_bundle(tmp_path / "kept.mtl").manifest
    kept = AccuracyMatrix.from_dict(manifest.accuracy)
    assert (kept.cell("depth", "int8-cpu").drop or 0) < loses["depth"] / 2
    assert manifest.calibration["kept"]
    with load(tmp_path / "kept.mtl", precision="int8-cpu") as model:
        assert model(images)["seg"].dtype == np.uint8


def test_budgets_of_dense_tasks_are_in_their_own_units() -> None:
    from mtl_deploy.calibration.search.budgets import parse_budgets
    from mtl_deploy.runtime.errors import OptionError

    tasks = (
        Task("seg", "segmentation", size=3),
        Task("depth", "depth", unit="m", size=1),
        Task("normals", "normals", size=3),
    )
    found = parse_budgets("seg=1%,depth=10%,normals=0.5", tasks, {"depth": 0.4})
    assert found == pytest.approx({"seg": 0.01, "depth": 0.04, "normals": 0.5})
    with pytest.raises(OptionError, match="degrees"):
        parse_budgets("normals=3%", tasks)


def test_an_answer_that_does_not_look_at_the_image_is_as_far_off_as_the_guards_scale() -> None:
    """2005.5 give or take 0.4: beside the largest value, an INT8 head whose weights are zero would be a five-thousandth off."""
    from mtl_deploy.calibration.options import Int8Options
    from mtl_deploy.calibration.stage import verified
    from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
    from mtl_deploy.runtime.bundle.signature import Signature
    from mtl_deploy.runtime.errors import VerificationError

    years = (2005.5 + 0.4 * np.random.default_rng(0).standard_normal((40, 1))).astype(np.float32)
    signature = Signature((Task("year", "regression", size=1),), Preprocessing(8, 8))
    data = CalibrationData(synthetic_images(40, 8, 8, seed=0), {}, "test")
    answers = {
        "fp32": stored({"year": years}),
        "int8": stored({"year": np.full_like(years, years.mean())}),
        "int8-cpu": stored({"year": years + np.float32(0.1)}),
    }
    apart = evaluate(answers, data, signature).apart
    assert apart["int8", "year"].mean == pytest.approx(apart["int8", "year"].scale, rel=1e-3)
    with pytest.raises(VerificationError, match=r"int8\.onnx, task 'year'.*does not look at the image"):
        verified(apart, signature, Int8Options())
    answers["int8"] = answers["int8-cpu"]
    rows = verified(evaluate(answers, data, signature).apart, signature, Int8Options())
    assert [(row.artifact, row.against) for row in rows] == [("int8.onnx", "fp32.onnx"), ("int8-cpu.onnx", "fp32.onnx")]
    for row in rows:
        assert row.passed
        assert row.error == row.mean_error < row.tolerance
        assert row.excess == pytest.approx(row.mean_error / row.tolerance)
        assert row.to_dict()["against"] == "fp32.onnx"
