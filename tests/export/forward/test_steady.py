"""A network whose answers change is noticed, however few values there are to judge by."""

from __future__ import annotations

import pytest
import torch

from mtl_deploy.export.forward.steady import require_repeatable
from mtl_deploy.runtime.errors import TraceError


def test_one_value_that_changes_is_noticed() -> None:
    first = [torch.tensor([[1.0]])]
    with pytest.raises(TraceError, match="another answer to the same images at each call"):
        require_repeatable(first, lambda: [torch.tensor([[1.5]])])


def test_one_value_that_stays_is_not() -> None:
    first = [torch.tensor([[1.0]])]
    require_repeatable(first, lambda: [torch.tensor([[1.0 + 1e-6]])])
