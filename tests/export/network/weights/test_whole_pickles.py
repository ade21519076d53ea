"""Networks that were pickled whole: out of their wrappers, with the article's tasks if they are the article's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import article_whole
import pytest
import small_networks
import torch
from checkpoints import IMAGE, save
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.export.networks import article


class Keeps(nn.Module):
    """Holds a network as ``module`` without a ``forward`` of its own, as timm's ``ModelEma``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module, self.decay = network, 0.99


def inside(network: nn.Module) -> nn.Module:
    """Wrap the backbone alone."""
    network.net = DataParallel(torch.compile(network.net))
    return network


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda network: network,
    "parallel": DataParallel,
    "compiled": torch.compile,
    "parallel of compiled": lambda network: DataParallel(torch.compile(network)),
    "compiled of parallel": lambda network: torch.compile(DataParallel(network)),
    "averaged": AveragedModel,
    "kept": Keeps,
    "half": lambda network: network.half(),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_articles_network_gets_its_tasks(wrapper: str, tmp_path: Path) -> None:
    path = save(tmp_path, {"epoch": 3, "model": WRAPPERS[wrapper](article_whole.HydraNet())})
    loaded = load_checkpoint(path, trust_pickle=True)
    assert loaded.kind == "module"
    assert type(loaded.network) is article_whole.HydraNet
    assert loaded.default_tasks == article.TASKS
    assert "the article's network, ResNet-10 with 3 heads of sizes 1, 1, 5, pickled as HydraNet" in loaded.description
    assert ("converted from float16 to float32" in loaded.description) is (wrapper == "half")
    state = load_checkpoint(save(tmp_path, article_whole.HydraNet().state_dict(), "state.pt"))
    with torch.inference_mode():
        for found, expected in zip(loaded.network(IMAGE), state.network(IMAGE), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5 if wrapper != "half" else 1e-2, rtol=1e-3)


@pytest.mark.parametrize("made", [article_whole.OnePass, article_whole.Named])
def test_a_subclass_that_computes_the_same_gets_the_tasks(made: type[nn.Module], tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, made()), trust_pickle=True)
    assert type(loaded.network) is made
    assert loaded.default_tasks == article.TASKS


@pytest.mark.parametrize("made", [article_whole.Swapped, article_whole.Activated])
def test_a_subclass_that_computes_something_else_does_not(made: type[nn.Module], tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, made()), trust_pickle=True)
    assert loaded.default_tasks is None
    assert loaded.description == f"a pickled network, {made.__name__}"


def test_wrappers_inside_come_off_too(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, inside(article_whole.HydraNet())), trust_pickle=True)
    assert loaded.default_tasks == article.TASKS
    assert not any(isinstance(module, DataParallel) for module in loaded.network.modules())
    assert set(loaded.network.state_dict()) == set(article_whole.HydraNet().state_dict())


def test_another_network_has_no_tasks_of_its_own(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, DataParallel(small_networks.Shared())), trust_pickle=True)
    assert loaded.default_tasks is None
    assert loaded.description == "a pickled network, Shared"
