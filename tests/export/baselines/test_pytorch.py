"""PyTorch's own forward beside the graphs that were made of it, task by task."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import given_graphs
import numpy as np
import pytest
import torch
from checkpoints import save
from small_networks import ReversedDict, Shared

from mtl_deploy.bench.contestants.hosts import ProcessHost
from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.peers.pytorch import baseline_specs
from mtl_deploy.export.baselines import pytorch as baseline
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.errors import BackendError, CheckpointError, OptionError, TaskError
from tests.conftest import TINY, write_tiny_bundle

CPU = Settings(providers=("CPU",), threads=1)
TASKS = ("--task", "age=regression:years", "--task", "gender=binary:no,yes", "--task", "race=multiclass:a,b,c,d")
Export = Callable[..., Path]


def noise(bundle: Path, size: int) -> np.ndarray[Any, Any]:
    preprocessing = open_bundle(bundle).manifest.signature.preprocessing
    rng = np.random.default_rng(0)
    if preprocessing.input == "uint8":
        return rng.integers(0, 256, (size, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
    return rng.standard_normal((size, 3, preprocessing.height, preprocessing.width), dtype=np.float32)


def compare(bundle: Path, contestant: Any, size: int) -> None:
    batch = noise(bundle, size)
    with load(bundle, precision="fp32", providers=["CPU"], threads=1) as model:
        expected = model(batch)
    found = contestant(batch)
    assert list(found) == list(expected)
    for task, values in expected.items():
        assert found[task].shape == values.shape
        assert found[task].dtype == values.dtype
        scale = max(float(np.abs(values).max()), 1.0)
        np.testing.assert_allclose(found[task], values, rtol=0, atol=1e-4 * scale, err_msg=task)


def start(
    bundle: Path, checkpoint: Path, model: str | None = None, *, compiled: bool = False, trust: bool = False
) -> Any:
    specs = baseline_specs(open_bundle(bundle), checkpoint, model, trust, CPU)
    return baseline.start(specs[compiled])


def test_an_onnx_graph_is_not_pytorchs_to_run(article_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "given.onnx"
    file.write_bytes(given_graphs.graph().SerializeToString())
    with pytest.raises(OptionError, match=r"--checkpoint .*given\.onnx: an ONNX graph, which PyTorch does not run"):
        start(article_bundle, file)


def test_the_articles_forward_gives_what_the_graph_gives(article_bundle: Path, article_checkpoint: Path) -> None:
    contestant = start(article_bundle, article_checkpoint)
    assert contestant.name == "pytorch"
    assert contestant.details == f"PyTorch {torch.__version__}, CPU, eager"
    for size in (1, 3):
        compare(article_bundle, contestant, size)
    contestant.close()


@pytest.mark.parametrize("arguments", [(), ("--outputs", "logits"), ("--input", "float"), ("--mean", "0.5,0.4,0.3")])
def test_each_form_of_graph_is_matched(tmp_path: Path, export_file: Export, arguments: tuple[str, ...]) -> None:
    checkpoint = save(tmp_path, ReversedDict().state_dict())  # its outputs come in another order than the tasks
    bundle = export_file(checkpoint, "--model", "small_networks:make", "--image-size", "24x32", *TASKS, *arguments)
    compare(bundle, start(bundle, checkpoint, "small_networks:make"), 2)


@pytest.mark.parametrize("outputs", ["decoded", "logits"])
def test_a_network_that_gives_probabilities_is_matched(tmp_path: Path, export_file: Export, outputs: str) -> None:
    from activation_networks import TASKS as OWN
    from activation_networks import Probabilities

    checkpoint = save(tmp_path, Probabilities().state_dict())
    options = ("--model", "activation_networks:Probabilities", "--image-size", "24x32", "--precision", "fp32")
    tasks = [word for task in OWN for word in ("--task", task)]
    bundle = export_file(checkpoint, *options, "--no-separate", "--outputs", outputs, *tasks)
    compare(bundle, start(bundle, checkpoint, "activation_networks:Probabilities"), 2)


def test_maps_are_matched_too(tmp_path: Path, export_file: Export) -> None:
    from dense_networks import Scenes

    checkpoint = save(tmp_path, Scenes().state_dict())
    tasks = ("--task", "seg=segmentation:a,b,c,d,e", "--task", "depth=depth:m", "--task", "normals=normals")
    options = ("--model", "dense_networks:Scenes", "--image-size", "32x48", "--precision", "fp32", "--no-separate")
    bundle = export_file(checkpoint, *options, *tasks)
    contestant = start(bundle, checkpoint, "dense_networks:Scenes")
    batch = noise(bundle, 2)
    with load(bundle, providers=["CPU"], threads=1) as model:
        expected = model(batch)
    found = contestant(batch)
    assert {task: (values.dtype, values.shape) for task, values in found.items()} == {
        task: (values.dtype, values.shape) for task, values in expected.items()
    }
    assert np.mean(found["seg"] == expected["seg"]) > 0.995
    for task in ("depth", "normals"):
        np.testing.assert_allclose(found[task], expected[task], atol=1e-4, err_msg=task)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same(tmp_path: Path, export_file: Export) -> None:
    checkpoint = save(tmp_path, Shared())
    bundle = export_file(checkpoint, "--trust-pickle", "--image-size", "16x16", *TASKS)
    contestant = start(bundle, checkpoint, compiled=True, trust=True)
    assert contestant.name == "pytorch_compile"
    assert contestant.details.endswith("CPU, torch.compile")
    for size in (1, 2):
        compare(bundle, contestant, size)


def test_the_weights_that_were_chosen_are_measured(tmp_path: Path, export_file: Export) -> None:
    state = Shared().state_dict()
    average = {name: value * 0.5 if value.is_floating_point() else value for name, value in state.items()}
    checkpoint = save(tmp_path, {"model": state, "ema": average})
    model = "small_networks:Shared"
    bundle = export_file(checkpoint, "--model", model, "--weights", "ema", "--image-size", "16x16", *TASKS)
    compare(bundle, start(bundle, checkpoint, model=model), 2)


def test_it_runs_in_a_process_of_its_own(article_bundle: Path, article_checkpoint: Path) -> None:
    spec = baseline_specs(open_bundle(article_bundle), article_checkpoint, None, False, CPU)[0]
    host = ProcessHost(spec)
    try:
        assert host.details.startswith("PyTorch ")
    finally:
        host.close()


def test_a_process_says_what_is_wrong_with_a_checkpoint(article_bundle: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        start(article_bundle, checkpoint)


def test_a_network_of_other_outputs_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.mtl")  # race has three classes there, the network four
    assert TINY == (8, 8)
    with pytest.raises(TaskError, match="race"):
        start(bundle, save(tmp_path, Shared().state_dict()), "small_networks:Shared")


def test_without_a_compiler_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    with pytest.raises(BackendError, match=r"torch\.compile does not work here: .*compiler.*install g\+\+"):
        baseline.require_compiler("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_reason_is_told(article_bundle: Path, article_checkpoint: Path) -> None:
    spec = baseline_specs(open_bundle(article_bundle), article_checkpoint, None, False, Settings(("CUDA",)))[0]
    with pytest.raises(BackendError, match="finds no GPU here"):
        baseline.start(spec)


def test_without_pytorch_the_remedy_is_told(article_bundle: Path, article_checkpoint: Path) -> None:
    code = f"""
import importlib.util, sys
found = importlib.util.find_spec
sys.modules["torch"] = sys.modules["onnx"] = None
from pathlib import Path
from mtl_deploy.export.baselines import pytorch as baseline
baseline.find_spec = lambda name: None if name == "torch" else found(name)
from mtl_deploy.bench.contestants.peers.pytorch import baseline_specs
from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.errors import BackendError
spec = baseline_specs(open_bundle({str(article_bundle)!r}), Path({str(article_checkpoint)!r}), None, False, Settings(("CPU",)))[0]
baseline.load_libraries(spec)
try:
    baseline.start(spec)
except BackendError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        result.stdout.strip()
        == "PyTorch's forward needs torch, which is not installed: pip install 'mtl-deploy[export]'"
    )
