"""Train a ResNet-18 with three heads on real digits, and write what a deployment needs.

    python examples/digits/train.py --out .demo

writes ``model.pt`` (a state_dict in the layout of the article that the project starts from), ``tasks.toml``, and
``images/train`` and ``images/test`` with their labels. 1 to 2 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import data
import numpy as np
import torch
import weighting
from torch import Tensor, nn

from mtl_deploy.export.networks import article
from mtl_deploy.runtime.console.command import table

HERE = Path(__file__).parent
TASKS = ("digit", "parity", "ink")
SIZES = (10, 1, 1)  # outputs per head
INK_SCALE = 10.0  # percent per unit of the network's output; the same as in tasks.toml
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the exporter assumes


def main() -> None:
    arguments = parse()
    torch.manual_seed(arguments.seed)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    train, test = data.load()
    if arguments.limit:
        train = data.Split(*(values[: arguments.limit] for values in vars(train).values()))
    for name, split in (("train", train), ("test", test)):
        data.write(split, arguments.out / "images" / name)
    network = make_network()
    fit(network, train, test, arguments)
    torch.save(network.state_dict(), arguments.out / "model.pt")
    shutil.copy(HERE / "tasks.toml", arguments.out / "tasks.toml")
    print(results(network, train, test))
    print(
        f"wrote {arguments.out}/model.pt, tasks.toml, images/train ({len(train)}) and images/test ({len(test)}, held out)"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".demo"), help="folder to write (default: .demo)")
    parser.add_argument("--weighting", choices=weighting.NAMES, default="fixed", help="how the losses are weighted")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    parser.add_argument("--limit", type=int, help="train on this many images only")
    return parser.parse_args()


def make_network() -> nn.Module:
    """Return a fresh ResNet-18 with one head per task, with the names that ``mtl-export`` knows."""
    heads = tuple(article.Head(hidden=512, size=size) for size in SIZES)
    return article.build(article.Layout(False, (2, 2, 2, 2), groups=1, width_per_group=64, heads=heads))


def forward(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Run the backbone once and each head on its features; the network's own ``forward`` runs it once per head."""
    features = network.net(images)
    return [network.net.get_submodule(f"fc{number}")(features) for number in range(1, len(SIZES) + 1)]


def losses_of(outputs: list[Tensor], digit: Tensor, parity: Tensor, ink: Tensor) -> list[Tensor]:
    """Return cross entropy, binary cross entropy on logits, and L1 in tens of percent."""
    digits, odd, tens = outputs
    return [
        nn.functional.cross_entropy(digits, digit),
        nn.functional.binary_cross_entropy_with_logits(odd[:, 0], parity.float()),
        nn.functional.l1_loss(tens[:, 0], ink / INK_SCALE),
    ]


def make_weighting(name: str, network: nn.Module, seed: int) -> weighting.Weighting:
    """Return the method that balances the losses."""
    heads = [p for key, p in network.named_parameters() if key.startswith("net.fc")]
    shared = [p for key, p in network.named_parameters() if not key.startswith("net.fc")]
    if name == "uncertainty":
        return weighting.Uncertainty([False, False, True])
    if name == "gradnorm":
        return weighting.GradNorm(network.net.layer4[-1].conv2.weight, len(TASKS))
    if name == "pcgrad":
        return weighting.PCGrad(shared, heads, seed)
    return weighting.Fixed([1.0] * len(TASKS))


def fit(network: nn.Module, train: data.Split, test: data.Split, arguments: argparse.Namespace) -> list[list[float]]:
    """Train, print one line per epoch, and return the mean losses of each epoch."""
    balance = make_weighting(arguments.weighting, network, arguments.seed)
    optimizer = torch.optim.AdamW([*network.parameters(), *balance.parameters()], lr=arguments.learning_rate)
    steps = arguments.epochs * -(-len(train) // arguments.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.learning_rate, total_steps=steps)
    history = []
    for epoch in range(1, arguments.epochs + 1):
        started = time.perf_counter()
        network.train()
        sums = np.zeros(len(TASKS))
        for images, *truth in batches(train, arguments.batch, seed=(arguments.seed, epoch)):
            optimizer.zero_grad()
            losses = losses_of(forward(network, images), *truth)
            balance.backward(losses)
            optimizer.step()
            schedule.step()
            sums += len(images) * np.array([loss.item() for loss in losses])
        history.append((sums / len(train)).tolist())
        shown = ", ".join(f"{task} {loss:.3f}" for task, loss in zip(TASKS, history[-1], strict=True))
        scores = ", ".join(
            f"{task} {text}" for task, text in zip(TASKS, score_texts(evaluate(network, test)), strict=True)
        )
        seconds = time.perf_counter() - started
        line = f"epoch {epoch}/{arguments.epochs}: losses {shown}; held out {scores}; balance {balance.describe()}"
        print(f"{line}; {seconds:.0f} s", flush=True)
    return history


def batches(split: data.Split, size: int, seed: tuple[int, int]) -> Iterator[tuple[Tensor, ...]]:
    """Yield shuffled batches, each image shifted by up to 4 pixels; a last batch of one image is left out (BatchNorm)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        if len(chosen) < 2:
            return
        images = split.images[chosen]
        shifts = rng.integers(-4, 5, (len(chosen), 2))
        moved = np.stack([np.roll(image, tuple(shift), (0, 1)) for image, shift in zip(images, shifts, strict=True)])
        yield (
            normalised(moved),
            torch.from_numpy(split.digit[chosen]),
            torch.from_numpy(split.parity[chosen]),
            torch.from_numpy(split.ink[chosen]),
        )


def normalised(images: np.ndarray) -> Tensor:
    """Turn ``(N, H, W, 3) uint8`` into the ``(N, 3, H, W) float32`` that the network takes."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return ((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous()


def evaluate(network: nn.Module, split: data.Split) -> tuple[float, float, float]:
    """Return the accuracy of digit and parity, and the mean absolute error of ink in percent."""
    network.eval()
    with torch.inference_mode():
        parts = [forward(network, normalised(split.images[i : i + 64])) for i in range(0, len(split), 64)]
    digits, odd, tens = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return (
        float(np.mean(digits.argmax(1) == split.digit)),
        float(np.mean((odd[:, 0] > 0) == split.parity)),
        float(np.abs(tens[:, 0] * INK_SCALE - split.ink).mean()),
    )


def score_texts(scores: tuple[float, float, float]) -> list[str]:
    """Return the scores with their units."""
    return [f"{100 * scores[0]:.1f} %", f"{100 * scores[1]:.1f} %", f"{scores[2]:.2f} points off"]


def results(network: nn.Module, train: data.Split, test: data.Split) -> str:
    """Return a table: the network on held-out images beside the best constant answer."""
    constant = (
        float(np.mean(test.digit == np.bincount(train.digit).argmax())),
        float(np.mean(test.parity == np.bincount(train.parity).argmax())),
        float(np.abs(test.ink - np.median(train.ink)).mean()),
    )
    columns = score_texts(evaluate(network, test)), score_texts(constant)
    return table(["task", "held out", "best constant answer"], list(zip(TASKS, *columns, strict=True)))


if __name__ == "__main__":
    main()
