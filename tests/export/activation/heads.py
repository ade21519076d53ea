"""Heads with an activation inside, written in many ways, and what each must be found to be."""

from __future__ import annotations

from typing import Any

import activation_networks as made
import numpy as np
import torch
from torch.nn import functional

from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing

PIXELS = np.random.default_rng(3).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def says(network: torch.nn.Module, pixels: np.ndarray = PIXELS) -> Any:
    with torch.inference_mode():
        return network.eval()(network_input(pixels, Preprocessing(*pixels.shape[1:3])))


FORMS: dict[str, tuple[made.Form, str, int]] = {
    "softmax": (lambda v: v.softmax(1), "softmax", 4),
    "log_softmax": (lambda v: v.log_softmax(1), "log_softmax", 4),
    "the logarithm of a softmax": (lambda v: torch.log(v.softmax(1) + 1e-8), "log_softmax", 4),
    "x - logsumexp(x)": (lambda v: v - v.logsumexp(1, keepdim=True), "log_softmax", 4),
    "exp / sum": (lambda v: v.exp() / v.exp().sum(1, keepdim=True), "softmax", 4),
    "shifted exp / sum": (
        lambda v: (
            (v - v.amax(1, keepdim=True)).exp() / ((v - v.amax(1, keepdim=True)).exp().sum(1, keepdim=True) + 1e-12)
        ),
        "softmax",
        4,
    ),
    "softplus, normalised": (lambda v: functional.normalize(functional.softplus(v), p=1, dim=1), "softmax", 4),
    "exp of log_softmax": (lambda v: v.log_softmax(1).exp(), "softmax", 4),
    "softmin": (lambda v: functional.softmin(v, 1), "softmax", 4),
    "a clipped softmax": (lambda v: v.softmax(1).clamp(1e-7, 1 - 1e-7), "softmax", 4),
    "a softmax in double": (lambda v: v.double().softmax(1).float(), "softmax", 4),
    "a mean of softmaxes": (lambda v: v.reshape(-1, 4, 2).softmax(1).mean(2), "softmax", 8),
    "1x1 maps, flattened": (lambda v: v[:, :, None, None].softmax(1).flatten(1), "softmax", 4),
    "channels last": (lambda v: v[:, :, None].permute(0, 2, 1).softmax(2).squeeze(1), "softmax", 4),
    "p and 1 - p": (lambda v: torch.cat([1 - v.sigmoid(), v.sigmoid()], 1), "softmax", 1),
    "sigmoid": (torch.sigmoid, "sigmoid", 1),
    "sigmoid without a channel": (lambda v: v.sigmoid()[:, 0], "sigmoid", 1),
    "1 / (1 + exp(-x))": (lambda v: 1 / (1 + torch.exp(-v)), "sigmoid", 1),
    "exp(x) / (1 + exp(x))": (lambda v: v.exp() / (1 + v.exp()), "sigmoid", 1),
    "(1 + tanh(x)) / 2": (lambda v: (torch.tanh(v) + 1) / 2, "sigmoid", 1),
    "one class of a softmax": (lambda v: v.softmax(1)[:, 1], "sigmoid", 4),
    "one class of a softmax, kept apart": (lambda v: v.softmax(1)[:, 1:2], "sigmoid", 4),
    "one class, by split": (lambda v: v.softmax(1).split(1, 1)[2].squeeze(1), "sigmoid", 4),
    "classes without the background": (lambda v: v.softmax(1)[:, 1:], "sigmoid", 4),
    "sigmoids side by side": (lambda v: torch.cat([v[:, :1].sigmoid(), v[:, 1:].sigmoid()], 1), "sigmoid", 4),
    "a part of what was joined": (lambda v: torch.cat([v[:, :2], v[:, 2:].softmax(1)], 1)[:, 2:], "softmax", 5),
    "a softmax and then a layer": (lambda v: v.softmax(1) @ torch.ones(4, 3).triu(), "none", 4),
    "logits": (lambda v: v, "none", 4),
    "scaled logits": (lambda v: v / 0.7 - 1, "none", 4),
    "logits from what was joined": (lambda v: torch.cat([v[:, :3].sigmoid(), v[:, 3:]], 1)[:, 3:], "none", 6),
    "a swish": (functional.silu, "none", 4),
    "tanh": (torch.tanh, "none", 4),
    "the logarithm of a sigmoid, exp": (lambda v: functional.logsigmoid(v).exp(), "sigmoid", 1),
}


WARNED: dict[str, tuple[made.Form, str, int]] = {
    "clamp": (lambda v: (v / 40 + 0.5).clamp(0, 1), "sigmoid", 1),
    "a hard sigmoid": (lambda v: functional.hardsigmoid(v / 4), "sigmoid", 1),
    "a softmax over another axis": (lambda v: v.reshape(-1, 4, 2).softmax(2)[:, :, 0], "sigmoid", 8),
    "weighted softmaxes": (lambda v: 0.25 * v[:, :4].softmax(1) + 0.75 * v[:, 4:].softmax(1), "softmax", 8),
    "layers on a softmax": (lambda v: v.softmax(1) @ (torch.ones(4, 4) / 8 + torch.eye(4) / 2), "softmax", 4),
    "weighted logarithms": (
        lambda v: torch.logaddexp(v[:, :4].log_softmax(1), v[:, 4:].log_softmax(1)) - 0.6931472,
        "log_softmax",
        8,
    ),
}
OTHERS: dict[str, tuple[made.Form, str, int]] = {
    "mixed": (lambda v: torch.cat([v[:, :1].sigmoid(), v[:, 1:]], 1), "", 4),
    "two softmaxes": (lambda v: torch.cat([v[:, :2].softmax(1), v[:, 2:].softmax(1)], 1), "", 4),
    "log_sigmoid": (functional.logsigmoid, "", 1),
    "sigmoids": (torch.sigmoid, "", 2),
    "one softmax": (lambda v: v.softmax(1), "", 1),
    "constant": (lambda v: (0 * v).clamp(0, 1) + 0.5, "", 1),
    "dead": (lambda v: functional.relu(v - 1e4), "", 1),
    "decided": (lambda v: (1e6 * v).clamp(0, 1), "", 1),
    "one hot": (lambda v: functional.one_hot(v.argmax(1), 4).float(), "", 4),
    "reaching": (lambda v: (4 * v + 0.5).clamp(-1, 2), "", 1),
}
ALL = FORMS | WARNED | OTHERS
Heads = dict[str, tuple[Any, np.ndarray]]
