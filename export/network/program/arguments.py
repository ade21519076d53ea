"""What a node of a program may be given: names, sizes, tensors and their records, and the kinds of arguments."""

from __future__ import annotations

import re

from .code import clean_expression, is_name, is_path
from .fields import (  # fmt: skip
    Check,
    Json,
    UnusableError,
    boolean,
    dropped,
    integer,
    listed,
    nullable,
    number,
    one_of,
    record,
    rewritten,
    text,
    union,
)

_TEXT = re.compile(r"[A-Za-z0-9_ ,.>()+-]{0,256}")  # einsum's equation, interpolation's mode
WORD = re.compile(r"[A-Za-z0-9_.+<=-]{0,64}")

a_name, a_path = text(is_name), text(is_path)
_dtype = one_of({*range(1, 14), *range(28, 36)})  # schema.ScalarType, without UNKNOWN
_strided = one_of({7})  # schema.Layout
_hint = nullable(union({"as_int": integer, "as_bool": boolean, "as_float": number}))
_symbolic = record({"expr_str": rewritten(clean_expression)}, {"hint": _hint})
sym_int = union({"as_expr": _symbolic, "as_int": integer})
sym_float = union({"as_expr": _symbolic, "as_float": number})
sym_bool = union({"as_expr": _symbolic, "as_bool": boolean})


def _device(value: Json, where: str) -> Json:
    device = record({"type": text(WORD.fullmatch)}, {"index": dropped})(value, where)
    if device["type"] != "cpu":
        raise UnusableError(f"{where} is on {device['type']}; export the program after network.cpu()")
    return device


def tensor_meta(size: Check) -> Check:
    """Return a check of what is recorded of a tensor, whose sizes pass the given check."""
    return record(
        {
            "dtype": _dtype,
            "sizes": listed(size, 64),
            "requires_grad": boolean,
            "device": _device,
            "strides": listed(size, 64),
            "storage_offset": size,
            "layout": _strided,
        }
    )


tensor = record({"name": a_name})
size_or_name = union({"as_name": a_name, "as_int": integer})
_float_or_name = union({"as_name": a_name, "as_float": number})
_bool_or_name = union({"as_name": a_name, "as_bool": boolean})
_maybe_tensor = union({"as_tensor": tensor, "as_none": boolean})
# Not among them, so refused: as_operator, as_custom_obj, as_string_to_argument, as_strings, as_nested_tensors,
# as_int_lists, as_float_lists.
ARGUMENTS: dict[str, Check] = {
    "as_none": boolean,
    "as_tensor": tensor,
    "as_tensors": listed(tensor),
    "as_optional_tensor": _maybe_tensor,
    "as_optional_tensors": listed(_maybe_tensor),
    "as_int": integer,
    "as_ints": listed(integer),
    "as_float": number,
    "as_floats": listed(number),
    "as_bool": boolean,
    "as_bools": listed(boolean),
    "as_complex": record({"real": number, "imag": number}),
    "as_string": text(_TEXT.fullmatch),
    "as_sym_int": size_or_name,
    "as_sym_ints": listed(size_or_name),
    "as_sym_float": _float_or_name,
    "as_sym_floats": listed(_float_or_name),
    "as_sym_bool": _bool_or_name,
    "as_sym_bools": listed(_bool_or_name),
    "as_scalar_type": _dtype,
    "as_memory_format": one_of({1, 2, 3, 4}),
    "as_layout": _strided,
    "as_device": _device,
}
