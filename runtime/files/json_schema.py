"""Checks documents against JSON Schemas (draft 2020-12), as far as this package's own schemas need it.

Devices install numpy and one backend, but no validator. So this one is small, knows only the keywords of :data:`KEYWORDS`, stops
at the first problem, and says where in the document it is. A test checks it against the ``jsonschema`` package on thousands of
mutated documents. It is stricter in one point: an integer has no decimal point (``1.0`` is none), since the
readers of the documents rely on that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from .reading import MOST_INTEGER, DocumentError, shown

Schema = Mapping[str, Any]

KEYWORDS = frozenset(("type", "enum", "const", "anyOf", "$ref"))
KEYWORDS |= {"minimum", "maximum", "exclusiveMinimum", "pattern", "minLength", "maxLength"}
KEYWORDS |= {"items", "minItems", "maxItems", "properties", "required", "additionalProperties"}
NOTES = frozenset(("$schema", "$defs", "title", "description", "format"))
"""Keywords that check nothing."""

_WORDS = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def check(document: object, schema: Schema) -> None:
    """Check a document.

    Args:
        document: as :func:`~mtl_deploy.runtime.files.reading.parse_json` returns it.
        schema: with its ``$defs``.

    Raises:
        DocumentError: the first problem, with its path in the document.
    """
    _check(document, schema, schema)


def is_of(kind: str, value: object) -> bool:
    """Return whether a value has one of JSON Schema's types; an integer of more than 64 bits and NaN have none."""
    if kind in ("integer", "number"):
        if isinstance(value, bool):
            return False
        if isinstance(value, int):
            return abs(value) <= MOST_INTEGER
        return kind == "number" and isinstance(value, float) and math.isfinite(value)
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": (list, tuple),
        "string": str,
        "boolean": bool,
        "null": type(None),
    }
    return isinstance(value, types[kind])


def _check(value: Any, schema: Schema, root: Schema) -> None:
    if reference := schema.get("$ref"):
        _check(value, _resolved(reference, root), root)
    if branches := schema.get("anyOf"):
        _check_any(value, branches, root)
    if kinds := schema.get("type"):
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(is_of(kind, value) for kind in kinds):
            raise DocumentError(f"{shown(value)} is not {' or '.join(_WORDS[kind] for kind in kinds)}")
    if "const" in schema and not _equal(value, schema["const"]):
        raise DocumentError(f"{shown(value)} is not {shown(schema['const'])}")
    if "enum" in schema and not any(_equal(value, one) for one in schema["enum"]):
        raise DocumentError(f"{shown(value)} is not one of {', '.join(map(shown, schema['enum']))}")
    if is_of("number", value):
        _check_number(value, schema)
    elif isinstance(value, str):
        _check_text(value, schema)
    elif isinstance(value, (list, tuple)):
        _check_list(value, schema, root)
    elif isinstance(value, dict):
        _check_object(value, schema, root)


def _check_any(value: Any, branches: list[Schema], root: Schema) -> None:
    """Report what is wrong by the closest branch, where the value matches none."""
    errors: list[DocumentError] = []
    for branch in branches:
        try:
            _check(value, branch, root)
        except DocumentError as error:  # noqa: PERF203 - once per branch
            errors.append(error)
        else:
            return
    if len(branches) == 2 and branches[1] == {"type": "null"}:
        raise errors[0] if errors[0].path else DocumentError(f"{errors[0].problem}, nor null")
    deepest = max(errors, key=lambda error: len(error.path))
    if deepest.path:
        raise deepest
    raise DocumentError("; ".join(dict.fromkeys(error.problem for error in errors)))


def _check_number(value: float, schema: Schema) -> None:
    if value < schema.get("minimum", value):
        raise DocumentError(f"{shown(value)} is less than {schema['minimum']}")
    if value > schema.get("maximum", value):
        raise DocumentError(f"{shown(value)} is more than {schema['maximum']}")
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        raise DocumentError(f"{shown(value)} is not more than {schema['exclusiveMinimum']}")


def _check_text(value: str, schema: Schema) -> None:
    if len(value) < schema.get("minLength", 0):
        raise DocumentError("empty" if not value else f"shorter than {schema['minLength']} characters")
    if len(value) > schema.get("maxLength", len(value)):
        raise DocumentError(f"text of {len(value)} characters; at most {schema['maxLength']} are expected")
    if (pattern := schema.get("pattern")) and not re.search(pattern, value):
        raise DocumentError(f"{shown(value)} is not {schema.get('description', f'of the form {pattern}')}")


def _check_list(value: list[Any] | tuple[Any, ...], schema: Schema, root: Schema) -> None:
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not least <= len(value) <= most:
        expected = f"{least}" if least == most else f"{least} or more" if len(value) < least else f"{most} or fewer"
        raise DocumentError(f"a list of {len(value)}; expected {expected}")
    if items := schema.get("items"):
        for position, one in enumerate(value):
            try:
                _check(one, items, root)
            except DocumentError as error:  # noqa: PERF203 - to say where
                raise error.below(position) from None


def _check_object(value: dict[str, Any], schema: Schema, root: Schema) -> None:
    for key in schema.get("required", ()):
        if key not in value:
            raise DocumentError(f"field {key!r} is missing")
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, one in value.items():
        inner = known.get(key, others)
        if inner is False:
            raise DocumentError(f"unknown field {shown(key)}; known fields: {', '.join(sorted(known))}")
        if inner is not True:
            try:
                _check(one, inner, root)
            except DocumentError as error:
                raise error.below(key) from None


def _resolved(reference: str, root: Schema) -> Schema:
    found: Any = root
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    resolved: Schema = found
    return resolved


def _equal(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
