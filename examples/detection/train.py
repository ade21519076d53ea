"""Train a small network on rendered rooms: boxes of objects, a mask of the floor, and the conditions of the image.

    python examples/detection/train.py --out .detection

writes ``model.pt`` (a state_dict), ``tasks.toml``, and ``train`` and ``test`` with ``images`` and ``labels``; ``test`` is not used
for training.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import labels
import numpy as np
import rooms as data
import scoring
import torch
from losses import WEIGHTS, Truth, assign, losses_of, mirrored
from network import decoded, make
from torch import Tensor, nn
from torchvision.ops import batched_nms

from mtl_deploy.runtime.console.command import table

HERE = Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the exporter assumes
WARM_UP = 0.2  # share of the steps in which the learning rate rises
LEAST_SCORE, OVERLAP, MOST = 0.05, 0.45, 100  # of boxes that are kept; the overlap is that of tasks.toml


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    height, width = arguments.size
    started = time.perf_counter()
    train = data.generate(arguments.images, height, width, seed=(arguments.seed, 0))
    test = data.generate(arguments.test_images, height, width, seed=(arguments.seed, 1))
    for name, split in (("train", train), ("test", test)):
        labels.write(split, arguments.out / name)
    seconds = time.perf_counter() - started
    print(f"rendered {len(train)} + {len(test)} images of {height}x{width} in {seconds:.0f} s", flush=True)
    counts = np.bincount(np.concatenate([objects.classes for objects in train.objects]), minlength=len(data.CLASSES))
    print("objects to train on: " + ", ".join(f"{n} {name}" for name, n in zip(data.CLASSES, counts, strict=True)))
    network = fit(train, arguments)
    torch.save(network.state_dict(), arguments.out / "model.pt")
    shutil.copy(HERE / "tasks.toml", arguments.out / "tasks.toml")
    print(results(network, train, test))
    print(f"wrote {arguments.out}/model.pt, tasks.toml, train ({len(train)}) and test ({len(test)} images, held out)")


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".detection"), help="folder to write (default: .detection)")
    parser.add_argument("--seed", type=int, default=0, help="for the rooms and the training")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--size", type=parse_size, default=(128, 160), metavar="HEIGHTxWIDTH", help="multiples of 32")
    parser.add_argument("--images", type=int, default=1200, help="training images")
    parser.add_argument("--test-images", type=int, default=160, help="held-out images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="maximum of the one-cycle schedule")
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    return parser.parse_args(given)


def parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def fit(train: data.Rooms, arguments: argparse.Namespace) -> nn.Module:
    """Train a fresh network, print one line per epoch, and return it."""
    torch.manual_seed(arguments.seed)
    network = make().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.learning_rate, weight_decay=1e-2, fused=True)
    steps = arguments.epochs * -(-len(train) // arguments.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.learning_rate, total_steps=steps, pct_start=WARM_UP
    )
    for epoch in range(1, arguments.epochs + 1):
        started = time.perf_counter()
        means = run_epoch(network, train, optimizer, schedule, arguments.batch, (arguments.seed, epoch))
        shown = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        seconds = time.perf_counter() - started
        print(f"epoch {epoch}/{arguments.epochs}: losses {shown}; {seconds:.0f} s", flush=True)
    return network


def run_epoch(
    network: nn.Module,
    train: data.Rooms,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: int,
    seed: tuple[int, int],
) -> dict[str, float]:
    """Train on all images once; return the mean of each loss."""
    network.train()
    sums = dict.fromkeys(WEIGHTS, 0.0)
    count = 0
    for images, truth in batches(train, batch, seed):
        optimizer.zero_grad()
        losses = losses_of(network(images), truth)
        torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum().backward()
        optimizer.step()
        schedule.step()
        count += 1
        for name, loss in losses.items():
            sums[name] += loss.item()
    return {name: total / count for name, total in sums.items()}


def batches(rooms: data.Rooms, size: int, seed: tuple[int, int]) -> Iterator[tuple[Tensor, Truth]]:
    """Yield shuffled batches, half of them mirrored; a last batch of one image is left out (BatchNorm)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rooms))
    height, width = rooms.images.shape[1:3]
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        if len(chosen) < 2:
            return
        images, floor = normalised(rooms.images[chosen]), torch.from_numpy(rooms.floor[chosen])[:, None].float()
        objects = [rooms.objects[place] for place in chosen]
        if rng.random() < 0.5:
            images, floor = images.flip(-1), floor.flip(-1)
            objects = [mirrored(each, width) for each in objects]
        boxes, classes = zip(*(assign(each, (height, width)) for each in objects), strict=True)
        conditions = torch.from_numpy(rooms.conditions[chosen]).float()
        yield images, Truth(torch.stack(boxes), torch.stack(classes), floor, conditions)


def normalised(images: np.ndarray) -> Tensor:
    """Turn ``(N, H, W, 3) uint8`` into the ``(N, 3, H, W) float32`` that the network takes."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return ((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous(
        memory_format=torch.channels_last
    )


def predicted(
    network: nn.Module, images: np.ndarray, batch: int = 40
) -> tuple[list[scoring.Boxes], np.ndarray, np.ndarray]:
    """Return the boxes of each image after suppression, the floor ``(N, H, W) bool``, and the conditions ``(N, 4) bool``."""
    network.eval()
    boxes, floor, conditions = [], [], []
    size = images.shape[1], images.shape[2]
    for start in range(0, len(images), batch):
        with torch.inference_mode():
            outputs = network(normalised(images[start : start + batch]))
            corners, logits = decoded(outputs, size)
            boxes += [kept(*each) for each in zip(corners, logits.sigmoid(), strict=True)]
            full = nn.functional.interpolate(outputs["floor"], size=size, mode="bilinear", align_corners=False)
            floor.append((full[:, 0] > 0).numpy())
            conditions.append((outputs["conditions"] > 0).numpy())
    return boxes, np.concatenate(floor), np.concatenate(conditions)


def kept(boxes: Tensor, scores: Tensor) -> scoring.Boxes:
    """Return the best boxes of one image, each with its best class: those of a class hardly overlap."""
    best, kinds = scores.max(dim=1)
    high = best > LEAST_SCORE
    boxes, best, kinds = boxes[high], best[high], kinds[high]
    order = batched_nms(boxes, best, kinds, OVERLAP)[:MOST]
    return scoring.Boxes(boxes[order].double().numpy(), best[order].double().numpy(), kinds[order].numpy())


def results(network: nn.Module, train: data.Rooms, test: data.Rooms) -> str:
    """Return a table: the network on held-out images beside the best constant answers."""
    boxes, floor, conditions = predicted(network, test.images)
    constant = [scoring.constant_boxes(train)] * len(test)
    rows = [
        ["network", *texts(boxes, floor, conditions, test)],
        [
            "best constant answer",
            *texts(constant, scoring.constant_floor(train)[None], scoring.constant_conditions(train), test),
        ],
    ]
    return table(["held-out images", "objects: mAP 50", "floor: IoU", "conditions: right"], rows)


def texts(boxes: list[scoring.Boxes], floor: np.ndarray, conditions: np.ndarray, test: data.Rooms) -> list[str]:
    """Return the three figures with their units."""
    return [
        f"{scoring.average_precision(boxes, test.objects)['map_50']:.3f}",
        f"{100 * scoring.floor_iou(floor, test.floor):.1f} %",
        f"{100 * np.mean(conditions == test.conditions):.1f} %",
    ]


if __name__ == "__main__":
    main()
