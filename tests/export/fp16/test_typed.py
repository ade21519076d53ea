"""The FP16 graph that a thread makes while the FP32 graphs are verified is the one that is made otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mtl_deploy.export.fp16.typed import Typed, typed_meanwhile
from mtl_deploy.export.graph.cost import Cost
from mtl_deploy.export.graph.variants import GraphVariant
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.verification.expected import Expected
from mtl_deploy.export.verification.stage import Samples
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.errors import RunError


@pytest.fixture
def shared(make_bundle: Callable[..., Path], tmp_path: Path) -> GraphVariant:
    bundle = open_bundle(make_bundle(tmp_path / "model.mtl", work=2))
    model = ir.from_proto(onnx.load(bundle.path / "fp32.onnx"))
    return GraphVariant("shared", "fp32", bundle.manifest.signature, model, Cost(0, 0), None)


def samples_of(shared: GraphVariant, count: int = 32, side: int = 0) -> Samples:
    preprocessing = shared.signature.preprocessing
    size = (count, preprocessing.height + side, preprocessing.width, 3)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return [(images, Expected(shared.signature, {}))]


def options(precisions: tuple[str, ...] = ("fp32", "fp16"), threads: int | None = 2) -> Options:
    return Options(Path("network.pt"), precisions=precisions, threads=threads)


def test_it_is_the_same_while_the_fp32_graph_is_serialized(shared: GraphVariant) -> None:
    samples = samples_of(shared)
    content = shared.content()
    alone = Typed(shared, samples, None)
    alone.make()
    with typed_meanwhile(shared, samples, options()) as typed:
        assert typed is not None
        for _ in range(20):
            assert shared.content() == content  # which takes the weights away for a moment
        statistics, half = typed.result
    assert statistics == alone.result[0]
    assert half.model.SerializeToString() == alone.result[1].model.SerializeToString()
    assert half.to_dict() == alone.result[1].to_dict()
    assert half.converted > 0


@pytest.mark.parametrize(("precisions", "threads"), [(("fp32",), 2), (("fp32", "fp16"), 1)])
def test_there_is_none_if_it_is_not_wanted_or_there_is_one_thread(
    precisions: tuple[str, ...], threads: int, shared: GraphVariant
) -> None:
    with typed_meanwhile(shared, samples_of(shared), options(precisions, threads)) as typed:
        assert typed is None


def test_what_fails_in_the_thread_is_raised_where_the_graph_is_asked_for(shared: GraphVariant) -> None:
    with typed_meanwhile(shared, samples_of(shared, side=1), options()) as typed:
        assert typed is not None
        with pytest.raises(RunError):
            _ = typed.result


def test_it_ends_when_verification_fails(shared: GraphVariant) -> None:
    def fails() -> None:
        with typed_meanwhile(shared, samples_of(shared, 100_000), options()) as typed:
            made.append(typed)
            raise ZeroDivisionError

    made: list[Typed | None] = []
    with pytest.raises(ZeroDivisionError):
        fails()
    assert not [each for each in threading.enumerate() if each.name.startswith("mtl-fp16")]
    assert made[0] is not None
    with pytest.raises(CancelledError):
        _ = made[0].result
