"""A network that repeats itself is run once, and answers as it does otherwise, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mtl_deploy.export.forward import once as module
from mtl_deploy.export.forward.once import PAYS, once
from mtl_deploy.export.forward.probe import probe
from mtl_deploy.export.forward.running import run
from mtl_deploy.export.forward.selected import Selected

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Layers(nn.Module):
    """A backbone that changes its values in place, as torchvision's ResNets do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.relu(self.first(images))
        kept = found
        found = self.norm(self.second(found))
        found += kept
        return self.relu(found).mean((2, 3))


class Repeating(nn.Module):
    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.layers, self.times = Layers(), times

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.layers(images) * (number + 1) for number in range(self.times))


class Changing(nn.Module):
    """Computes the same from values that it changes in between, through a view and in the images themselves."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = images.clone()
        first = torch.exp(values).sum((1, 2, 3))
        values[:, 0].mul_(2)
        second = torch.exp(values).sum((1, 2, 3))
        images.add_(1)
        third = torch.exp(images).sum((1, 2, 3))
        return first, second, third


class Drawing(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dropped = [nn.functional.dropout(images, training=True).sum((1, 2, 3)) for _ in range(2)]
        return dropped[0], dropped[1], torch.rand_like(images).sum((1, 2, 3)), torch.rand_like(images).sum((1, 2, 3))


class Telling(nn.Module):
    """Calls one operator with arguments that are equal and mean something else, and with views at one address."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        zero = torch.zeros_like(images)
        return (
            torch.pow(images, 2.0),
            torch.pow(images, 2),
            torch.copysign(images, 0.0),
            torch.copysign(images, -0.0),
            zero + images[:, :1],
            zero + images[:, :1].expand(-1, 3, -1, -1),
            torch.exp(images.transpose(2, 3)),
            torch.exp(images),
        )


def answers(network: nn.Module, images: torch.Tensor = IMAGES) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        found: tuple[torch.Tensor, ...] = network(images.clone())
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_repeated_is_left_out_and_the_answers_stay(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Repeating().to(dtype)
    calls: list[int] = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, values: calls.append(1) or forward(self, values))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        ran = once(network, IMAGES.to(dtype))
    computed = sum(event.count for event in profiled.key_averages() if event.key == "aten::_convolution")
    assert ran is not None
    assert ran.share > PAYS
    assert computed == 2, "each convolution once"
    assert len(calls) == 6, "its own code runs each time"
    assert all(map(torch.equal, ran.result, answers(network, IMAGES.to(dtype))))


@pytest.mark.parametrize("network", [Changing(), Telling(), Repeating(1)])
def test_only_what_is_the_same_is_left_out(network: nn.Module) -> None:
    ran = once(network, IMAGES.clone())
    assert ran is not None
    assert ran.share < PAYS
    assert all(map(torch.equal, ran.result, answers(network)))


def test_random_numbers_are_drawn_each_time() -> None:
    ran = once(Drawing(), IMAGES)
    assert ran is not None
    first, second, third, fourth = ran.result
    assert not torch.equal(first, second)
    assert not torch.equal(third, fourth)


class Leaving(nn.Module):
    """Reads its values outside of PyTorch."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        nn.functional.relu(images, inplace=True)
        exp = torch.exp(images)
        return torch.from_numpy(images.numpy() * 2), torch.tensor(exp.tolist())


def test_a_network_that_leaves_pytorch_finds_its_values() -> None:
    ran = once(Leaving(), IMAGES - 0.5)
    assert ran is not None
    assert all(map(torch.equal, ran.result, answers(Leaving(), IMAGES - 0.5)))


def test_a_network_that_cannot_be_followed_is_run_as_usual() -> None:
    class Failing(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            if not torch.is_inference_mode_enabled():
                raise ValueError
            return (images * 2,)

    assert once(Failing(), IMAGES) is None
    (found,) = run(Failing(), IMAGES, repeats=True)
    assert torch.equal(found, IMAGES * 2)


def test_what_takes_too_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Repeating()
    monkeypatch.setattr(module, "MOST", 3 * 8 * 16 * 16 * 4)
    ran = once(network, IMAGES)
    assert ran is not None
    assert ran.share < PAYS
    assert all(map(torch.equal, ran.result, answers(network)))


def test_images_are_run_a_few_at_a_time() -> None:
    found = run(Repeating(), IMAGES, repeats=True)
    pairs = [answers(Repeating(), piece) for piece in IMAGES.split(2)]
    assert all(torch.equal(value, torch.cat(each)) for value, each in zip(found, zip(*pairs, strict=True), strict=True))
    whole = run(Repeating(), IMAGES, repeats=True, batch=3)
    assert all(map(torch.equal, whole, answers(Repeating())))


@pytest.mark.parametrize(("network", "repeats"), [(Repeating(), True), (Repeating(1), False), (Leaving(), False)])
def test_a_network_is_known_to_repeat_itself(network: nn.Module, repeats: bool) -> None:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found = probe(network, images, {}, program=False)
    selected = Selected(network, tuple(range(len(found.result))))
    assert found.require_steady(selected) == repeats
    assert all(map(torch.equal, found.result, answers(network, images)))
