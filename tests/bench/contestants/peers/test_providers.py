"""ONNX Runtime's other providers, and the option that asks for them."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from mtl_deploy.bench.contestants.forms import call
from mtl_deploy.bench.contestants.hosts import ProcessHost
from mtl_deploy.bench.contestants.pair import Settings, find_pair, make_batch
from mtl_deploy.bench.contestants.peers import providers
from mtl_deploy.bench.contestants.peers.peers import parse_peers, peer_specs
from mtl_deploy.bench.contestants.peers.providers import KNOWN, other_providers, provider_spec, trial
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.errors import BackendError, BundleError, OptionError
from tests.conftest import MakeBundle

CPU = Settings(providers=("CPU",), threads=1)
AVAILABLE = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]


@pytest.mark.parametrize(
    ("text", "peers"),
    [
        ("openvino", ("openvino",)),
        ("OpenVINO, onnxruntime:cuda", ("openvino", "onnxruntime:CUDA")),
        ("onnxruntime:CUDAExecutionProvider,onnxruntime:CUDA", ("onnxruntime:CUDA",)),
        ("all", ("all",)),
    ],
)
def test_peers_are_read(text: str, peers: tuple[str, ...]) -> None:
    assert parse_peers(text) == peers


@pytest.mark.parametrize(
    "text", ["", "openvno", "onnxruntime:", "onnxruntime:GPU", "openvino,,all", "onnxruntime:Azure"]
)
def test_unknown_peers_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"--peers .*use openvino, onnxruntime:PROVIDER such as onnxruntime:CUDA"):
        parse_peers(text)


def test_every_provider_of_this_library_has_a_name() -> None:
    unknown = {name.removesuffix("ExecutionProvider") for name in onnxruntime.get_all_providers()} - set(KNOWN)
    assert unknown <= {"Azure", "Js", "WebNN"}  # a service, and two of browsers


def test_all_is_openvino_and_what_the_run_does_not_use(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), "fp32", ("CPU",))
    specs = peer_specs(pair.bundle, pair.shared, ("all",), CPU)
    others = [name for name in AVAILABLE if name not in ("CPU", "Azure")]
    assert [spec.name for spec in specs] == ["openvino", *(f"onnxruntime:{name}" for name in others)]
    assert other_providers(CPU) == tuple(others)
    if "CUDA" in AVAILABLE:
        assert "CPU" in other_providers(Settings(("CUDAExecutionProvider",)))


def test_the_runs_own_provider_is_no_peer(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), "fp32", ("CPU",))
    with pytest.raises(OptionError, match="--peers onnxruntime:CPU: the run itself uses CPU"):
        peer_specs(pair.bundle, pair.shared, ("onnxruntime:CPU",), CPU)


def test_a_provider_that_starts_computes_the_graph(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), "fp32", ("CPU",))
    spec = provider_spec(pair.bundle, pair.shared, "CPU", CPU, isolated=False)
    assert (spec.name, spec.kind, spec.settings.providers) == ("onnxruntime:CPU", "provider", ("CPU",))
    contestant = providers.start(spec)
    assert list(call(contestant, make_batch(pair, 1, 0))) == ["age", "gender", "race"]
    assert "CPUExecutionProvider" in contestant.details
    contestant.close()


@pytest.mark.parametrize("isolated", [True, False])
def test_providers_that_do_not_start_here_say_why(make_bundle: MakeBundle, isolated: bool) -> None:
    bundle = open_bundle(make_bundle())
    shared = bundle.manifest.artifacts[0]
    with pytest.raises(BackendError, match="provider 'QNN' is not available; this ONNX Runtime has"):
        providers.start(provider_spec(bundle, shared, "QNN", CPU, isolated=isolated))


@pytest.mark.skipif("CUDA" not in AVAILABLE or Path("/dev/nvidia0").exists(), reason="needs onnxruntime-gpu and no GPU")
@pytest.mark.parametrize("name", ["CUDA", "Tensorrt"])
def test_a_gpus_provider_without_a_gpu_is_left_out(make_bundle: MakeBundle, name: str) -> None:
    bundle = open_bundle(make_bundle())
    host = ProcessHost(provider_spec(bundle, bundle.manifest.artifacts[0], name, CPU))
    try:
        with pytest.raises(BackendError, match="did not start here"):
            assert host.details
    finally:
        host.close()


def test_a_provider_that_kills_its_process_leaves_this_one_alive(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle())
    spec = provider_spec(bundle, bundle.manifest.artifacts[0], "CPU", CPU, isolated=False)
    crash = tmp_path / "python"  # stands for a library that crashes in its loading
    crash.write_text("#!/bin/sh\necho 'cannot find the driver' >&2\nkill -SEGV $$\n", encoding="ascii")
    crash.chmod(0o755)
    own, sys.executable = sys.executable, os.fspath(crash)
    try:
        reason = trial(spec)
    finally:
        sys.executable = own
    assert reason is not None
    ended = f"its process ended (signal {int(signal.SIGSEGV)}): cannot find the driver"
    assert reason == f"provider 'CPU' did not load the graph: {ended}"


def test_an_engines_graph_runs_for_it(make_bundle: MakeBundle) -> None:
    bundle = open_bundle(make_bundle())
    graph = bundle.manifest.artifacts[0]
    engine = replace(graph, path="fp32.trt", backend="tensorrt", details={"source": graph.path})
    assert provider_spec(bundle, engine, "CPU", CPU).artifacts == (graph,)
    assert [spec.name for spec in peer_specs(bundle, engine, ("onnxruntime:CPU",), CPU)] == ["onnxruntime:CPU"]
    with pytest.raises(BundleError, match=r"no graph of fp32\.trt"):
        provider_spec(bundle, replace(engine, details={}), "CPU", CPU)
