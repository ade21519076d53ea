"""Makes the folder's own modules importable, as a user's module in the current folder is; small checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    """A small network of the article's layout."""
    from checkpoints import small_network

    return small_network()


@pytest.fixture
def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its state_dict."""
    return network.state_dict()


@pytest.fixture
def tiny() -> dict[str, torch.Tensor]:
    """The state_dict of a tiny network that ``networks:Shared`` makes."""
    import networks

    return networks.Shared().state_dict()
