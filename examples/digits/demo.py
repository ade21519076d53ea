"""What a deployment gives: predictions on held-out digits beside the labels, in a table and a picture, and each graph's accuracy.

python examples/digits/demo.py .demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import data
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mtl_deploy.runtime import load
from mtl_deploy.runtime.console.command import table

SHOWN = 8
SIDE = 160  # pixels of one image in the picture
PICTURE = "predictions.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that train.py wrote, with model.mtl in it")
    folder = parser.parse_args().folder
    labels = list(data.read_labels(folder / "images" / "test"))
    print(
        f"{SHOWN} of {len(labels)} held-out images, one pass of the network each:\n{examples(folder, labels[:SHOWN])}\n"
    )
    print(f"All of them, through the deployed graphs:\n{accuracy(folder, labels)}\n")
    picture(folder, labels[:SHOWN]).save(folder / PICTURE)
    print(f"The {SHOWN} images as a picture: {folder / PICTURE}")


def examples(folder: Path, labels: list[tuple[Path, int, int, float]]) -> str:
    """Return a table of predictions next to the labels."""
    rows = []
    with load(folder / "model.mtl") as model:
        names = {task.name: task.labels for task in model.tasks}
        for path, digit, parity, ink in labels:
            found = model.predict(path)
            truth = names["digit"][digit], names["parity"][parity], f"{ink:.2f} %"
            rows.append([path.name, *(str(found[task]) for task in ("digit", "parity", "ink")), *truth])
    return table(["image", "digit", "parity", "ink", "true digit", "true parity", "true ink"], rows)


def picture(folder: Path, labels: list[tuple[Path, int, int, float]]) -> Image.Image:
    """Return the images beside one another, each with what was predicted and what is true; a wrong class is red."""
    lines, columns = 22, 4
    rows = -(-len(labels) // columns)
    sheet = Image.new("RGB", (columns * (SIDE + 20) + 20, rows * (SIDE + 20 + 4 * lines) + 20), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    with load(folder / "model.mtl") as model:
        names = {task.name: task.labels for task in model.tasks}
        for position, (path, digit, parity, ink) in enumerate(labels):
            left = 20 + position % columns * (SIDE + 20)
            top = 20 + position // columns * (SIDE + 20 + 4 * lines)
            with Image.open(path) as image:
                sheet.paste(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
            found = model.predict(path)
            wrong = found["digit"].value != digit or found["parity"].value != parity
            truth = f"true: {names['digit'][digit]}, {names['parity'][parity]}, {ink:.1f} %"
            said = [*(str(found[task]) for task in ("digit", "parity", "ink")), truth]
            for number, line in enumerate(said):
                colour = "black" if number == 3 else "firebrick" if wrong else "darkgreen"
                pen.text((left, top + SIDE + 4 + number * lines), line, fill=colour, font=font)
    return sheet


def accuracy(folder: Path, labels: list[tuple[Path, int, int, float]]) -> str:
    """Return a table: how often each precision's graph is right, and how far off its ink is."""
    paths = [path for path, *_ in labels]
    digit, parity, ink = (np.array(column) for column in zip(*(row[1:] for row in labels), strict=True))
    rows = []
    for precision in ("fp32", "fp16"):
        with load(folder / "model.mtl", precision=precision) as model:
            found = [row for start in range(0, len(paths), 60) for row in model.predict(paths[start : start + 60])]
        rows.append(
            [
                f"{precision}.onnx",
                f"{100 * np.mean([row['digit'].value for row in found] == digit):.1f} %",
                f"{100 * np.mean([row['parity'].value for row in found] == parity):.1f} %",
                f"{np.mean(np.abs([row['ink'].value for row in found] - ink)):.2f} points off",
            ]
        )
    return table(["graph", "digit right", "parity right", "ink"], rows)


if __name__ == "__main__":
    main()
