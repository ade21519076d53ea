"""A network whose answers change is noticed, however few values there are to judge by; rounding is not."""

from __future__ import annotations

import pytest
import torch

from mtl_deploy.export.forward.steady import require_alone, require_repeatable
from mtl_deploy.runtime.errors import TraceError

VARIED = torch.tensor(
    [[0.0], [1.0]]
)  # its values lie half of one apart from their mean: a thousandth of that is allowed
EQUAL = torch.full((2, 1), 100.0)  # does not vary: a hundred-thousandth of its size is
ZERO = torch.zeros(2, 1)


def test_one_value_that_changes_is_noticed() -> None:
    first = [torch.tensor([[1.0]])]
    with pytest.raises(TraceError, match="another answer to the same images at each call"):
        require_repeatable(first, lambda: [torch.tensor([[1.5]])])


def test_one_value_that_stays_is_not() -> None:
    first = [torch.tensor([[1.0]])]
    require_repeatable(first, lambda: [torch.tensor([[1.0 + 1e-6]])])


@pytest.mark.parametrize(("first", "allowed"), [(VARIED, 5e-4), (EQUAL, 1e-3), (ZERO, 1e-12)])
def test_answers_may_differ_by_rounding_and_no_more(first: torch.Tensor, allowed: float) -> None:
    first = first.double()
    require_repeatable([first], lambda: [first - 0.9 * allowed])
    with pytest.raises(TraceError, match="another answer to the same images at each call"):
        require_repeatable([first], lambda: [first + 1.1 * allowed])


class Leaning(torch.nn.Module):
    """Adds to each answer what depends on the number of images: this much of it for each one more."""

    def __init__(self, step: float, *, only_float32: bool = False) -> None:
        super().__init__()
        self.step, self.only_float32 = step, only_float32

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        off = 0 if self.only_float32 and images.dtype == torch.float64 else self.step
        return (images.mean((1, 2, 3)) + off * len(images),)


def alone(network: torch.nn.Module) -> None:
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 2, 2)
    require_alone(network, images, 2, network(images[:2]), network(images))


def test_an_answer_may_depend_on_the_batch_by_rounding_and_no_more() -> None:
    allowed = 1e-3 * float(torch.arange(4.0).std(correction=0)) / 2  # for two more images
    alone(Leaning(0.9 * allowed))
    alone(Leaning(1.0, only_float32=True))  # float64 shows that it is rounding
    with pytest.raises(TraceError, match="depends on the other images of its batch"):
        alone(Leaning(1.1 * allowed))
