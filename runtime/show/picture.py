"""Predictions as one picture: the image with its predictions in words, and a panel with a key for every dense task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.predictions.summary import with_share

from .colours import Pixels, of_classes, of_normals, of_numbers, palette

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
    Picture = Image.Image

SMALLEST = 320  # pixels of a panel's shorter side at least: text must be readable
LARGEST = 960  # pixels of a panel's longer side at most
BLEND = 0.6  # share of the class's colour over the image
LISTED = 12  # classes in a legend

_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 24), (110, 110, 110)


def show(image: npt.NDArray[np.uint8], predictions: Mapping[str, Prediction], tasks: Sequence[Task]) -> Picture:
    """Draw one image's predictions.

    Args:
        image: ``(H, W, 3) uint8``, RGB, as it was given to ``predict``.
        predictions: by task, for this image; dense ones at its size.
        tasks: the model's.

    Returns:
        an RGB picture (``PIL.Image``): the image with the vector tasks written below it, then one panel per dense task.

    Raises:
        ImageError: Pillow is not installed, or a dense prediction has another size than the image.
    """
    image_module, _, _ = _pillow()
    shown = [task for task in tasks if task.name in predictions]
    lines = [f"{task.name}: {predictions[task.name]}" for task in shown if not task.dense]
    dense = [task for task in shown if task.dense]
    for task in dense:
        value = np.asarray(predictions[task.name].value)
        if value.shape[:2] != image.shape[:2]:
            raise ImageError(f"task {task.name!r}: predictions of {value.shape[:2]} for an image of {image.shape[:2]}")
    width, height = panel_size(image.shape[1], image.shape[0])
    unit = max(14, round(min(width, height) / 22))
    panels = [_panel(_resized(image, width, height), "" if dense else None, _text_key(lines, width, unit), unit)]
    for task in dense:
        value = np.asarray(predictions[task.name].value)
        key: Picture | None
        if task.kind == "segmentation":
            colours = of_classes(value, _classes(task, value))
            blended = np.round(BLEND * colours + (1 - BLEND) * image).astype(np.uint8)
            key = _legend(task, value, width, unit)
        elif task.kind == "depth":
            low, high = value_range(value)
            blended = of_numbers(value, low, high)
            key = _scale(low, high, task.unit, width, unit)
        else:
            blended = of_normals(value)
            key = _text_key(["red x, green y, blue z: -1 dark, 1 bright"], width, unit)
        panels.append(_panel(_resized(blended, width, height), task.name, key, unit))
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
    _, drawing, _ = _pillow()
    draw = drawing.Draw(picture)
    unit = max(14, min(picture.size) // 45)
    font = _font(unit)
    draw.rectangle((unit // 2, unit // 2, round(unit * 1.5 + font.getlength(text)), 2 * unit), fill=_INK)
    draw.text((unit, round(0.6 * unit)), text, fill=_PAPER, font=font)


def panel_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height in pixels at which an image is shown: enlarged where it is tiny, reduced where it is huge."""
    factor = max(1.0, SMALLEST / min(width, height))
    factor = min(factor, LARGEST / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def value_range(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Return the ends of a scale for ``values``: their 1st and 99th percentile, so that single pixels do not set it."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.percentile(finite.astype(np.float64), [1, 99]))
    around = max(0.5, 1e-6 * abs(low))
    return (low, high) if high - low > 1e-9 * abs(low) else (low - around, high + around)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from ``low`` to ``high``, at most ``most`` of them: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    power = 10.0 ** np.floor(np.log10(span / most))
    step = next((factor * power for factor in (1, 2, 5, 10) if span / (factor * power) < most), 10 * power)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _classes(task: Task, value: npt.NDArray[np.generic]) -> int:
    return task.size or len(task.labels) or int(value.max()) + 1


def _resized(pixels: Pixels, width: int, height: int) -> Picture:
    image_module, _, _ = _pillow()
    picture: Picture = image_module.fromarray(np.ascontiguousarray(pixels))
    if picture.size == (width, height):
        return picture
    enlarged = width > picture.width
    method = image_module.Resampling.NEAREST if enlarged else image_module.Resampling.BILINEAR
    resized: Picture = picture.resize((width, height), method)
    return resized


def _panel(picture: Picture, title: str | None, key: Picture | None, unit: int) -> Picture:
    """Return a picture with its title above and its key below. An empty title leaves its place blank; None takes no place."""
    image_module, drawing, _ = _pillow()
    top = 0 if title is None else round(1.6 * unit)
    panel: Picture = image_module.new(
        "RGB", (picture.width, top + picture.height + (0 if key is None else key.height)), _PAPER
    )
    if title:
        drawing.Draw(panel).text((0, round(0.15 * unit)), title, fill=_INK, font=_font(unit))
    panel.paste(picture, (0, top))
    if key is not None:
        panel.paste(key, (0, top + picture.height))
    return panel


def _text_key(lines: Sequence[str], width: int, unit: int) -> Picture | None:
    """Return lines of text, wrapped to the width; None for none."""
    if not lines:
        return None
    image_module, drawing, _ = _pillow()
    font = _font(unit)
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


def _legend(task: Task, value: npt.NDArray[np.generic], width: int, unit: int) -> Picture:
    """Return the classes that occur, the largest first, each with its colour and its share of the pixels."""
    image_module, drawing, _ = _pillow()
    classes = _classes(task, value)
    indices = np.asarray(value, np.int64).ravel()
    known = indices[(indices >= 0) & (indices < classes)]  # a crop leaves pixels without a class
    counts = np.bincount(known, minlength=classes)
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    font, colours = _font(unit), palette(classes)
    entries = []
    for index in order[:LISTED]:
        label = visible(task.labels[index]) if index < len(task.labels) else str(index)
        entries.append((with_share(label, f"{100 * counts[index] / known.size:.0f} %"), colours[index]))
    if rest := order[LISTED:]:
        share = 100 * counts[rest].sum() / known.size
        entries.append((f"{len(rest)} more: {share:.0f} %", None))
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
            draw.rectangle(
                (left, top + 0.15 * unit, left + swatch, top + 0.15 * unit + swatch), tuple(map(int, colour))
            )
        draw.text((left + round(1.4 * swatch), top), text, fill=_INK if colour is not None else _FAINT, font=font)
    return key


def _scale(low: float, high: float, unit_name: str | None, width: int, unit: int) -> Picture:
    """Return a bar with the colours from ``low`` to ``high``, and round numbers under it."""
    image_module, drawing, _ = _pillow()
    font, margin, bar = _font(unit), round(1.2 * unit), round(0.8 * unit)
    key: Picture = image_module.new("RGB", (width, round(3.1 * unit)), _PAPER)
    inner = max(2, width - 2 * margin)
    ramp = of_numbers(np.linspace(low, high, inner, dtype=np.float32)[None].repeat(bar, axis=0), low, high)
    top = round(0.5 * unit)
    key.paste(image_module.fromarray(ramp), (margin, top))
    draw = drawing.Draw(key)
    name = f" {visible(unit_name)}" if unit_name else ""
    numbers = ticks(low, high, most=max(3, min(7, width // (5 * unit))))
    for number in numbers:
        x = margin + round((number - low) / (high - low) * (inner - 1))
        draw.line((x, top + bar, x, top + bar + unit // 4), fill=_INK)
        text = f"{number:g}" + (name if number == numbers[-1] else "")
        start = min(max(0.0, x - font.getlength(f"{number:g}") / 2), width - font.getlength(text))
        draw.text((start, top + bar + unit // 4), text, fill=_INK, font=font)
    return key


def _font(size: int) -> Font:
    _, _, fonts = _pillow()
    try:
        font: Font = fonts.load_default(size)
    except (ImportError, OSError):  # Pillow was built without FreeType: its one small font
        font = fonts.load_default()
    return font


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise ImageError("drawing predictions needs Pillow: pip install 'mtl-deploy[images]'") from None
    return Image, ImageDraw, ImageFont
