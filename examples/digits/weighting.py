"""How the losses of several tasks are weighted: fixed weights and three published methods.

Each method takes the tasks' losses and sets the parameters' gradients, instead of ``loss.backward()``:

- fixed: a weighted sum.
- uncertainty: Kendall, Gal, Cipolla: Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018, arXiv 1705.07115.
- gradnorm: Chen, Badrinarayanan, Lee, Rabinovich: GradNorm, ICML 2018, arXiv 1711.02257.
- pcgrad: Yu, Kumar, Gupta, Levine, Hausman, Finn: Gradient Surgery for Multi-Task Learning, NeurIPS 2020, arXiv 2001.06782.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

NAMES = ("fixed", "uncertainty", "gradnorm", "pcgrad")


class Weighting(Protocol):
    """Turns losses into gradients."""

    def backward(self, losses: Sequence[Tensor]) -> None:
        """Add the gradients of the balanced losses to the parameters' ``grad``.

        Args:
            losses: one scalar per task, always in the same order.
        """
        ...

    def parameters(self) -> list[Tensor]:
        """Return parameters that the optimizer must learn together with the network's."""
        ...

    def describe(self) -> str:
        """Return the balance in numbers, for the progress line."""
        ...


class Fixed:
    """A sum with constant weights: ``sum_i w_i L_i``."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = list(weights)

    def backward(self, losses: Sequence[Tensor]) -> None:
        sum(weight * loss for weight, loss in zip(self.weights, losses, strict=True)).backward()  # type: ignore[union-attr]

    def parameters(self) -> list[Tensor]:
        return []

    def describe(self) -> str:
        return _numbers(self.weights)


class Uncertainty:
    """Learned noise of each task: ``sum_i L_i / c_i + log(sigma_i)`` (Kendall et al.).

    A classification has ``c = sigma**2`` (the paper's equation 10: the softmax likelihood scaled by ``1 / sigma**2``). A regression
    with an L1 loss has a Laplace likelihood of scale sigma, ``-log p = |y - f| / sigma + log(2 sigma)``, so ``c = sigma``; the
    paper's equation 7 is the same for the L2 loss of a Gaussian. As in the paper, ``log(sigma**2)`` is learned, so that no
    division by zero can occur. At the optimum ``sigma**2 = 2 L`` for a classification and ``sigma = L`` for a regression.
    """

    def __init__(self, regression: Sequence[bool]) -> None:
        self.regression = list(regression)
        self.log_variances = torch.zeros(len(self.regression), requires_grad=True)

    def loss(self, losses: Sequence[Tensor]) -> Tensor:
        """Return the objective, differentiable in the losses and in the log variances."""
        exponents = torch.tensor([0.5 if regression else 1.0 for regression in self.regression])
        return (torch.exp(-exponents * self.log_variances) * torch.stack(list(losses)) + 0.5 * self.log_variances).sum()

    def backward(self, losses: Sequence[Tensor]) -> None:
        self.loss(losses).backward()

    def parameters(self) -> list[Tensor]:
        return [self.log_variances]

    def describe(self) -> str:
        return "sigma " + _numbers(torch.exp(0.5 * self.log_variances).tolist())


class GradNorm:
    """Weights that bring the tasks' gradients to a common size, larger for tasks that lag (Chen et al., algorithm 1).

    With ``G_i = || grad_W w_i L_i ||`` at the last shared layer W, ``r_i`` the task's inverse training rate ``L_i / L_i(0)`` over
    the mean of them, the weights descend on ``sum_i |G_i - mean(G) r_i**alpha|`` (equation 2), whose target is held constant, and
    are then scaled to sum to the number of tasks.

    Args:
        last_shared: W, the weights of the last layer that all tasks share.
        tasks: number of tasks.
        alpha: strength of the pull towards equal training rates; 1.5 in the paper, 0.12 for very different tasks.
        learning_rate: for the weights.
    """

    def __init__(self, last_shared: Tensor, tasks: int, alpha: float = 0.5, learning_rate: float = 0.025) -> None:
        self.last_shared = last_shared
        self.alpha = alpha
        self.weights = torch.ones(tasks)
        self.optimizer = torch.optim.Adam([self.weights], learning_rate)
        self.initial: Tensor | None = None

    def backward(self, losses: Sequence[Tensor]) -> None:
        norms = torch.stack([self._norm(loss) for loss in losses])
        values = torch.stack([loss.detach() for loss in losses])
        torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum().backward()
        if self.initial is None:
            self.initial = values
        self.update(norms, values / self.initial)

    def gradient(self, norms: Tensor, ratios: Tensor) -> Tensor:
        """Return the gradient of equation 2 with respect to the weights.

        Args:
            norms: ``(tasks,)``, the norms of the unweighted losses' gradients at W.
            ratios: ``(tasks,)``, ``L_i / L_i(0)``.
        """
        weighted = self.weights * norms  # G_i, as the norm is linear in w_i
        target = weighted.mean() * (ratios / ratios.mean()) ** self.alpha
        return torch.sign(weighted - target) * norms

    def update(self, norms: Tensor, ratios: Tensor) -> None:
        """Take one step of Adam on the weights, and scale them to sum to the number of tasks."""
        self.weights.grad = self.gradient(norms, ratios)
        self.optimizer.step()
        self.weights.clamp_(min=1e-3)
        self.weights *= len(self.weights) / self.weights.sum()

    def _norm(self, loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, self.last_shared, retain_graph=True)
        return gradient.norm()

    def parameters(self) -> list[Tensor]:
        return []

    def describe(self) -> str:
        return _numbers(self.weights.tolist())


class PCGrad:
    """Removes the conflicting part of gradients that conflict (Yu et al., algorithm 1).

    For each task, in random order of the others: where ``g_i . g_j < 0``, ``g_i`` becomes ``g_i - (g_i . g_j) / ||g_j||**2 g_j``
    with the other's original gradient. The sum of the results is the gradient of the shared parameters; each head keeps
    its own task's.

    Args:
        shared: the backbone's parameters.
        heads: all other parameters.
        seed: for the random order.
    """

    def __init__(self, shared: Sequence[Tensor], heads: Sequence[Tensor], seed: int = 0) -> None:
        self.shared = list(shared)
        self.heads = list(heads)
        self.generator = torch.Generator().manual_seed(seed)
        self.conflicts = 0

    def backward(self, losses: Sequence[Tensor]) -> None:
        gradients = []
        for loss in losses:
            found = torch.autograd.grad(loss, [*self.shared, *self.heads], retain_graph=True, allow_unused=True)
            for parameter, gradient in zip(self.heads, found[len(self.shared) :], strict=True):
                _add(parameter, gradient)
            flat = [
                torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
                for parameter, gradient in zip(self.shared, found, strict=False)
            ]
            gradients.append(torch.cat(flat))
        total = self.project(gradients).sum(0)
        for parameter, gradient in zip(self.shared, total.split([p.numel() for p in self.shared]), strict=True):
            _add(parameter, gradient.view_as(parameter))

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the ``(tasks, n)`` gradients after surgery; counts the conflicts of this step."""
        self.conflicts = 0
        projected = []
        for i, gradient in enumerate(gradients):
            changed = gradient.clone()
            for j in torch.randperm(len(gradients), generator=self.generator).tolist():
                other = gradients[j]
                if i != j and (overlap := torch.dot(changed, other)) < 0:
                    changed -= overlap / other.dot(other) * other
                    self.conflicts += 1
            projected.append(changed)
        return torch.stack(projected)

    def parameters(self) -> list[Tensor]:
        return []

    def describe(self) -> str:
        return f"{self.conflicts} conflicts"


def _add(parameter: Tensor, gradient: Tensor | None) -> None:
    if gradient is not None:
        parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
