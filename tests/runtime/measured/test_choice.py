"""What ``load`` takes of a bundle that was measured: real graphs on real backends, with times that a test sets."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured_bundles import USUAL, int8_bundle, run_of, write_measured

from mtl_deploy.runtime import FallbackWarning, load
from mtl_deploy.runtime.backends.openvino import backend as openvino_backend
from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, open_bundle
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.errors import BackendError, MtlWarning
from mtl_deploy.runtime.measured.choice import where_int8_does_not_pay
from mtl_deploy.runtime.measured.here import libraries, processor
from mtl_deploy.runtime.measured.record import Candidate
from mtl_deploy.runtime.selection import what_loads

pytest.importorskip("openvino")
BUSY = (1.0, 3.0, 0.4, 2.0, 0.5, 1.5, 0.3, 4.0, 0.9, 2.5)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle on a machine without a GPU whose processor is an x86: what decides without measurements is known then."""
    from mtl_deploy.runtime import selection
    from mtl_deploy.runtime.backends.onnxruntime import backend

    monkeypatch.setattr(selection.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(backend, "has_gpu", lambda: False)
    return int8_bundle(tmp_path / "model.mtl")


def loaded(bundle: Path, **options: Any) -> tuple[str, str, str]:
    """Return the graph, the backend, and why; the model answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load(bundle, **options)
    with model:
        of = model.signature.preprocessing
        answers = model(np.full((1, *of.input_shape), 99, np.uint8))
        assert all(np.isfinite(values).all() for values in answers.values())
        assert model.artifact is not None
        return model.artifact.path, model.backend.name, model.why


def taken(bundle: Path, **options: Any) -> tuple[str, str]:
    return loaded(bundle, **options)[:2]


def test_the_measured_best_is_taken_and_the_reason_has_the_figures(bundle: Path) -> None:
    assert taken(bundle, precision="int8") == ("int8-cpu.onnx", "openvino")
    write_measured(bundle, run_of(bundle))
    path, backend, why = loaded(bundle, precision="int8")
    assert (path, backend) == ("int8.onnx", "openvino")
    assert why == (
        "measured here: 1.8 ms, and int8-cpu.onnx on OpenVINO 2.15 ms (0.84 times, 99 % interval 0.84 to 0.84)"
    )
    slow = run_of(bundle, USUAL | {("int8-cpu.onnx", "onnxruntime"): 1.0})
    write_measured(bundle, slow)
    assert taken(bundle, precision="int8") == ("int8-cpu.onnx", "onnxruntime")


def test_each_backend_that_is_asked_for_gets_its_own_best(bundle: Path) -> None:
    write_measured(bundle, run_of(bundle))
    assert taken(bundle, precision="int8", backend="onnxruntime") == ("int8-cpu.onnx", "onnxruntime")
    assert taken(bundle, precision="int8", backend="openvino") == ("int8.onnx", "openvino")
    assert taken(bundle, precision="int8", providers=["CPU"]) == ("int8-cpu.onnx", "onnxruntime")
    write_measured(bundle, run_of(bundle, USUAL | {("int8.onnx", "onnxruntime"): 4.0}))
    assert taken(bundle, precision="int8", backend="onnxruntime") == ("int8.onnx", "onnxruntime")
    assert taken(bundle, precision="int8", providers=["CPU"]) == ("int8.onnx", "onnxruntime")


def test_fp32_runs_where_it_was_measured_to_be_faster_and_int8_never_unasked(bundle: Path) -> None:
    write_measured(bundle, run_of(bundle))
    path, backend, why = loaded(bundle)
    assert (path, backend) == ("fp32.onnx", "onnxruntime")
    assert why.endswith("; measured here: 4.4 ms, and nothing else was clearly faster")
    write_measured(bundle, run_of(bundle, USUAL | {("fp32.onnx", "openvino"): 3.0}))
    assert taken(bundle) == ("fp32.onnx", "openvino")
    assert taken(bundle, precision="fp32") == ("fp32.onnx", "openvino")
    assert taken(bundle, backend="onnxruntime") == ("fp32.onnx", "onnxruntime")
    assert taken(bundle, precision="fp16") == ("fp16.onnx", "onnxruntime")  # nobody measured it


def test_a_file_that_is_named_runs_on_the_backend_that_was_faster_for_it(bundle: Path) -> None:
    assert taken(bundle / "int8-cpu.onnx")[1] == "openvino"
    write_measured(bundle, run_of(bundle, USUAL | {("int8-cpu.onnx", "onnxruntime"): 1.0}))
    assert taken(bundle / "int8-cpu.onnx") == ("int8-cpu.onnx", "onnxruntime")
    assert taken(bundle / "int8.onnx") == ("int8.onnx", "openvino")
    assert taken(bundle / "int8-cpu.onnx", backend="openvino") == ("int8-cpu.onnx", "openvino")
    assert taken(bundle, precision="int8-cpu") == ("int8-cpu.onnx", "onnxruntime")


def test_noise_decides_nothing(bundle: Path) -> None:
    run = run_of(bundle)
    noisy = [
        replace(one, milliseconds=tuple(1.5 * share for share in BUSY)) if str(one) == "int8.onnx on OpenVINO" else one
        for one in run.candidates
    ]
    write_measured(bundle, replace(run, candidates=tuple(noisy)))
    path, backend, why = loaded(bundle, precision="int8")
    assert (path, backend) == ("int8-cpu.onnx", "openvino")
    assert why.endswith("; measured here: 2.15 ms, and nothing else was clearly faster")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"processor": replace(processor(), name="Other 9000")}, "is of another processor (Other 9000, "),
        ({"processor": replace(processor(), cores=processor().cores + 1)}, "is of another processor"),
        ({"processor": replace(processor(), instructions="0" * 16)}, "is of another processor"),
        ({"processor": replace(processor(), machine="riscv64")}, "is of another processor"),
        ({"libraries": libraries() | {"openvino": "2024.4.0"}}, "is of other libraries (ONNX Runtime "),
        ({"libraries": libraries() | {"onnxruntime": "1.20.0"}}, "is of other libraries (ONNX Runtime 1.20.0 and "),
        ({"libraries": {"onnxruntime": libraries().get("onnxruntime", "")}}, "is of other libraries"),
        ({"threads": 3}, "was measured with 3 threads"),
        ({"candidates": ()}, "holds no measurement of int8-cpu.onnx"),
    ],
)
def test_another_machine_s_measurement_does_not_count_and_the_reason_says_so(
    bundle: Path, changes: dict[str, Any], word: str
) -> None:
    write_measured(bundle, run_of(bundle, **changes))
    path, backend, why = loaded(bundle, precision="int8")
    assert (path, backend) == ("int8-cpu.onnx", "openvino")
    assert f"; {MEASURED_FILE} {word}" in why


def test_a_machine_s_own_measurement_counts_among_others_and_the_newest_first(bundle: Path) -> None:
    elsewhere = run_of(bundle, processor=replace(processor(), name="Other 9000"))
    older = run_of(bundle, USUAL | {("int8.onnx", "openvino"): 7.0})
    write_measured(bundle, older, run_of(bundle), elsewhere)
    assert taken(bundle, precision="int8") == ("int8.onnx", "openvino")


def test_another_release_of_a_library_that_is_not_asked_for_changes_nothing(bundle: Path) -> None:
    write_measured(bundle, run_of(bundle, libraries=libraries() | {"onnxruntime": "1.20.0"}))
    assert taken(bundle, precision="int8", backend="openvino") == ("int8.onnx", "openvino")
    assert taken(bundle, precision="int8") == ("int8-cpu.onnx", "openvino")


def test_it_counts_for_the_threads_that_it_was_measured_with(bundle: Path) -> None:
    write_measured(bundle, run_of(bundle, threads=1))
    assert taken(bundle, precision="int8", threads=1) == ("int8.onnx", "openvino")
    assert "was measured with 1 thread" in loaded(bundle, precision="int8")[2]
    write_measured(bundle, run_of(bundle))
    assert "was measured with its default number" in loaded(bundle, precision="int8", threads=1)[2]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mode": "throughput"}, "as mode='throughput' was not measured"),
        ({"arithmetic": "f32"}, "as arithmetic='f32' was not measured"),
    ],
)
def test_what_was_not_measured_is_not_chosen_by_it(bundle: Path, options: dict[str, Any], word: str) -> None:
    write_measured(bundle, run_of(bundle, USUAL | {("int8-cpu.onnx", "onnxruntime"): 1.0}))
    path, backend, why = loaded(bundle, precision="int8", **options)
    assert (path, backend) == ("int8-cpu.onnx", "openvino")
    assert why.endswith(f"; {MEASURED_FILE} does not count, {word}")


def test_where_a_signature_is_wanted_a_file_that_has_none_decides_nothing(bundle: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from mtl_deploy.runtime.bundle.signing import SIGNATURE_FILE

    write_measured(bundle, run_of(bundle))
    key = Ed25519PrivateKey.generate()
    (bundle / SIGNATURE_FILE).write_bytes(key.sign((bundle / "manifest.json").read_bytes()))
    public = key.public_key().public_bytes_raw()
    path, _, why = loaded(bundle, precision="int8", verify_key=public)
    assert path == "int8-cpu.onnx"
    assert "as it is not signed" in why
    assert taken(bundle, precision="int8") == ("int8.onnx", "openvino")  # the manifest's signature is as good as before


def test_what_does_not_run_or_answers_wrongly_is_not_taken_however_fast(bundle: Path) -> None:
    run = run_of(bundle)
    fast = [replace(one, fault="its answers differ") if one.path == "int8.onnx" else one for one in run.candidates]
    write_measured(bundle, replace(run, candidates=tuple(fast)))
    assert taken(bundle, precision="int8") == ("int8-cpu.onnx", "openvino")
    broken = [
        Candidate(one.path, one.sha256, one.precision, one.backend, (), "it does not run here (no kernel)")
        if one.backend == "openvino"
        else one
        for one in run.candidates
    ]
    write_measured(bundle, replace(run, candidates=tuple(broken)))
    path, backend, why = loaded(bundle, precision="int8")
    assert (path, backend) == ("int8-cpu.onnx", "onnxruntime")
    assert why == "measured here: 5 ms, and int8-cpu.onnx on OpenVINO: it does not run here (no kernel)"


def test_where_openvino_fails_onnx_runtime_gets_the_graph_of_its_own_style(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise BackendError("OpenVINO does not start")

    write_measured(bundle, run_of(bundle))
    monkeypatch.setattr(openvino_backend, "OpenVinoBackend", fails)
    with pytest.warns(FallbackWarning, match=r"does not start; running .*int8-cpu\.onnx on ONNX Runtime"):
        model = load(bundle, precision="int8")
    with model:
        assert model.artifact is not None
        assert (model.artifact.path, model.backend.name) == ("int8-cpu.onnx", "onnxruntime")


def test_without_openvino_what_was_measured_on_onnx_runtime_still_counts(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_measured(bundle, run_of(bundle, USUAL | {("int8.onnx", "onnxruntime"): 4.0}))
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert taken(bundle, precision="int8") == ("int8.onnx", "onnxruntime")


def test_a_damaged_file_is_named_and_ignored(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_measured(bundle, run_of(bundle))
    file.write_bytes(file.read_bytes()[:300])
    with pytest.warns(MtlWarning, match=r"measured\.json is damaged and does not count") as caught:
        model = load(bundle, precision="int8")
    with model:
        assert model.artifact is not None
        assert (model.artifact.path, model.backend.name) == ("int8-cpu.onnx", "openvino")
        assert f"{file} is damaged" in model.why
    assert len(caught) == 1
    assert Path(caught[0].filename) == Path(__file__)
    picture = tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (16, 16), (200, 30, 90)).save(picture)
    assert infer([str(bundle), str(picture)]) == 0
    assert f"warning: {file} is damaged and does not count" in capsys.readouterr().err


def test_mtl_infer_says_that_it_was_measured(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    write_measured(bundle, run_of(bundle))
    Image.new("RGB", (16, 16), (200, 30, 90)).save(tmp_path / "a.png")
    assert infer([str(bundle), str(tmp_path / "a.png"), "--precision", "int8", "--verbose"]) == 0
    said = capsys.readouterr().err
    assert "int8.onnx runs on OpenVINO " in said
    assert "measured here: 1.8 ms, and int8-cpu.onnx on OpenVINO 2.15 ms (0.84 times" in said


def test_where_int8_does_not_pay_is_said_with_the_figures(bundle: Path) -> None:
    assert where_int8_does_not_pay(run_of(bundle)) == [
        "INT8 does not pay on ONNX Runtime here: int8-cpu.onnx takes 5 ms, fp32.onnx 4.4 ms "
        "(1.14 times, 99 % interval 1.14 to 1.14)"
    ]
    alike = run_of(bundle, USUAL | {("int8-cpu.onnx", "onnxruntime"): 4.2})
    assert where_int8_does_not_pay(replace(alike, candidates=alike.candidates[::-1])) == []
    assert len(where_int8_does_not_pay(run_of(bundle, USUAL | {("int8-cpu.onnx", "onnxruntime"): 4.3}))) == 1
    run = run_of(bundle)
    noisy = [
        replace(one, milliseconds=tuple(3 * share for share in BUSY)) if one.backend == "openvino" else one
        for one in run.candidates
        if one.precision != "int8"
    ]
    (_, line) = where_int8_does_not_pay(
        replace(
            run,
            candidates=tuple(
                replace(one, milliseconds=(4.3,) * 10) if str(one) == "fp32.onnx on OpenVINO" else one for one in noisy
            ),
        )
    )
    assert line.startswith("Whether INT8 pays on OpenVINO here is not certain: int8-cpu.onnx takes ")


def test_what_loads_is_what_load_takes(bundle: Path) -> None:
    write_measured(bundle, run_of(bundle))
    fp32, int8 = what_loads(open_bundle(bundle)).splitlines()
    assert fp32.startswith("precision='fp32' takes fp32.onnx on ONNX Runtime: ")
    assert int8 == f"precision='int8' takes int8.onnx on OpenVINO: {loaded(bundle, precision='int8')[2]}"
