"""Networks and bundles that several rooms' tests use. Everything is real: real checkpoints, real exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ARTICLE_SIZE = "64x64"


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """Keep PyTorch to one core a test process: several run side by side."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def article_state() -> dict[str, Any]:
    """The state_dict of a ResNet-18 in the article's layout, heads 1, 1 and 5, with BatchNorm statistics that are not trivial."""
    import torch

    from mtl_deploy.export.networks import article

    torch.manual_seed(7)
    layout = article.Layout(
        bottleneck=False,
        blocks=(2, 2, 2, 2),
        groups=1,
        width_per_group=64,
        heads=tuple(article.Head(hidden=64, size=size) for size in (1, 1, 5)),
    )
    network = article.build(layout)
    generator = torch.Generator().manual_seed(8)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var") or (".bn" in name and name.endswith("weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network.state_dict()


@pytest.fixture(scope="session")
def article_checkpoint(article_state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.pt``: the state_dict, as the article's training script saves it."""
    import torch

    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    torch.save(article_state, path)
    return path


@pytest.fixture(scope="session")
def article_bundle(article_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that ``mtl-export model.pt`` makes of it. Tests must not change it."""
    from mtl_deploy.export.cli import main

    target = tmp_path_factory.mktemp("bundle") / "model.mtl"
    arguments = [str(article_checkpoint), "--image-size", ARTICLE_SIZE, "--output", str(target), "--threads", "1"]
    assert main(arguments) == 0
    return target


@pytest.fixture
def export_file(tmp_path: Path) -> Callable[..., Path]:
    """A function that exports a checkpoint into the test's folder and returns the bundle."""
    from mtl_deploy.export.cli import main

    def run(checkpoint: Path, *arguments: str) -> Path:
        target = tmp_path / "exported.mtl"
        code = main([str(checkpoint), "--output", str(target), "--threads", "1", *arguments])
        assert code == 0
        return target

    return run
