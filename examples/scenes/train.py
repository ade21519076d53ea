"""Train a small network for segmentation, depth and normals on rendered scenes, few of which have all labels.

    python examples/scenes/train.py --out .scenes

A teacher learns from the labels that exist; then a fresh student learns from these and, where a frame lacks a label, from the
teacher's prediction, as in Nekrasov et al. (arXiv 1809.04766). The teacher has the same architecture as the student, which keeps
training short and shows what the predictions are worth: it is a student without them. ``--wide-teacher`` trains a larger teacher,
as in the paper, and a student without predictions as well.

Writes ``model.pt`` (the student's state_dict), ``tasks.toml``, ``train.npz``, and ``test/images`` and ``test/labels``, which are
not used for training.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import frames as data
import numpy as np
import torch
from objectives import Scores, Truth, class_weights, constant_scores, full_size, losses_of
from torch import Tensor, nn

from mtl_deploy.export.networks import refinenet
from mtl_deploy.runtime.console.command import table

HERE = Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the exporter assumes
WEIGHTS = {"segmentation": 1.5, "depth": 0.7, "normals": 3.0}  # of the losses, so that they have a similar size
WARM_UP = 0.2  # share of the steps in which the learning rate rises

ALONE = "student without the teacher's labels"


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    height, width = arguments.size
    started = time.perf_counter()
    full = data.generate(arguments.frames, height, width, seed=(arguments.seed, 0))
    test = data.generate(arguments.test_frames, height, width, seed=(arguments.seed, 1))
    known = data.annotations(len(full), arguments.seed)
    train = data.hide(full, known)
    print(
        f"rendered {len(train)} + {len(test)} frames of {height}x{width} in {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    print("training frames with " + ", ".join(f"{task}: {n}" for task, n in zip(data.TASKS, known.sum(0), strict=True)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    data.save(train, arguments.out / "train.npz")
    data.write(test, arguments.out / "test")
    shutil.copy(HERE / "tasks.toml", arguments.out / "tasks.toml")

    teacher = fit("teacher", make_wide if arguments.wide_teacher else refinenet.small, train, arguments)
    student = fit("student", refinenet.small, filled(teacher, train), arguments)
    networks = {"student": student, "teacher (wide)" if arguments.wide_teacher else ALONE: teacher}
    if arguments.wide_teacher:
        networks[ALONE] = fit("student without teacher", refinenet.small, train, arguments)
    torch.save(student.state_dict(), arguments.out / "model.pt")
    print(results(networks, train, test))
    print(f"wrote {arguments.out}/model.pt, tasks.toml, train.npz and test ({len(test)} frames, held out)")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".scenes"), help="folder to write (default: .scenes)")
    parser.add_argument("--seed", type=int, default=0, help="for the scenes and the trainings")
    parser.add_argument("--epochs", type=int, default=6, help="epochs per training")
    parser.add_argument("--size", type=parse_size, default=(96, 128), metavar="HEIGHTxWIDTH", help="multiples of 32")
    parser.add_argument("--frames", type=int, default=1400, help="training frames")
    parser.add_argument("--test-frames", type=int, default=120, help="held-out frames")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=8e-3, help="maximum of the one-cycle schedule")
    parser.add_argument(
        "--wide-teacher", action="store_true", help="use a larger network as teacher; takes about three times as long"
    )
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    return parser.parse_args()


def parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def make_wide() -> nn.Module:
    """Return a network like the student, with a wider encoder and decoder."""
    return refinenet.joint(segmentation=len(data.CLASSES), normals=True, width=0.75, decoder=128)


def fit(name: str, make: Callable[[], nn.Module], train: data.Frames, arguments: argparse.Namespace) -> nn.Module:
    """Train a fresh network on the labels that the frames have, print one line per epoch, and return it."""
    torch.manual_seed(arguments.seed)
    network = make().to(memory_format=torch.channels_last)  # much faster for depthwise convolutions on a CPU
    nn.init.constant_(
        network.heads["depth"][-1].bias, float(np.nanmean(train.depth))
    )  # so that training starts from the mean depth
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.learning_rate, weight_decay=1e-2, fused=True)
    steps = arguments.epochs * -(-len(train) // arguments.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.learning_rate, total_steps=steps, pct_start=WARM_UP
    )
    weights = class_weights(train)
    for epoch in range(1, arguments.epochs + 1):
        started = time.perf_counter()
        means = run_epoch(network, train, optimizer, schedule, arguments.batch, (arguments.seed, epoch), weights)
        shown = ", ".join(f"{task} {means[task]:.3f}" for task in data.TASKS)
        seconds = time.perf_counter() - started
        print(f"{name}, epoch {epoch}/{arguments.epochs}: losses {shown}; {seconds:.0f} s", flush=True)
    return network


def run_epoch(
    network: nn.Module,
    train: data.Frames,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: int,
    seed: tuple[int, int],
    weights: Tensor | None = None,
) -> dict[str, float]:
    """Train on all frames once; return each task's mean loss. ``weights``: class weights."""
    network.train()
    sums = dict.fromkeys(data.TASKS, 0.0)
    count = 0
    for images, truth in batches(train, batch, seed):
        optimizer.zero_grad()
        losses = losses_of(full_size(network(images), images.shape[-2:]), truth, weights)
        torch.stack([WEIGHTS[task] * loss for task, loss in losses.items()]).sum().backward()
        optimizer.step()
        schedule.step()
        count += 1
        for task, loss in losses.items():
            sums[task] += loss.item()
    return {task: total / count for task, total in sums.items()}


def batches(frames: data.Frames, size: int, seed: tuple[int, int]) -> Iterator[tuple[Tensor, Truth]]:
    """Yield shuffled batches, half of them mirrored, which changes the sign of the normals' x as well."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(frames))
    for start in range(0, len(order), size):
        chosen = frames[order[start : start + size]]
        images, truth = normalised(chosen.images), tensors(chosen)
        if rng.random() < 0.5:
            images = images.flip(-1)
            truth = {task: values.flip(-1) for task, values in truth.items()}
            truth["normals"] = truth["normals"] * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
        yield images, truth


def normalised(images: np.ndarray) -> Tensor:
    """Turn ``(N, H, W, 3) uint8`` into the ``(N, 3, H, W) float32`` that the network takes."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return ((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous(
        memory_format=torch.channels_last
    )


def tensors(frames: data.Frames) -> Truth:
    """Return the labels in the layout of the losses."""
    return {
        "segmentation": torch.from_numpy(frames.segmentation).long(),
        "depth": torch.from_numpy(frames.depth)[:, None],
        "normals": torch.from_numpy(frames.normals).permute(0, 3, 1, 2),
    }


def predicted(network: nn.Module, images: np.ndarray, batch: int = 50) -> Iterator[tuple[slice, np.ndarray, ...]]:
    """Yield for each batch: its position, classes ``(n, H, W)``, depth ``(n, H, W)``, unit normals ``(n, H, W, 3)``."""
    network.eval()
    for start in range(0, len(images), batch):
        place = slice(start, start + batch)
        with torch.inference_mode():
            outputs = full_size(network(normalised(images[place])), images.shape[1:3])
            classes = outputs["segmentation"].argmax(1).to(torch.uint8)
            normals = nn.functional.normalize(outputs["normals"], dim=1).permute(0, 2, 3, 1)
        yield place, classes.numpy(), outputs["depth"][:, 0].numpy(), normals.numpy()


def filled(teacher: nn.Module, frames: data.Frames) -> data.Frames:
    """Return the frames with the teacher's predictions where a label is unknown; annotated labels stay."""
    segmentation, depth, normals = (getattr(frames, task).copy() for task in data.TASKS)
    for place, *answers in predicted(teacher, frames.images):
        unknown = segmentation[place] == data.UNKNOWN, np.isnan(depth[place]), np.isnan(normals[place])
        for values, answer, where in zip((segmentation, depth, normals), answers, unknown, strict=True):
            np.copyto(values[place], answer, where=where)
    return replace(frames, segmentation=segmentation, depth=depth, normals=normals)


def evaluate(network: nn.Module, frames: data.Frames) -> Scores:
    """Score a network on labelled frames."""
    scores = Scores()
    for place, classes, depth, normals in predicted(network, frames.images):
        scores.add(classes, depth, normals, frames[place])
    return scores


def results(networks: dict[str, nn.Module], train: data.Frames, test: data.Frames) -> str:
    """Return a table: the networks on held-out frames beside the best constant answers."""
    rows = [[name, *evaluate(network, test).texts()] for name, network in networks.items()]
    rows.append(["best constant answer", *constant_scores(train, test).texts()])
    return table(["held-out frames", "segmentation: mean IoU", "depth: RMSE", "normals: mean angle"], rows)


if __name__ == "__main__":
    main()
