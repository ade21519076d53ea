"""Why PyTorch cannot export a network, in one line: the user's own line of code, and what to do about it."""

from __future__ import annotations

import re

_CALL = re.compile(r'The following call raised this error:\s*File "([^"]+)", line (\d+), in (\S+)\s*\n\s*(.+)')
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_DEPENDENT = "GuardOnDataDependentSymNode"

_REPLACEMENTS = (
    ("svd", "a projection such as Gram-Schmidt, which takes norms and products alone, or do it outside the network"),
    ("qr", "Gram-Schmidt, which takes norms and products alone, or do it outside the network"),
    ("eig", "power iterations, or do it outside the network"),
    ("cholesky", "its steps written out for the small matrix that it is, or do it outside the network"),
    ("solve", "a closed form for the small matrix that it is, or do it outside the network"),
    ("inv", "a closed form for the small matrix that it is, or do it outside the network"),
    ("det", "a closed form for the small matrix that it is"),
    ("fft", "a matrix product with the Fourier matrix, or a convolution"),
    ("stft", "a convolution with the windowed Fourier basis"),
    ("nonzero", "a mask of fixed size, torch.where(mask, x, 0)"),
    ("unique", "a mask of fixed size, or do it outside the network"),
    ("nms", "nothing: return boxes and scores, and suppress outside the network"),
    ("histc", "comparisons with the edges, summed up"),
    ("bincount", "one_hot(...).sum(...)"),
    ("grid_sampler_3d", "a two-dimensional grid_sample per slice"),
    ("cdist", "(x[:, :, None] - y[:, None]).norm(dim=-1)"),
)


def first_cause(error: BaseException) -> str:
    """Return an exporter's error in one line.

    Args:
        error: what the exporter raised; its innermost cause counts.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if (operator := _OPERATOR.search(text)) is not None:
        return _without_form(operator[1])
    place = _CALL.search(text)
    where = "" if place is None else f", in {place[3]} at {place[1]}, line {place[2]}: {place[4].strip()}"
    if type(error).__name__ == _DEPENDENT:
        return (
            f"a decision of its code depends on values that are known only when it runs{where}; a graph has no such if: write it "
            "with torch.where, or decide outside the network"
        )
    return f"{named_line(error)}{where}"


def first_line(error: BaseException, most: int | None = None) -> str:
    """Return the first line of an error's message that is not empty, or the name of its class if there is none.

    Args:
        error: any.
        most: characters; None: all.
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:most]


def named_line(error: BaseException, most: int | None = None) -> str:
    """Return the class of an error and the first line of its message, as :func:`first_line` does: ``ValueError: too large``."""
    line = first_line(error, most) if str(error).strip() else "no message"
    return f"{type(error).__name__}: {line}"


def _without_form(operator: str) -> str:
    name = operator.rpartition(".")[2].strip("_")
    instead = next((advice for word, advice in _REPLACEMENTS if word in name.split("_") or word in name), None)
    advice = f"replace it with {instead}" if instead else "replace it in forward with operators that have one"
    return f"the operator {name} ({operator}) has no form in ONNX; {advice}"
