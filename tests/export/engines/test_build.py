"""Engines are really built, by TensorRT-RTX, which compiles without a GPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from engine_graphs import needs_rtx, quantized, small_graph, weight_bytes

from mtl_deploy.export.engines.build import build, node_types
from mtl_deploy.export.engines.layers import from_plan
from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.runtime import OptionError
from mtl_deploy.runtime.backends.tensorrt.library import Library, import_library
from mtl_deploy.runtime.errors import BuildError
from mtl_deploy.runtime.onnx_format.graph import read_graph

pytestmark = needs_rtx


@pytest.fixture(scope="module")
def rtx() -> Library:
    return import_library("tensorrt-rtx")


def built(library: Library, content: bytes, *, batch: tuple[int, int, int] = (1, 1, 8), **options: object) -> bytes:
    settings = EngineOptions(library="tensorrt-rtx", **options)  # type: ignore[arg-type]
    return build(content, "graph.onnx", library, settings, batch).plan


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engines_weights_have_the_types_of_its_graph(rtx: Library, article_bundle: Path, precision: str) -> None:
    content = (article_bundle / f"{precision}.onnx").read_bytes()
    found = from_plan(rtx, built(rtx, content))
    expected = weight_bytes(content)
    main = max(expected, key=expected.__getitem__)
    assert main == precision
    assert found["weight_bytes"][precision] == pytest.approx(expected[precision], rel=0.02)
    assert next(iter(found["layers"])) == precision


def test_a_mixed_graph_keeps_its_last_layers_in_fp32(rtx: Library, article_bundle: Path) -> None:
    layers = from_plan(rtx, built(rtx, (article_bundle / "fp16.onnx").read_bytes()))["layers"]
    assert layers["fp32"] == 3  # one per head
    assert layers["fp16"] >= 20  # ResNet-18's convolutions


def test_a_graph_with_q_dq_computes_in_int8(rtx: Library, article_bundle: Path) -> None:
    content = quantized((article_bundle / "fp32.onnx").read_bytes())
    found = from_plan(rtx, built(rtx, content))
    assert next(iter(found["layers"])) == "int8"
    assert found["layers"]["int8"] >= 20
    assert found["weight_bytes"]["int8"] == pytest.approx(weight_bytes(content)["int8"], rel=0.02)


@pytest.fixture(scope="module")
def deep_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-50 of the article's layout, its shared graphs alone."""
    from mtl_deploy.export.cli import main

    folder = tmp_path_factory.mktemp("deep")
    example = Path(__file__).parents[3] / "examples" / "article.py"
    code = f"import runpy; from pathlib import Path; runpy.run_path({str(example)!r})['write_checkpoint'](Path('model.pt'), 50)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    target = folder / "deep.mtl"
    arguments = ["--image-size", "64x64", "--no-separate", "--engine", "none", "--threads", "1", "-o", str(target)]
    assert main([str(folder / "model.pt"), *arguments]) == 0
    return target


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_resnet_50_builds_in_every_precision(rtx: Library, deep_bundle: Path, precision: str) -> None:
    content = (deep_bundle / f"{'fp32' if precision == 'int8' else precision}.onnx").read_bytes()
    content = quantized(content) if precision == "int8" else content
    found = from_plan(rtx, built(rtx, content))
    assert found["weight_bytes"][precision] == pytest.approx(weight_bytes(content)[precision], rel=0.02)
    assert found["layers"][precision] >= 53  # the convolutions


def test_the_plan_holds_the_profile_and_the_tensors_names(rtx: Library, article_bundle: Path) -> None:
    plan = built(rtx, (article_bundle / "fp16.onnx").read_bytes(), batch=(3, 5, 7))
    assert b"out of bounds [3, 7]" in plan
    for name in (b"image", b"age", b"gender", b"race"):
        assert name in plan


def test_nothing_is_put_in_front_of_the_plan(rtx: Library, article_bundle: Path) -> None:
    content = (article_bundle / "separate" / "age.onnx").read_bytes()
    trt = rtx.module
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(rtx.network_flags())
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(content)
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, 64, 64, 3), (1, 64, 64, 3), (8, 64, 64, 3))
    config.add_optimization_profile(profile)
    theirs = bytes(memoryview(builder.build_serialized_network(network, config)))
    ours = built(rtx, content)
    assert ours[:64] == theirs[:64]  # a header with the size among it; names inside vary from build to build
    assert len(ours) == len(theirs)


def test_a_named_gpu_is_built_for_and_an_unknown_one_is_refused(rtx: Library, article_bundle: Path) -> None:
    content = (article_bundle / "separate" / "age.onnx").read_bytes()
    assert built(rtx, content, gpus=("sm86", "sm120"))
    with pytest.raises(OptionError, match=r"--gpu sm90: TensorRT-RTX [\d.]+ builds for sm75, "):
        built(rtx, content, gpus=("sm90",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timing_cache": Path("cache")}, "no timing cache"),
        ({"version_compatible": True}, "no version-compatible engines"),
        ({"hardware_compatibility": "ampere_plus"}, "names its GPUs with --gpu"),
        ({"tactic_sources": ("cublas",)}, "--tactic-sources cublas: TensorRT-RTX"),
    ],
)
def test_what_the_library_lacks_is_refused(rtx: Library, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        built(rtx, small_graph(), **options)


def test_settings_that_the_library_has_are_taken(rtx: Library) -> None:
    sources = ("jit_convolutions",)
    assert built(
        rtx, small_graph(), workspace_mib=64, optimization_level=1, threads=2, tf32=True, tactic_sources=sources
    )


def test_a_graph_that_cannot_be_read_names_the_node(rtx: Library) -> None:
    with pytest.raises(BuildError) as error:
        built(rtx, small_graph("NoSuchOperator"))
    assert "cannot read graph.onnx: node 'last' (NoSuchOperator): " in str(error.value)
    assert ".cpp" not in str(error.value)


def test_a_batch_that_the_graph_does_not_have_names_the_reason(rtx: Library) -> None:
    model = onnx.load_from_string(small_graph())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(BuildError, match=r"could not build an engine from graph\.onnx: \w+"):
        built(rtx, model.SerializeToString(), batch=(1, 1, 8))


def test_progress_is_told_with_elapsed_time(rtx: Library, article_bundle: Path) -> None:
    heard: list[str] = []
    options = EngineOptions(library="tensorrt-rtx")
    build((article_bundle / "fp16.onnx").read_bytes(), "fp16.onnx", rtx, options, (1, 1, 8), heard.append)
    assert any("Building engine" in text for text in heard)
    assert all(text.endswith(" s") for text in heard)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_cancels_a_build(rtx: Library, article_bundle: Path) -> None:
    """The interrupt comes while TensorRT works in its own thread; the build has ended when it is passed on."""
    content = (article_bundle / "fp32.onnx").read_bytes()
    main = threading.main_thread().ident
    assert main is not None
    told: list[str] = []

    def interrupt(text: str) -> None:
        told.append(text)
        if len(told) == 1:
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.3)  # the library's thread; the main one takes the signal meanwhile

    with pytest.raises(KeyboardInterrupt):
        build(content, "fp32.onnx", rtx, EngineOptions(library="tensorrt-rtx"), (1, 1, 8), interrupt)
    heard = len(told)
    time.sleep(0.3)
    assert len(told) == heard  # nothing works on


def test_ctrl_c_at_the_command_leaves_nothing_behind(article_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mtl"
    code = f"""
import os, signal, sys
import mtl_deploy.export.engines.build as engine_build
from mtl_deploy.export.cli import main
real = engine_build._run
def slow(library, builder, network, config, progress):
    os.kill(os.getpid(), signal.SIGINT)
    return real(library, builder, network, config, progress)
engine_build._run = slow
sys.exit(main([{str(article_bundle)!r}, "--engine", "tensorrt-rtx", "-o", {str(target)!r}]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_node_types_follow_the_graph(article_bundle: Path, make_bundle: Callable[..., Path]) -> None:
    half = node_types(read_graph((article_bundle / "fp16.onnx").read_bytes()))
    assert set(half.values()) == {"fp16", "fp32"}
    assert sum(kind == "fp16" for kind in half.values()) > 50
    plain = node_types(read_graph((article_bundle / "fp32.onnx").read_bytes()))
    assert set(plain.values()) == {"fp32"}
    mixed = node_types(read_graph(quantized((article_bundle / "fp32.onnx").read_bytes())))
    assert "int8" in mixed.values()
    convolutions = [node.name for node in read_graph(quantized(small_graph())).nodes if node.op_type == "Conv"]
    assert convolutions
    assert not set(convolutions) & set(node_types(read_graph(quantized(small_graph()))))
