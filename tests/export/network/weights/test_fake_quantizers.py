"""Weights that were trained for quantization are loaded as they are, and what was left out is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_networks
import torch
import wild_quantized
from checkpoints import save
from torch import nn

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError

NETWORKS = {
    "small_networks:Shared": small_networks.Shared,
    "wild_quantized:Residual": wild_quantized.Residual,
    "wild_quantized:Backwards": wild_quantized.Backwards,
}


def assert_computes(network: nn.Module, expected: nn.Module) -> None:
    image = wild_quantized.images()
    with torch.inference_mode():
        for found, reference in zip(network(image), expected(image), strict=True):
            torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("factory", NETWORKS)
def test_fx(factory: str, prefix: str, tmp_path: Path) -> None:
    prepared = wild_quantized.fx(NETWORKS[factory]())
    state = {prefix + name: value for name, value in prepared.state_dict().items()}
    loaded = load_checkpoint(save(tmp_path, {"state_dict": state}), model=factory)
    assert any("trained for quantization by torch.ao (FX or eager mode)" in note for note in loaded.notes)
    assert_computes(loaded.network, wild_quantized.without_rounding(prepared))


def test_eager(tmp_path: Path) -> None:
    prepared = wild_quantized.eager(small_networks.Shared())
    loaded = load_checkpoint(save(tmp_path, prepared.state_dict()), model="small_networks:Shared")
    assert any("torch.ao (FX or eager mode)" in note for note in loaded.notes)
    assert_computes(loaded.network, wild_quantized.without_rounding(prepared))


LIBRARIES: dict[str, tuple[Callable[[nn.Module], dict[str, Any]], str]] = {
    "pt2e": (wild_quantized.pt2e, "PT2E or torch.ao's observers: .* (6 of activations, 0 of weights)"),
    "modelopt": (wild_quantized.modelopt, "NVIDIA ModelOpt: .* (5 of activations, 5 of weights)"),
    "pytorch-quantization": (lambda network: wild_quantized.modelopt(network, mark="_"), "pytorch-quantization: "),
    "brevitas": (wild_quantized.brevitas, "Brevitas: "),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_libraries(library: str, tmp_path: Path) -> None:
    write, said = LIBRARIES[library]
    loaded = load_checkpoint(save(tmp_path, write(small_networks.Shared())), model="small_networks:Shared")
    first, _, last = said.partition(".*")
    assert any(first in note and last.strip() in note for note in loaded.notes)
    assert_computes(loaded.network, small_networks.Shared().eval())


def test_the_articles_network(tmp_path: Path) -> None:
    import article_whole

    prepared = wild_quantized.fx(article_whole.HydraNet())
    loaded = load_checkpoint(save(tmp_path, prepared.state_dict()))
    assert loaded.kind == "article"
    assert any("trained for quantization" in note for note in loaded.notes)
    assert_computes(loaded.network, wild_quantized.without_rounding(prepared))


def test_weights_scaled_for_their_quantizers_are_refused(tmp_path: Path) -> None:
    state = wild_quantized.modelopt(small_networks.Shared())
    state["age.input_quantizer._pre_quant_scale"] = torch.ones(8)
    with pytest.raises(
        CheckpointError, match=r"scaled for their quantizers \(age\.input_quantizer\._pre_quant_scale\)"
    ):
        load_checkpoint(save(tmp_path, state), model="small_networks:Shared")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")
def test_a_converted_network_is_called_quantized(tmp_path: Path) -> None:
    from torch.ao.quantization.quantize_fx import convert_fx

    state = convert_fx(wild_quantized.fx(small_networks.Shared())).state_dict()
    with pytest.raises(CheckpointError, match=r"quantized network|converted to INT8") as caught:
        load_checkpoint(save(tmp_path, state), model="small_networks:Shared")
    assert len(str(caught.value)) < 700


def test_a_networks_own_quantizer_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import small_networks, torch\n"
        "class Own(small_networks.Shared):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.vector_quantizer = torch.nn.Linear(8, 8)\n"
    )
    (tmp_path / "own_quantizer.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    state = dict(small_networks.Shared().state_dict())
    state |= {"vector_quantizer.weight": torch.full((8, 8), 2.0), "vector_quantizer.bias": torch.ones(8)}
    loaded = load_checkpoint(save(tmp_path, state), model="own_quantizer:Own")
    assert loaded.network.vector_quantizer.weight.unique().tolist() == [2.0]
    assert not loaded.notes


def test_a_pickled_network_loses_its_fake_quantizers(tmp_path: Path) -> None:
    prepared = wild_quantized.eager(small_networks.Shared())
    for module in prepared.modules():
        vars(module).pop("qconfig", None)  # functions of functions, which no pickle holds
    loaded = load_checkpoint(save(tmp_path, prepared), trust_pickle=True)
    assert any("fake quantizers and observers were taken out" in note for note in loaded.notes)
    assert_computes(loaded.network, wild_quantized.without_rounding(prepared))
