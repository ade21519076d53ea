"""Predictions as one picture: the image with its predictions in words, and a panel with a key for every dense task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.predictions.decoding import Prediction, kind_of
from mtl_deploy.runtime.predictions.drawing import Legend, Scale, Words

from .colours import Pixels, of_numbers
from .fonts import font_of, pillow
from .marks import tinted, with_marks

if TYPE_CHECKING:
    from PIL import Image

    from .fonts import Font

    Picture = Image.Image

SMALLEST = 320  # pixels of a panel's shorter side at least: text must be readable
LARGEST = 960  # pixels of a panel's longer side at most

_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 24), (110, 110, 110)


def show(image: npt.NDArray[np.uint8], predictions: Mapping[str, Prediction], tasks: Sequence[Task]) -> Picture:
    """Draw one image's predictions.

    Args:
        image: ``(H, W, 3) uint8``, RGB, as it was given to ``predict``.
        predictions: by task, for this image; dense ones at its size.
        tasks: the model's.

    Returns:
        an RGB picture (``PIL.Image``): the image with marks on it and, in words below it, what has no panel of
        its own; then one panel per dense task.

    Raises:
        ImageError: Pillow is not installed, or a dense prediction has another size than the image.
    """
    image_module, _, _ = pillow()
    shown = [task for task in tasks if task.name in predictions]
    for task in shown:
        value = predictions[task.name].value
        if task.dense and np.shape(value)[:2] != image.shape[:2]:
            raise ImageError(
                f"task {task.name!r}: predictions of {np.shape(value)[:2]} for an image of {image.shape[:2]}"
            )
    kinds = {task.name: kind_of(task.kind) for task in shown}
    own = {task.name: kinds[task.name].panel(task, predictions[task.name], image) for task in shown}
    lines = [f"{task.name}: {predictions[task.name]}" for task in shown if own[task.name] is None]
    marks = [mark for task in shown for mark in kinds[task.name].marks_on(task, predictions[task.name], image)]
    beside = [(name, panel) for name, panel in own.items() if panel is not None]
    width, height = panel_size(image.shape[1], image.shape[0])
    unit = max(14, round(min(width, height) / 22))
    first = with_marks(_resized(tinted(image, marks), width, height), marks, width / image.shape[1], unit)
    panels = [_panel(first, "" if beside else None, _text_key(lines, width, unit), unit)]
    panels += [
        _panel(_resized(panel.pixels, width, height), name, _key(panel.key, width, unit), unit)
        for name, panel in beside
    ]
    columns = len(panels) if len(panels) < 4 else 2
    rows = -(-len(panels) // columns)
    tallest = [max(panel.height for panel in panels[row * columns : (row + 1) * columns]) for row in range(rows)]
    gap = unit // 2
    sheet: Picture = image_module.new(
        "RGB", (columns * width + (columns + 1) * gap, sum(tallest) + (rows + 1) * gap), _PAPER
    )
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        sheet.paste(panel, (gap + column * (width + gap), gap + sum(tallest[:row]) + row * gap))
    return sheet


def caption(picture: Picture, text: str) -> None:
    """Write a line into a picture's upper left corner, in place, on a background that keeps it readable."""
    if not text:
        return
    _, drawing, _ = pillow()
    draw = drawing.Draw(picture)
    unit = max(14, min(picture.size) // 45)
    font = font_of(unit)
    draw.rectangle((unit // 2, unit // 2, round(unit * 1.5 + font.getlength(text)), 2 * unit), fill=_INK)
    draw.text((unit, round(0.6 * unit)), text, fill=_PAPER, font=font)


def panel_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height in pixels at which an image is shown: enlarged where it is tiny, reduced where it is huge."""
    factor = max(1.0, SMALLEST / min(width, height))
    factor = min(factor, LARGEST / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from ``low`` to ``high``, at most ``most`` of them: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    power = 10.0 ** np.floor(np.log10(span / most))
    step = next((factor * power for factor in (1, 2, 5, 10) if span / (factor * power) < most), 10 * power)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _key(key: Legend | Scale | Words | None, width: int, unit: int) -> Picture | None:
    if key is None:
        return None
    if isinstance(key, Legend):
        return _legend(key, width, unit)
    return _scale(key, width, unit) if isinstance(key, Scale) else _text_key(key.lines, width, unit)


def _resized(pixels: Pixels, width: int, height: int) -> Picture:
    image_module, _, _ = pillow()
    picture: Picture = image_module.fromarray(np.ascontiguousarray(pixels))
    if picture.size == (width, height):
        return picture
    enlarged = width > picture.width
    method = image_module.Resampling.NEAREST if enlarged else image_module.Resampling.BILINEAR
    resized: Picture = picture.resize((width, height), method)
    return resized


def _panel(picture: Picture, title: str | None, key: Picture | None, unit: int) -> Picture:
    """Return a picture with its title above and its key below. An empty title leaves its place blank; None takes no place."""
    image_module, drawing, _ = pillow()
    top = 0 if title is None else round(1.6 * unit)
    panel: Picture = image_module.new(
        "RGB", (picture.width, top + picture.height + (0 if key is None else key.height)), _PAPER
    )
    if title:
        drawing.Draw(panel).text((0, round(0.15 * unit)), title, fill=_INK, font=font_of(unit))
    panel.paste(picture, (0, top))
    if key is not None:
        panel.paste(key, (0, top + picture.height))
    return panel


def _text_key(lines: Sequence[str], width: int, unit: int) -> Picture | None:
    """Return lines of text, wrapped to the width; None for none."""
    if not lines:
        return None
    image_module, drawing, _ = pillow()
    font = font_of(unit)
    wrapped = [piece for line in lines for piece in _wrapped(line, font, width)]
    key: Picture = image_module.new("RGB", (width, round((1.35 * len(wrapped) + 0.6) * unit)), _PAPER)
    draw = drawing.Draw(key)
    for place, line in enumerate(wrapped):
        draw.text((0, round((1.35 * place + 0.3) * unit)), line, fill=_INK, font=font)
    return key


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def _legend(legend: Legend, width: int, unit: int) -> Picture:
    """Return texts, each behind its colour, in as many lines as they need."""
    image_module, drawing, _ = pillow()
    font, entries = font_of(unit), legend.entries
    swatch = round(0.8 * unit)
    step, places, x, y = round(1.4 * unit), [], 0, round(0.4 * unit)
    for text, colour in entries:
        wide = round(1.4 * swatch + font.getlength(text) + unit)
        if x and x + wide - unit > width:
            x, y = 0, y + step
        places.append((x, y, text, colour))
        x += wide
    key: Picture = image_module.new("RGB", (width, y + step), _PAPER)
    draw = drawing.Draw(key)
    for left, top, text, colour in places:
        if colour is not None:
            draw.rectangle((left, top + 0.15 * unit, left + swatch, top + 0.15 * unit + swatch), colour)
        draw.text((left + round(1.4 * swatch), top), text, fill=_INK if colour is not None else _FAINT, font=font)
    return key


def _scale(scale: Scale, width: int, unit: int) -> Picture:
    """Return a bar with the colours of numbers, and round numbers under it."""
    low, high = scale.low, scale.high
    image_module, drawing, _ = pillow()
    font, margin, bar = font_of(unit), round(1.2 * unit), round(0.8 * unit)
    key: Picture = image_module.new("RGB", (width, round(3.1 * unit)), _PAPER)
    inner = max(2, width - 2 * margin)
    ramp = of_numbers(np.linspace(low, high, inner, dtype=np.float32)[None].repeat(bar, axis=0), low, high)
    top = round(0.5 * unit)
    key.paste(image_module.fromarray(ramp), (margin, top))
    draw = drawing.Draw(key)
    name = f" {visible(scale.unit)}" if scale.unit else ""
    numbers = ticks(low, high, most=max(3, min(7, width // (5 * unit))))
    for number in numbers:
        x = margin + round((number - low) / (high - low) * (inner - 1))
        draw.line((x, top + bar, x, top + bar + unit // 4), fill=_INK)
        text = f"{number:g}" + (name if number == numbers[-1] else "")
        start = min(max(0.0, x - font.getlength(f"{number:g}") / 2), width - font.getlength(text))
        draw.text((start, top + bar + unit // 4), text, fill=_INK, font=font)
    return key
