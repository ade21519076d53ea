"""OpenVINO beside ONNX Runtime on the same graph."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mtl_deploy.bench.contestants.forms import call
from mtl_deploy.bench.contestants.hosts import LocalHost, ProcessHost
from mtl_deploy.bench.contestants.pair import Settings, find_pair, make_batch
from mtl_deploy.bench.contestants.peers import openvino as openvino_peer
from mtl_deploy.bench.contestants.peers.openvino import openvino_spec
from mtl_deploy.bench.contestants.specs import default_specs
from mtl_deploy.bench.measurement.agreement import agreement
from mtl_deploy.runtime.backends.openvino import library
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.errors import BackendError, BundleError, IntegrityError
from tests.conftest import MakeBundle

CPU = Settings(providers=("CPU",), threads=1)
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed: mtl-deploy[openvino]"
)


@needs_openvino
@pytest.mark.parametrize("options", [{}, {"image_input": "float"}, {"outputs": "logits"}, {"batch": 2}])
def test_its_outputs_are_the_graphs(make_bundle: MakeBundle, options: dict[str, object]) -> None:
    pair = find_pair(make_bundle(work=2, **options), "fp32", ("CPU",))
    spec = openvino_spec(pair.bundle, pair.shared, CPU)
    assert (spec.name, spec.title, spec.precision) == ("openvino", "OpenVINO, shared network", "fp32")
    shared = default_specs(pair, CPU)[0]
    ours, theirs = LocalHost(shared), LocalHost(spec)
    for size in (2,) if "batch" in options else (1, 3, 1):
        batch = make_batch(pair, size, seed=size)
        found = agreement(shared, ours.run(call, batch), spec, theirs.run(call, batch))
        assert list(found) == ["age", "gender", "race"]
        assert all(one.error <= one.allowed / 20 for one in found.values()), found
    ours.close()
    theirs.close()


@needs_openvino
@pytest.mark.slow
def test_the_articles_network_agrees_in_a_process_of_its_own(article_bundle: Path) -> None:
    import openvino

    pair = find_pair(article_bundle, "fp32", ("CPU",))
    spec, shared = openvino_spec(pair.bundle, pair.shared, CPU), default_specs(pair, CPU)[0]
    batch = make_batch(pair, 1, seed=0)
    ours, theirs = LocalHost(shared), ProcessHost(spec)
    try:
        assert theirs.details == f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"
        found = agreement(shared, ours.run(call, batch), spec, theirs.run(call, batch))
        assert all(one.holds for one in found.values()), found
    finally:
        ours.close()
        theirs.close()


@needs_openvino
def test_a_later_call_does_not_touch_outputs(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), "fp32", ("CPU",))
    contestant = openvino_peer.start(openvino_spec(pair.bundle, pair.shared, CPU))
    first = contestant(make_batch(pair, 1, seed=0))
    kept = {task: values.copy() for task, values in first.items()}
    contestant(make_batch(pair, 1, seed=1))
    for task, values in kept.items():
        np.testing.assert_array_equal(first[task], values)


def test_an_fp16_run_is_given_the_fp32_graph_and_says_so(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), "fp16", ("CPU",))
    spec = openvino_spec(pair.bundle, pair.shared, CPU)
    assert (spec.name, spec.title) == ("openvino@fp32", "OpenVINO, shared network, fp32")
    assert [artifact.path for artifact in spec.artifacts] == ["fp32.onnx"]


def test_an_int8_run_is_given_its_own_graph(make_bundle: MakeBundle) -> None:
    bundle = open_bundle(make_bundle())
    shared = replace(bundle.manifest.artifacts[0], precision="int8-cpu", path="int8-cpu.onnx")
    extended = replace(bundle, manifest=replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, shared)))
    assert openvino_spec(extended, shared, CPU).name == "openvino"
    assert openvino_spec(extended, shared, CPU).artifacts == (shared,)


def test_a_bundle_without_a_graph_for_it_is_named(make_bundle: MakeBundle) -> None:
    bundle = open_bundle(make_bundle(precisions=("fp16",)))
    with pytest.raises(BundleError, match="no shared fp32 graph for OpenVINO"):
        openvino_spec(bundle, bundle.manifest.artifacts[0], CPU)


@needs_openvino
def test_what_it_cannot_read_or_run_is_an_error_of_ours(make_bundle: MakeBundle) -> None:
    import openvino

    with pytest.raises(BundleError, match=r"x\.onnx: OpenVINO .* cannot read it"):
        openvino_peer.OpenVino("openvino", openvino.Core(), b"no graph", "x.onnx", ("age",), CPU, "2026")
    pair = find_pair(make_bundle(batch=2), "fp32", ("CPU",))
    contestant = openvino_peer.start(openvino_spec(pair.bundle, pair.shared, CPU))
    with pytest.raises(BackendError, match="cannot compile it for a batch of 2"):
        contestant(np.zeros((2, 5, 5, 4), np.uint8))


@needs_openvino
def test_a_changed_graph_is_refused(make_bundle: MakeBundle) -> None:
    bundle = open_bundle(make_bundle())
    (bundle.path / "fp32.onnx").write_bytes(b"another")
    with pytest.raises(IntegrityError):
        openvino_peer.start(openvino_spec(bundle, bundle.manifest.artifacts[0], CPU))


def test_a_missing_or_old_library_is_told_with_the_remedy(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(make_bundle())
    spec = openvino_spec(bundle, bundle.manifest.artifacts[0], CPU)
    old = ModuleType("openvino")
    old.__version__ = "2023.0.1-1234"  # type: ignore[attr-defined]
    old.__spec__ = importlib.util.spec_from_loader("openvino", None)
    monkeypatch.setitem(sys.modules, "openvino", old)
    with pytest.raises(BackendError, match=r"OpenVINO 2023\.0\.1 is too old"):
        openvino_peer.start(spec)
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"OpenVINO is not installed: pip install 'mtl-deploy\[openvino\]'"):
        openvino_peer.start(spec)
