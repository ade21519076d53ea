"""Each method against its paper's formula."""

from __future__ import annotations

import math

import pytest
import torch
import weighting
from torch import Tensor, nn


def test_fixed_weights_are_a_weighted_sum() -> None:
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    weighting.Fixed([1.0, 10.0]).backward([x[0] ** 2, x[1] ** 2])
    assert x.grad is not None
    assert x.grad.tolist() == [4.0, 60.0]


@pytest.mark.parametrize("log_variance", [-1.0, 0.0, 0.7])
def test_uncertainty_is_kendalls_likelihood(log_variance: float) -> None:
    """Classification: L / sigma**2 + log sigma (equation 10). L1: the Laplace likelihood, L / sigma + log sigma."""
    balance = weighting.Uncertainty([False, True])
    balance.log_variances = torch.tensor([log_variance, log_variance], requires_grad=True)
    sigma = math.exp(log_variance / 2)
    found = balance.loss([torch.tensor(0.8), torch.tensor(3.0)])
    assert found.item() == pytest.approx(0.8 / sigma**2 + math.log(sigma) + 3.0 / sigma + math.log(sigma), rel=1e-5)


def test_uncertainty_settles_where_the_likelihood_is_highest() -> None:
    balance = weighting.Uncertainty([False, True])
    losses = [torch.tensor(0.25), torch.tensor(4.0)]
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        balance.backward(losses)
        optimizer.step()
    classification, regression = torch.exp(balance.log_variances).tolist()
    assert classification == pytest.approx(2 * 0.25, rel=1e-3)  # sigma**2 = 2 L
    assert math.sqrt(regression) == pytest.approx(4.0, rel=1e-3)  # sigma = L


def test_uncertainty_weighs_the_networks_gradients() -> None:
    balance = weighting.Uncertainty([False, True])
    balance.log_variances = torch.tensor([math.log(4.0), math.log(4.0)], requires_grad=True)
    x = torch.ones(2, requires_grad=True)
    balance.backward([x[0], x[1]])
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([1 / 4, 1 / 2])


def test_gradnorms_gradient_is_that_of_its_loss() -> None:
    """Equation 2 by automatic differentiation: sum |w_i norms_i - mean(w norms) r_i**alpha|, the target held constant."""
    balance = weighting.GradNorm(torch.zeros(1), 3, alpha=0.5)
    norms, ratios = torch.tensor([1.0, 4.0, 2.5]), torch.tensor([1.0, 0.25, 1.0])
    weights = torch.ones(3, requires_grad=True)
    gradients = weights * norms
    target = (gradients.mean() * (ratios / ratios.mean()) ** 0.5).detach()
    (gradients - target).abs().sum().backward()
    torch.testing.assert_close(balance.gradient(norms, ratios), weights.grad)

    balance.update(norms, ratios)
    assert balance.weights.sum().item() == pytest.approx(3)
    assert balance.weights[1] < balance.weights[0]  # the larger gradient of the task that is ahead shrinks


def test_gradnorm_brings_gradients_to_one_size() -> None:
    shared = torch.tensor([1.0], requires_grad=True)
    balance = weighting.GradNorm(shared, 2, alpha=0.0, learning_rate=0.005)
    for _ in range(800):
        shared.grad = None
        balance.backward([shared.sum(), 9 * shared.sum()])
    weighted = balance.weights * torch.tensor([1.0, 9.0])
    assert (weighted[0] / weighted[1]).item() == pytest.approx(1, abs=0.1)


def test_gradnorm_pulls_harder_on_a_task_that_lags() -> None:
    balance = weighting.GradNorm(torch.zeros(1), 2, alpha=1.0)
    for _ in range(50):
        balance.update(torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.3]))
    assert balance.weights[0] > balance.weights[1]


def test_pcgrad_takes_the_conflict_out_of_both_gradients() -> None:
    """Algorithm 1 by hand on two conflicting vectors."""
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    balance = weighting.PCGrad([], [])
    projected = balance.project([first, second])
    torch.testing.assert_close(projected[0], first - (first @ second) / (second @ second) * second)
    torch.testing.assert_close(projected[1], second - (first @ second) / (first @ first) * first)
    assert balance.conflicts == 2
    assert abs(float(projected[0] @ second)) < 1e-6
    assert abs(float(projected[1] @ first)) < 1e-6


def test_pcgrad_leaves_gradients_that_agree() -> None:
    gradients = [torch.tensor([1.0, 0.2]), torch.tensor([0.5, 1.0]), torch.tensor([0.0, 3.0])]
    balance = weighting.PCGrad([], [])
    torch.testing.assert_close(balance.project(gradients), torch.stack(gradients))
    assert balance.conflicts == 0


def test_pcgrad_is_the_plain_sum_without_conflict_and_heads_keep_their_own() -> None:
    torch.manual_seed(0)
    backbone, heads = nn.Linear(3, 2, bias=False), [nn.Linear(2, 1, bias=False) for _ in range(2)]
    x = torch.randn(4, 3)

    def losses() -> list[Tensor]:
        return [(head(backbone(x)) ** 2).mean() for head in heads]

    parameters = [parameter for head in heads for parameter in head.parameters()]
    balance = weighting.PCGrad(list(backbone.parameters()), parameters)
    balance.backward(losses())
    found = [
        parameter.grad.clone() for parameter in [*backbone.parameters(), *parameters] if parameter.grad is not None
    ]
    for parameter in [*backbone.parameters(), *parameters]:
        parameter.grad = None
    torch.stack(losses()).sum().backward()
    expected = [parameter.grad for parameter in [*backbone.parameters(), *parameters]]
    for own, plain in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(own, plain)
    if balance.conflicts == 0:
        torch.testing.assert_close(found[0], expected[0])
    else:
        assert not torch.allclose(found[0], expected[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", weighting.NAMES)
def test_each_method_trains_two_heads(name: str) -> None:
    """Two regressions, one five times larger than the other."""
    torch.manual_seed(1)
    backbone, heads = nn.Sequential(nn.Linear(4, 16), nn.Tanh()), nn.ModuleList([nn.Linear(16, 1), nn.Linear(16, 1)])
    balance: weighting.Weighting = {
        "fixed": lambda: weighting.Fixed([1.0, 0.2]),
        "uncertainty": lambda: weighting.Uncertainty([True, True]),
        "gradnorm": lambda: weighting.GradNorm(backbone[0].weight, 2),
        "pcgrad": lambda: weighting.PCGrad(list(backbone.parameters()), list(heads.parameters())),
    }[name]()
    x = torch.randn(64, 4)
    truth = [x[:, :1].sin(), 5 * x[:, 1:2].sin()]
    optimizer = torch.optim.Adam([*backbone.parameters(), *heads.parameters(), *balance.parameters()], lr=0.02)
    history = []
    for _ in range(150):
        optimizer.zero_grad()
        losses = [(head(backbone(x)) - y).abs().mean() for head, y in zip(heads, truth, strict=True)]
        balance.backward(losses)
        optimizer.step()
        history.append([loss.item() for loss in losses])
    for first, last in zip(history[0], history[-1], strict=True):
        assert last < 0.7 * first
