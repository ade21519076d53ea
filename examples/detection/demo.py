"""What a deployment gives: boxes, floor and conditions of held-out images, and how good it is beside answers that do not look.

    python examples/detection/demo.py .detection

The figures are those of ``mtl-calibrate --evaluate-only``, for each precision that the bundle holds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import labels
import rooms as data
import scoring

from mtl_deploy.calibration.measure import measure_bundle
from mtl_deploy.runtime import load
from mtl_deploy.runtime.console.command import Progress, table

SHOWN = 6
FIGURES = (  # task, metric, its name; all are shares
    ("objects", "map_50", "mAP 50"),
    ("objects", "map", "mAP 50:95"),
    ("floor", "iou", "IoU"),
    ("conditions", "mean_accuracy", "right"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that train.py wrote, with model.mtl in it")
    parser.add_argument("--threads", type=int, help="ONNX Runtime's threads")
    arguments = parser.parse_args()
    folder = arguments.folder
    train, test = labels.read(folder / "train"), labels.read(folder / "test")
    print(f"{SHOWN} of {len(test)} held-out images, one pass of the network each:\n{examples(folder, test)}\n")
    print(f"All of them, through the deployed graphs:\n{accuracy(folder, train, test, arguments.threads)}")


def examples(folder: Path, test: data.Rooms) -> str:
    """Return a table of predictions next to the labels."""
    paths = sorted((folder / "test" / "images").glob("*.png"))[:SHOWN]
    with load(folder / "model.mtl") as model:
        found = [model.predict(path) for path in paths]
    rows = []
    for place, (path, each) in enumerate(zip(paths, found, strict=True)):
        rows.append([path.name, *(str(each[name]) for name in ("objects", "floor", "conditions"))])
        rows.append(["", *truth(test, place)])
    return table(["image, truth below", "objects", "floor", "conditions"], rows)


def truth(test: data.Rooms, place: int) -> list[str]:
    """Return the labels of an image as text."""
    kinds = test.objects[place].classes
    counts = [(int((kinds == kind).sum()), name) for kind, name in enumerate(data.CLASSES)]
    held = [name for name, holds in zip(data.CONDITIONS, test.conditions[place], strict=True) if holds]
    return [
        ", ".join(f"{count} {name}" for count, name in counts if count),
        f"{100 * test.floor[place].mean():.1f} %",
        ", ".join(held) or "none",
    ]


def accuracy(folder: Path, train: data.Rooms, test: data.Rooms, threads: int | None = None) -> str:
    """Return a table: the figures of each precision's graph, and of the best answers that do not look at the image."""
    measured = measure_bundle(
        folder / "model.mtl",
        folder / "test" / "images",
        labels=folder / "test" / "labels",
        threads=threads,
        progress=Progress(quiet=True),
    )
    cells = measured.matrix.cells
    precisions = list(dict.fromkeys(cell.variant for cell in cells))
    constant = constant_figures(train, test)
    rows = []
    for task, metric, name in FIGURES:
        figures = [measured.matrix.cell(task, precision).metrics[metric] for precision in precisions]
        shown = [f"{100 * figure:.1f} %" for figure in (*figures, constant[task, metric])]
        rows.append([task, name, *shown])
    return table(["task", "metric", *(f"{precision}.onnx" for precision in precisions), "best constant answer"], rows)


def constant_figures(train: data.Rooms, test: data.Rooms) -> dict[tuple[str, str], float]:
    """Return the figures, by task and metric, of answers that are the same for all images; see ``scoring.py``."""
    boxes = scoring.average_precision([scoring.constant_boxes(train)] * len(test), test.objects)
    return {
        **{("objects", metric): figure for metric, figure in boxes.items()},
        ("floor", "iou"): scoring.floor_iou(scoring.constant_floor(train)[None], test.floor),
        ("conditions", "mean_accuracy"): float((scoring.constant_conditions(train) == test.conditions).mean()),
    }


if __name__ == "__main__":
    main()
