"""The multiply-adds of an Einsum, by its equation and the shapes of its operands."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

_Index = str | int  # a letter, or the position of a dimension under an ellipsis, counted from the right


def einsum_multiply_adds(equation: str, shapes: Sequence[Sequence[int]]) -> int:
    """Count the multiply-adds of an Einsum whose operands are contracted from left to right, two at a time, as PyTorch does.

    An index that only one of the two operands has, and that nothing needs later, is summed before they are multiplied. One operand
    alone is summed or transposed: no multiply-adds. The syntax is that of https://onnx.ai/onnx/operators/onnx__Einsum.html.

    Args:
        equation: such as ``bhid,bhjd->bhij``; ``...`` stands for dimensions that are broadcast. Without ``->`` the result has
            the letters that occur once, in alphabetical order.
        shapes: of the operands.

    Raises:
        ValueError: the equation does not fit the shapes.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"{equation!r} has {len(terms)} operands, not {len(shapes)}")
    operands = [_indices(term, shape) for term, shape in zip(terms, shapes, strict=True)]
    hidden = {index for operand in operands for index in operand if isinstance(index, int)}
    if arrow:
        wanted: set[_Index] = set(right.replace("...", "")) | (hidden if "..." in right else set())
    else:
        wanted = {letter for letter in left if letter.isalpha() and left.count(letter) == 1} | hidden
    total, result = 0, operands[0]
    for position, operand in enumerate(operands[1:], start=1):
        later = wanted.union(*operands[position + 1 :])
        result = {index: size for index, size in result.items() if index in later or index in operand}
        operand = {index: size for index, size in operand.items() if index in later or index in result}
        both = {index: max(result.get(index, 1), operand.get(index, 1)) for index in (*result, *operand)}
        total += prod(both.values())
        result = {index: size for index, size in both.items() if index in later}
    return total


def _indices(term: str, shape: Sequence[int]) -> dict[_Index, int]:
    """Return the size of each index of an operand; a letter that occurs twice stands for a diagonal."""
    before, ellipsis, behind = term.partition("...")
    hidden = len(shape) - len(before) - len(behind)
    if hidden < 0 or (hidden and not ellipsis):
        raise ValueError(f"operand {term!r} does not fit the shape {tuple(shape)}")
    names: list[_Index] = [*before, *range(-hidden, 0), *behind]
    return dict(zip(names, shape, strict=True))
