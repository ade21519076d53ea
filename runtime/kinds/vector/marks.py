"""Points and boxes among named values, as marks on the image."""

from __future__ import annotations

from mtl_deploy.runtime.predictions.drawing import Box, Colour, Mark, Point

from .values import Values

COLOUR: Colour = (0, 200, 83)
_CORNERS = (
    ("left", "top", "right", "bottom"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
)
_NAMED = 12  # points that have their name beside them


def marks_of(values: Values) -> list[Mark]:
    """Return a dot for each point, and a rectangle for each box: values such as ``car.left``, ``car.top`` and so on."""
    points = values.points
    found: list[Mark] = [Point(x, y, COLOUR, name if len(points) <= _NAMED else "") for name, (x, y) in points.items()]
    held = values.to_dict()
    objects = dict.fromkeys(name.rpartition(".")[0] for name in held)
    for name in objects:
        own = {key.rpartition(".")[2].lower(): value for key, value in held.items() if key.rpartition(".")[0] == name}
        corners = _corners(own)
        if corners is not None:
            found.append(Box(*corners, COLOUR, name))
    return found


def _corners(own: dict[str, float]) -> tuple[float, float, float, float] | None:
    """Return left, top, right and bottom of the box that an object's values say; None where they say none."""
    for names in _CORNERS:
        if all(name in own for name in names):
            left, top, right, bottom = (own[name] for name in names)
            return left, top, right, bottom
    width, height = (own.get(long, own.get(short)) for long, short in (("width", "w"), ("height", "h")))
    if width is None or height is None:
        return None
    if "cx" in own and "cy" in own:
        left, top = own["cx"] - width / 2, own["cy"] - height / 2
    elif ("x" in own or "left" in own) and ("y" in own or "top" in own):
        left, top = own.get("left", own.get("x", 0.0)), own.get("top", own.get("y", 0.0))
    else:
        return None
    return left, top, left + width, top + height
