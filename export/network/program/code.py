"""What in a file would run as code when torch reads it: what a pickle asks for, and some strings in a program.

The record ``models/model.json`` of a ``torch.export`` program (``torch/_export/serde/schema.py``) holds size expressions, which
go to ``sympy.sympify`` and so to ``eval``, guards, names that end up in generated source code, and tree specifications that can
import modules. Here each kind of string has a grammar of what torch itself writes: arithmetic on sizes, identifiers, built-in
containers. Whatever does not parse is refused. What is returned is rewritten from what was parsed, so that no
second reader can interpret it differently.
"""

from __future__ import annotations

import ast
import json
import keyword
import pickle
import re
from functools import lru_cache
from typing import Any

import torch

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}")
_PART = re.compile(r"[A-Za-z0-9_-]{1,256}")  # torchvision's RegNet has block1-0
_SYMBOL = re.compile(r"[a-z]{1,3}[0-9]{1,6}")  # s77, u0, zf1: torch counts up to the number, so it is small
_NUMBER = re.compile(r"[-+]?[0-9]{1,40}(\.[0-9]{0,40})?(e[-+]?[0-9]{1,3})?")  # srepr writes Float('0.5', precision=53)
_GENERATED = {
    "torch",
    "self",
    "device",
    "inf",
    "nan",
    "NoneType",
    "math",
    "operator",
    "_operator",
    "fx_pytree",
    "pytree",
}

_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_NAMED_TUPLE = "collections.namedtuple"
_ASSUMPTIONS = {"positive", "nonnegative", "negative", "integer", "real", "finite", "zero", "nonzero", "extended_real"}
_LITERAL_POWERS = {"Pow": 8, "PowByNatural": 8, "FloatPow": 8, "LShift": 62, "RShift": 62}
# sympy's as srepr writes them, and torch/utils/_sympy/functions.py's
_SYMPY = """
    Add Mul Mod Max Min Abs floor ceiling Piecewise ExprCondPair And Or Not
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge
    FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv
    FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity
    IsNonOverlappingAndDenseIndicator
"""
_FUNCTIONS = frozenset(_SYMPY.split())
_CONSTANTS = {"true", "false", "oo", "int_oo"}
_GUARD_CALLS = {
    "torch": {"sym_max", "sym_min", "sym_int", "sym_float", "sym_not", "sym_ite"},
    "math": {"ceil", "floor", "trunc", "isnan"},
}
_GUARD_SYNTAX = (
    ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.cmpop, ast.boolop, ast.unaryop, ast.operator, ast.Load,
)  # fmt: skip
LONGEST_TEXT = 16_384
_DEPTH = 60  # of an expression or a tree specification
_INT64 = 1 << 63


def wanted_global(error: BaseException) -> str | None:
    """Return the class or function that a pickle asked the weights-only reader for, from torch's error; None for other errors."""
    match = re.search(r"GLOBAL (\w[\w.]*\.\w+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    return match[1] if match else None


def is_name(text: str) -> bool:
    """Return whether a string may name a value in generated code: an identifier that shadows nothing."""
    return bool(_IDENTIFIER.fullmatch(text)) and not keyword.iskeyword(text) and text not in _GENERATED


def is_path(text: str) -> bool:
    """Return whether a string may name a parameter, buffer or constant: letters, digits, ``_`` and ``-`` between dots.

    No part may be an attribute that every module has, such as ``forward`` or ``__class__``: ``torch.nn`` gives no tensor
    such a name, and setting it would replace code.
    """
    parts = text.split(".")
    return (
        len(parts) <= _DEPTH
        and text not in _GENERATED
        and all(
            _PART.fullmatch(part)
            and not part.startswith("__")
            and not keyword.iskeyword(part)
            and part not in _module_attributes()
            for part in parts
        )
    )


def clean_expression(text: str) -> str:
    """Return a size expression, as ``sympy.srepr`` writes it, rewritten.

    Raises:
        ValueError: it holds anything but arithmetic on numbers and symbols, or powers that would take forever.
    """
    tree = _parse(text)
    _check_expression(tree)
    return ast.unparse(tree)


def check_guard(text: str) -> None:
    """Check one line of guards, such as ``L['x'].size()[3] // 2 != 1``.

    Raises:
        ValueError: it holds anything but comparisons of input sizes.
    """
    _check_guard(_parse(text))


def clean_structure(text: str, *, named: bool) -> str:
    """Return a tree specification (``torch.utils._pytree.treespec_dumps``), rewritten.

    Args:
        text: JSON, ``[1, {"type", "context", "children_spec"}]``.
        named: whether its keys become names in generated code.

    Raises:
        ValueError: it holds containers other than tuples, lists and dicts, or is malformed.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError("too long")
    try:
        protocol, root = json.loads(text)
        if protocol != 1 or isinstance(protocol, bool):
            raise ValueError("another protocol")
        return json.dumps([1, _clean_node(root, named, 0)])
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError("malformed") from error


@lru_cache(maxsize=1)
def _module_attributes() -> frozenset[str]:
    return frozenset((*dir(torch.nn.Module), *dir(torch.fx.GraphModule), *vars(torch.nn.Module())))


def _parse(text: str) -> ast.expr:
    if len(text) > LONGEST_TEXT or not text.isascii() or not text.isprintable():
        raise ValueError("too long, or not plain text")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:  # MemoryError: nested too deeply for the parser
        raise ValueError("not an expression") from error


def _check_expression(node: ast.expr, depth: int = 0) -> None:
    if depth > _DEPTH:
        raise ValueError("nested too deeply")
    match node:
        case ast.Name(id=name) if name in _CONSTANTS:
            return
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=keywords):
            assumptions = all(
                item.arg in _ASSUMPTIONS and isinstance(item.value, ast.Constant) and isinstance(item.value.value, bool)
                for item in keywords
            )
            if _SYMBOL.fullmatch(name) and assumptions:
                return
        case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
            _integer(value)
            return
        case ast.Call(func=ast.Name(id="Rational"), args=[numerator, denominator], keywords=[]):
            _integer(numerator)
            if _integer(denominator):
                return
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(text))], keywords=keywords):
            if _NUMBER.fullmatch(text) and all(
                item.arg in ("precision", "dps") and 0 < _integer(item.value) <= 256 for item in keywords
            ):
                return
        case ast.Call(func=ast.Name(id=name), args=[base, exponent], keywords=[]) if name in _LITERAL_POWERS:
            _check_expression(base, depth + 1)
            match exponent:
                case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
                    if abs(_integer(value)) <= _LITERAL_POWERS[name]:
                        return
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as arguments, keywords=[]) if name in _FUNCTIONS:
            for argument in arguments:
                _check_expression(argument, depth + 1)
            return
    raise ValueError("not arithmetic on sizes")


def _check_guard(node: ast.AST, depth: int = 0) -> None:
    if depth > _DEPTH:
        raise ValueError("nested too deeply")
    match node:
        case ast.Constant(value=bool() | float()):
            return
        case ast.Constant(value=int(value)) if value < _INT64:
            return
        case ast.BinOp(op=ast.Pow() | ast.LShift() | ast.RShift(), right=ast.Constant(value=int(exponent))):
            if abs(exponent) <= _LITERAL_POWERS["Pow"]:
                _check_guard(node.left, depth + 1)
                return
        case ast.BinOp(op=ast.Pow() | ast.LShift() | ast.RShift()):
            pass
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=source, attr="size" | "stride"), args=[]), slice=index
        ):
            if _is_input(source) and isinstance(index, ast.Constant) and isinstance(index.value, int):
                return
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name), args=arguments, keywords=[]):
            if name in _GUARD_CALLS.get(module, ()):
                for argument in arguments:
                    _check_guard(argument, depth + 1)
                return
        case ast.Call(func=ast.Attribute(value=source, attr="storage_offset"), args=[], keywords=[]):
            if _is_input(source):
                return
        case _ if isinstance(node, _GUARD_SYNTAX):
            for child in ast.iter_child_nodes(node):
                _check_guard(child, depth + 1)
            return
    raise ValueError("not a comparison of sizes")


def _is_input(node: ast.expr) -> bool:
    """Return whether an expression is ``L['image']`` or ``L['args'][0]``."""
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        key = node.slice.value
        if not (isinstance(key, int) or (isinstance(key, str) and is_name(key))):
            return False
        node = node.value
        if isinstance(node, ast.Name):
            return node.id == "L"
    return False


def _integer(node: ast.expr) -> int:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))):
            value = -value
        case ast.Constant(value=int(value)):
            pass
        case _:
            raise ValueError("not an integer")
    if isinstance(value, bool) or not -_INT64 <= value < _INT64:
        raise ValueError("not a 64-bit integer")
    return value


def _clean_node(node: dict[str, Any], named: bool, depth: int) -> dict[str, Any]:
    if depth > _DEPTH:
        raise ValueError("nested too deeply")
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if len(node) != 3 or not isinstance(children, list):
        raise ValueError("malformed")
    if kind is None:
        if context is not None or children:
            raise ValueError("a leaf with content")
    elif kind == _NAMED_TUPLE and not named:
        if not isinstance(context, str) or not all(map(_IDENTIFIER.fullmatch, context.split("."))):
            raise ValueError("a named tuple without a name")
    elif kind in _CONTAINERS:
        context = json.dumps(_keys(json.loads(context), named))
    else:
        raise ValueError(f"a container of type {str(kind)[:80]}")
    return {
        "type": kind,
        "context": context,
        "children_spec": [_clean_node(child, named, depth + 1) for child in children],
    }


def _keys(keys: object, named: bool) -> object:
    if keys is None:
        return None
    if isinstance(keys, list) and all(
        key is None or isinstance(key, int) or (isinstance(key, str) and (not named or is_name(key))) for key in keys
    ):
        return keys
    raise ValueError("keys that are not plain names or numbers")
