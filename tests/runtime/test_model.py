from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mtl_deploy.runtime import (
    BackendError,
    BundleError,
    ImageError,
    IntegrityError,
    Model,
    OptionError,
    RunError,
    TaskError,
)
from mtl_deploy.runtime import load as load_model
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend

MakeBundle = Callable[..., Path]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(params=["onnxruntime", "openvino"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, graphs_on: str) -> str:
    """Every test loads graphs on both, except for those about ONNX Runtime alone."""
    name = str(request.param)
    if name == "openvino":
        pytest.importorskip("openvino")
    if "openvino" in (name, graphs_on):
        monkeypatch.setitem(globals(), "load_model", partial(load_model, backend=name))
    return name


of_onnx_runtime = pytest.mark.parametrize("backend", ["onnxruntime"], indirect=True)


def expected(images: np.ndarray = IMAGES) -> dict[str, np.ndarray]:
    colour = images.mean((1, 2)) / 255
    race = np.exp(6 * colour)
    return {
        "age": 100 * colour[:, :1] + 1,
        "gender": 1 / (1 + np.exp(-4 * (colour[:, 1:2] - colour[:, 2:]))),
        "race": race / race.sum(1, keepdims=True),
    }


def check(found: dict[str, np.ndarray], images: np.ndarray = IMAGES) -> None:
    for task, values in found.items():
        np.testing.assert_allclose(values, expected(images)[task], rtol=1e-4)
        assert values.dtype == np.float32


def test_a_call_gives_the_outputs_of_all_tasks_in_order(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model:
        found = model(IMAGES)
    assert list(found) == ["age", "gender", "race"]
    check(found)


def test_predictions_have_values_labels_probabilities_and_units(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model:
        one, several = model.predict(IMAGES[0]), model.predict(IMAGES)
    truth = expected()
    assert one["age"].value == pytest.approx(truth["age"][0, 0], rel=1e-4)
    assert one["age"].unit == "years"
    assert one["race"].value == truth["race"][0].argmax()
    assert one["race"].label == "abc"[truth["race"][0].argmax()]
    assert one["gender"].probabilities is not None
    assert one["gender"].probabilities[1] == pytest.approx(truth["gender"][0, 0], rel=1e-4)
    assert len(several) == 5
    assert several[0] == one


@pytest.mark.parametrize("outputs", ["decoded", "logits"])
@pytest.mark.parametrize("image_input", ["uint8", "float"])
def test_predictions_do_not_depend_on_where_decoding_happens(
    make_bundle: MakeBundle, tmp_path: Path, outputs: str, image_input: str
) -> None:
    with load_model(make_bundle(tmp_path / "a.mtl", image_input=image_input)) as decoded:
        reference = decoded.predict(IMAGES)
    with load_model(make_bundle(tmp_path / "b.mtl", image_input=image_input, outputs=outputs)) as model:
        found = model.predict(IMAGES)
    for one, other in zip(found, reference, strict=True):
        assert one["race"].label == other["race"].label
        assert one["gender"].label == other["gender"].label
        assert one["age"].value == pytest.approx(other["age"].value, rel=1e-5)
        np.testing.assert_allclose(one["race"].probabilities, other["race"].probabilities, rtol=1e-4)


def test_any_way_to_pass_an_image_gives_the_same(make_bundle: MakeBundle, tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(IMAGES[0])
    picture.save(tmp_path / "image.png")
    with load_model(make_bundle()) as model:
        reference = model.predict(IMAGES[0])
        for image in (picture, tmp_path / "image.png", str(tmp_path / "image.png"), IMAGES[0][None][0]):
            assert model.predict(image) == reference
        mixed = model.predict([picture, np.zeros((20, 30, 3), np.uint8), tmp_path / "image.png"])
    assert mixed[0] == mixed[2] == reference
    assert mixed[1]["age"].value == pytest.approx(1.0)


def test_a_lone_graph_decodes_by_its_metadata(make_bundle: MakeBundle, tmp_path: Path) -> None:
    lone = tmp_path / "somewhere.onnx"
    lone.write_bytes((make_bundle() / "fp32.onnx").read_bytes())
    with load_model(lone) as model:
        assert model.artifact is None
        assert model.predict(IMAGES[0])["age"].unit == "years"


def test_a_graph_inside_a_bundle_is_checked_against_its_manifest(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    file = bundle / "separate" / "age.onnx"
    with load_model(file) as model:
        assert [task.name for task in model.tasks] == ["age"]
        assert model.artifact is not None
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match=r"age\.onnx: SHA-256 is"):
        load_model(file)


@pytest.mark.parametrize("damage", ["flip", "truncate", "swap"])
def test_a_changed_artifact_is_not_run(make_bundle: MakeBundle, damage: str) -> None:
    bundle = make_bundle()
    file = bundle / "fp32.onnx"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    file.write_bytes(
        {"swap": (bundle / "separate" / "age.onnx").read_bytes(), "truncate": content[:-9]}.get(damage, content)
    )
    with pytest.raises(IntegrityError, match="export again"):
        load_model(bundle)


@of_onnx_runtime
def test_the_precision_is_chosen_by_device_or_by_name(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    with load_model(bundle, providers=["CPU"]) as model:
        assert model.artifact is not None
        assert model.artifact.precision == "fp32"
    with load_model(bundle, precision="fp16") as model:
        assert model.artifact is not None
        assert model.artifact.path == "fp16.onnx"
    with pytest.raises(
        BackendError, match=r"has no int8 (artifact|graph); it has fp32\.onnx \(fp32, onnxruntime\), fp16"
    ):
        load_model(bundle, precision="int8")
    only_half = make_bundle(tmp_path / "half.mtl", precisions=("fp16",))
    with load_model(only_half) as model:
        check(model(IMAGES))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "tensorrt"}, BackendError, "no engine for TensorRT"),
        ({"providers": ["TPU"]}, BackendError, r"'TPU' is not available; .* has .*CPUExecutionProvider"),
        ({"providers": []}, BackendError, "no provider"),
        ({"threads": 0}, OptionError, "1 or more"),
        ({"tasks": ["shoe-size"]}, TaskError, "no task is called 'shoe-size'; the tasks are age, gender, race"),
        ({"tasks": "age"}, TaskError, "one string"),
        ({"tasks": []}, TaskError, "no task"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be_met(
    make_bundle: MakeBundle, options: dict[str, object], error: type[Exception], message: str, backend: str
) -> None:
    if backend == "openvino" and "providers" in options:
        error, message = OptionError, "providers are ONNX Runtime's"
    with pytest.raises(error, match=message):
        load_model(make_bundle(), **options)  # type: ignore[arg-type]


def test_what_is_no_bundle_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt.onnx").write_bytes(b"not a graph")
    (tmp_path / "picture.jpg").write_bytes(b"x")
    for name, message in {
        "empty": "not a bundle",
        "absent.mtl": "no such file or bundle",
        "corrupt.onnx": "not an ONNX file",
        "picture.jpg": "not a bundle",
    }.items():
        with pytest.raises(BundleError, match=message):
            load_model(tmp_path / name)
    with pytest.raises(OptionError, match="precision"):
        load_model(make_bundle() / "fp32.onnx", precision="fp16")


def test_a_graph_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    file = tmp_path / "foreign.onnx"
    opset = [helper.make_opsetid("", 17)]
    file.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    with pytest.raises(BundleError, match="without tasks in its metadata; export the network with mtl-export"):
        load_model(file)


@of_onnx_runtime
def test_a_subset_of_tasks_is_computed_alone(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's own profile lists the nodes that ran."""
    plain = onnxruntime.SessionOptions

    def profiled() -> onnxruntime.SessionOptions:
        options = plain()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        return options

    monkeypatch.setattr(onnxruntime, "SessionOptions", profiled)
    with load_model(make_bundle()) as model:
        check(model(IMAGES, tasks=("age", "gender")))
        backend = model.backend
        assert isinstance(backend, OnnxRuntimeBackend)
        profile = Path(backend._sessions[frozenset(("age", "gender"))].end_profiling())
    ran = [event["name"] for event in json.loads(profile.read_text()) if event["cat"] == "Node"]
    assert {head for head in ("age", "gender", "race") if any(head in name for name in ran)} == {"age", "gender"}


def test_tasks_can_be_chosen_at_loading_and_at_each_call(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    with load_model(bundle, tasks=("race", "age")) as model:
        assert [task.name for task in model.tasks] == ["age", "race"]
        assert set(model(IMAGES)) == {"age", "race"}
        assert set(model.predict(IMAGES[0], tasks=["race"])) == {"race"}
        with pytest.raises(TaskError, match="no task is called 'gender'; this model computes age, race"):
            model(IMAGES, tasks=("gender",))
        with pytest.raises(TaskError, match="one string"):
            model(IMAGES, tasks="age")


def test_outputs_can_go_into_the_callers_buffers(make_bundle: MakeBundle) -> None:
    buffer = np.full((5, 1), -1, np.float32)
    address = buffer.ctypes.data
    with load_model(make_bundle()) as model:
        found = model(IMAGES, out={"age": buffer})
        assert found["age"] is buffer
        assert buffer.ctypes.data == address
        check(found)
        model(255 - IMAGES, out={"age": buffer})
    np.testing.assert_allclose(buffer, expected(255 - IMAGES)["age"], rtol=1e-4)


@pytest.mark.parametrize(
    ("buffer", "error", "message"),
    [
        (np.zeros((5, 1)), ImageError, r"out\['age'\] is float64 \(5, 1\); expected float32 \(5, 1\)"),
        (np.zeros((4, 1), np.float32), ImageError, r"float32 \(4, 1\); expected float32 \(5, 1\)"),
        (np.zeros((10, 1), np.float32)[::2], ImageError, "C-contiguous"),
        (np.broadcast_to(np.float32(0), (5, 1)), ImageError, "C-contiguous and writable"),
    ],
    ids=["dtype", "shape", "strides", "read-only"],
)
def test_buffers_that_do_not_fit(
    make_bundle: MakeBundle, buffer: np.ndarray, error: type[Exception], message: str
) -> None:
    with load_model(make_bundle()) as model, pytest.raises(error, match=message):
        model(IMAGES, out={"age": buffer})


def test_a_buffer_for_a_task_that_is_not_computed(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model, pytest.raises(TaskError, match="buffer for 'race', which is not computed"):
        model(IMAGES, tasks=["age"], out={"race": np.zeros((5, 3), np.float32)})


def test_a_result_is_not_overwritten_by_later_calls(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model:
        first = model(IMAGES)
        kept = {task: values.copy() for task, values in first.items()}
        for _ in range(20):
            model(255 - IMAGES)
    for task, values in first.items():
        np.testing.assert_array_equal(values, kept[task])


def test_many_threads_can_call_one_model(make_bundle: MakeBundle) -> None:
    batches = [RNG.integers(0, 256, (1 + i % 4, 8, 8, 3), dtype=np.uint8) for i in range(16)]
    failures: list[BaseException] = []

    def work(model: Model, batch: np.ndarray) -> None:
        try:
            for _ in range(30):
                check(model(batch), batch)
                check(model(batch, out={"race": np.empty((len(batch), 3), np.float32)}), batch)
        except BaseException as error:  # noqa: BLE001 - passed on to the main thread
            failures.append(error)

    with load_model(make_bundle()) as model:
        threads = [threading.Thread(target=work, args=(model, batch)) for batch in batches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_graph_of_a_fixed_batch_pads_predictions_and_refuses_other_calls(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle(batch=4)) as model:
        with pytest.raises(ImageError, match="got a batch of 5; this artifact takes exactly 4"):
            model(IMAGES)
        found = model.predict(IMAGES)
        assert len(found) == 5
        assert found[4]["age"].value == pytest.approx(expected()["age"][4, 0], rel=1e-4)
        assert model.predict(IMAGES[2])["age"] == found[2]["age"]


def test_a_largest_batch_splits_predictions(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle(batch_max=2)) as model:
        with pytest.raises(ImageError, match="takes 1 to 2"):
            model(IMAGES)
        assert [row["age"].value for row in model.predict(IMAGES)] == pytest.approx(
            expected()["age"][:, 0].tolist(), rel=1e-4
        )


def test_throughput_runs_calls_at_once_with_the_same_answers(make_bundle: MakeBundle, backend: str) -> None:
    bundle = make_bundle(work=3)
    batches = [np.random.default_rng(seed).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8) for seed in range(4)]
    with load_model(bundle, threads=1) as model:
        expected = [model(batch) for batch in batches]
    with load_model(bundle, mode="throughput", threads=2) as model:
        assert model.backend.details.endswith("at once")
        wrong: list[int] = []

        def call(number: int) -> None:
            for _ in range(10):
                found = model(batches[number])
                if not all(np.allclose(found[task], expected[number][task], rtol=1e-5) for task in found):
                    wrong.append(number)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(len(batches))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    with pytest.raises(OptionError, match="mode='fast': use latency or throughput"):
        load_model(bundle, mode="fast")


def test_a_closed_model_says_so(make_bundle: MakeBundle) -> None:
    model = load_model(make_bundle())
    model.close()
    model.close()
    with pytest.raises(RunError, match="closed"):
        model(IMAGES)


def test_nothing_is_printed_when_a_bundle_is_loaded_and_run(make_bundle: MakeBundle) -> None:
    code = """
import sys, numpy
from mtl_deploy.runtime import load
with load(sys.argv[1]) as model:
    model.predict(numpy.zeros((8, 8, 3), numpy.uint8))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(make_bundle())], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("", "")


def test_a_model_describes_itself(make_bundle: MakeBundle, backend: str) -> None:
    library = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[backend]
    with load_model(make_bundle()) as model:
        assert repr(model).startswith(f"<Model fp32.onnx: age, gender, race; {library} ")
