"""Small checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch


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
    """The state_dict of a tiny network that ``small_networks:Shared`` makes."""
    import small_networks

    return small_networks.Shared().state_dict()
