"""What in a file would run as code when torch reads it: what a pickle asks for, and which strings of a program.

The record ``models/model.json`` of a ``torch.export`` program (``torch/_export/serde/schema.py``) holds size expressions,
which go to ``sympy.sympify`` and so to ``eval``, guards, names that end in generated source code, operators that are looked
up by attribute, and tree specifications that can import modules. What torch itself writes there is plain arithmetic,
identifiers and operators; anything else is code.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Iterator
from typing import Any

_IDENTIFIER = re.compile(r"[\w.]*", re.ASCII)
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?")  # srepr writes Float('0.5', precision=53)
_OPERATOR = re.compile(r"torch\.ops(\.\w+)+|_operator\.\w+|math\.\w+|torch\._?sym_\w+", re.ASCII)
_CONTAINERS = (
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
    "collections.namedtuple",
)
# sympy's as srepr writes them, torch/utils/_sympy/functions.py's, and those of guards such as L['x'].size()[3] // 2 != 1
_CALLED = """
    Symbol Integer Rational Float Add Mul Pow Mod Max Min Abs floor ceiling Piecewise ExprCondPair And Or Not
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge
    FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow
    FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity
    IsNonOverlappingAndDenseIndicator
    size stride storage_offset sym_max sym_min sym_int sym_float sym_not sym_ite ceil trunc isnan
"""
_CALLABLE = frozenset(_CALLED.split())
_NAMES = _CALLABLE | {"L", "torch", "math", "true", "false", "oo", "int_oo", "inf"}
_SYNTAX = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.keyword, ast.Attribute, ast.Subscript, ast.Tuple,
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def wanted_global(error: BaseException) -> str | None:
    """Return the class or function that a pickle asked a reader of weights for, from torch's error; None for others."""
    match = re.search(r"GLOBAL (\w[\w.]*\.\w+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    return match[1] if match else None


def find_code(model: Any) -> str:
    """Return the first string that would run as code, with its key, for people; empty where there is none.

    Args:
        model: the content of ``models/model.json``.
    """
    for key, value in _strings(model):
        if not _is_harmless(key, value):
            return f"{key}: {value[:80]}"
    return ""


def _strings(model: Any) -> Iterator[tuple[str, str]]:
    """Yield each string of a JSON value with the key that it stands under."""
    rest = [("", model)]
    while rest:
        key, value = rest.pop()
        if isinstance(value, dict):
            rest += value.items()
        elif isinstance(value, list):
            rest += [(key, item) for item in value]
        elif isinstance(value, str):
            yield key, value


def _is_harmless(key: str, value: str) -> bool:
    match key:
        case "expr_str" | "guards_code":
            return _is_arithmetic(value)
        case "name" | "as_name" | "forward_arg_names":
            return bool(_IDENTIFIER.fullmatch(value))
        case "target":
            return bool(_OPERATOR.fullmatch(value))
        case "as_operator":  # a function as an argument: no exported vision network has one
            return False
        case "in_spec" | "out_spec":
            return _is_plain_structure(value, named=key == "in_spec")
    return True


def _is_arithmetic(expression: str) -> bool:
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError: nested too deeply for the parser
        return False
    return all(isinstance(node, _SYNTAX) and _is_known(node) for node in ast.walk(tree))


def _is_known(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return bool(_IDENTIFIER.fullmatch(text) or _NUMBER.fullmatch(text))
        case ast.Constant(value=value):
            return isinstance(value, (int, float))
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in _CALLABLE
        case ast.Call():
            return False
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _NAMES
    return True


def _is_plain_structure(spec: str, *, named: bool) -> bool:
    """Return whether a tree specification (``torch.utils._pytree.treespec_dumps``) has only built-in containers.

    Args:
        spec: JSON, ``[protocol, {"type", "context", "children_spec"}]``.
        named: whether its keys become names in generated code.
    """
    try:
        _, root = json.loads(spec)
        return all(_is_plain_container(node, named=named) for node in _containers(root))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _containers(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node["type"] is not None:
        yield node
    for child in node["children_spec"]:
        yield from _containers(child)


def _is_plain_container(node: dict[str, Any], *, named: bool) -> bool:
    if node["type"] == "collections.namedtuple":
        return not named and isinstance(node["context"], str)
    context = json.loads(node["context"])
    keys = context if isinstance(context, list) else [context]
    return node["type"] in _CONTAINERS and all(
        key is None or isinstance(key, int) or (isinstance(key, str) and (not named or key.isidentifier()))
        for key in keys
    )
