"""The record ``models/model.json`` of a program, and the lists of its tensors, checked against an allow-list.

The fields are those of ``torch/_export/serde/schema.py``. What is returned is rebuilt from the fields that are known: a
field that is not listed here never reaches torch. Text for people (stack traces, names of modules) is left out, and so are
guards: the sizes that a program takes are in its range constraints too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial

from .arguments import ARGUMENTS, WORD, a_name, a_path, size_or_name, sym_bool, sym_float, sym_int, tensor, tensor_meta
from .code import check_guard, clean_structure, is_name, is_path
from .fields import (  # fmt: skip
    Json,
    MalformedError,
    RefusedError,
    UnusableError,
    boolean,
    count,
    dropped,
    integer,
    listed,
    mapped,
    nullable,
    number,
    one_of,
    record,
    rewritten,
    text,
    union,
)
from .operators import count_degree, is_allowed, refused_argument

_FREE_VALUES = 1 << 24  # elements that a tensor with a repeating stride may show beyond what its record holds
_SYMBOL = re.compile(r"[a-z]{1,3}[0-9]{1,6}")
_WITHOUT_GRADIENTS = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}|")


def _is_part(name: str) -> bool:
    return is_name(name) and is_path(name)


_argument = union(ARGUMENTS)
_node = record(
    {
        "target": text(is_allowed),
        "inputs": listed(
            record({"name": text(_IDENTIFIER.fullmatch), "arg": _argument}, {"kind": nullable(one_of({0, 1, 2}))})
        ),
        "outputs": listed(_argument),
    },
    {"metadata": dropped, "is_hop_single_tensor_return": dropped, "name": nullable(a_name)},
)


def _inner_graph(value: Json, where: str) -> Json:
    return _graph(value, where)


_block = record(  # torch.no_grad in the network's forward: a graph inside a node, checked against the same lists
    {
        "target": text(_WITHOUT_GRADIENTS.__eq__),
        "inputs": listed(
            record(
                {
                    "name": text("".__eq__),
                    "arg": union(ARGUMENTS | {"as_graph": record({"name": text(_is_part), "graph": _inner_graph})}),
                },
                {"kind": nullable(one_of({1}))},
            ),
        ),
        "outputs": listed(_argument),
    },
    {"metadata": dropped, "is_hop_single_tensor_return": nullable(boolean), "name": nullable(a_name)},
)


def _any_node(value: Json, where: str) -> Json:
    is_block = isinstance(value, dict) and value.get("target") == _WITHOUT_GRADIENTS
    return (_block if is_block else _node)(value, where)


_given = union({"as_tensor": tensor})
_returned = union(
    {
        "as_tensor": tensor,
        "as_none": boolean,
        "as_int": integer,
        "as_float": number,
        "as_bool": boolean,
        "as_sym_int": size_or_name,
    }
)


def _nodes(value: Json, where: str) -> Json:
    nodes = listed(_any_node)(value, where)
    degrees: dict[str, int] = {}
    for node in nodes:
        target = node["target"]
        label = node.get("name") or next(
            (output["as_tensor"]["name"] for output in node["outputs"] if "as_tensor" in output), ""
        )
        for given in node["inputs"]:
            ((kind, inner),) = given["arg"].items()
            effect = refused_argument(target, given["name"], kind, inner)
            if effect == "training mode":
                raise UnusableError(
                    f"the program was exported in training mode ({label or target}); call network.eval() before "
                    "torch.export.export"
                )
            if effect:
                raise RefusedError(f"{where}: {target} with {given['name']} = {str(inner)[:40]}: {effect}")
        if not count_degree(node, degrees):
            raise RefusedError(f"{where}: {label or target}: a power, or a product of more sizes than a network needs")
        node["metadata"] = {}
    return nodes


_graph = record(
    {
        "inputs": listed(_given),
        "outputs": listed(_returned),
        "nodes": _nodes,
        "tensor_values": mapped(a_name, tensor_meta(sym_int)),
        "sym_int_values": mapped(a_name, sym_int),
        "sym_bool_values": mapped(a_name, sym_bool),
    },
    {"is_single_tensor_return": boolean, "sym_float_values": mapped(a_name, sym_float)},
)
_input_spec = union(
    {
        "user_input": record({"arg": _given}),
        "parameter": record({"arg": tensor, "parameter_name": a_path}),
        "buffer": record({"arg": tensor, "buffer_name": a_path, "persistent": boolean}),
        "tensor_constant": record({"arg": tensor, "tensor_constant_name": a_path}),
    }
)
_output_spec = union(
    {
        "user_output": record({"arg": _returned}),
        "buffer_mutation": record({"arg": tensor, "buffer_name": a_path}),
    }
)
_call = record(
    {
        "inputs": listed(_given),
        "outputs": listed(_returned),
        "in_spec": rewritten(partial(clean_structure, named=True)),
        "out_spec": rewritten(partial(clean_structure, named=False)),
    },
    {"forward_arg_names": nullable(listed(a_name, 64))},
)


def _calls(value: Json, where: str) -> Json:
    if not isinstance(value, list) or not value:
        raise MalformedError(f"{where} is not a list")
    # of the inner modules only the names would be read, and an export does not need them
    return [record({"fqn": text(lambda name: name == ""), "signature": _call})(value[0], f"{where}[0]")]


_graph_module = record(
    {
        "graph": _graph,
        "signature": record({"input_specs": listed(_input_spec), "output_specs": listed(_output_spec)}),
        "module_call_graph": _calls,
    },
    {"metadata": dropped, "treespec_namedtuple_fields": dropped},
)
_program = record(
    {
        "graph_module": _graph_module,
        "opset_version": mapped(text(WORD.fullmatch), integer),
        "range_constraints": mapped(
            text(_SYMBOL.fullmatch), record({"min_val": nullable(integer), "max_val": nullable(integer)})
        ),
        "schema_version": record({"major": count, "minor": count}),
    },
    {
        "verifiers": listed(text({"TRAINING", "ATEN", ""}.__contains__), 8),
        "torch_version": text(WORD.fullmatch),
        "guards_code": listed(rewritten(check_guard)),
    },
)


def _not_pickled(value: Json, where: str) -> Json:
    if boolean(value, where):
        raise RefusedError(f"{where}: a pickle")
    return value


_int_size = union({"as_int": count})
_payload = record(
    {
        "path_name": text(re.compile(r"(weight|tensor)_[0-9]{1,6}").fullmatch),
        "is_param": boolean,
        "use_pickle": _not_pickled,
        "tensor_meta": tensor_meta(_int_size),
    }
)
_payloads = record({"config": mapped(a_path, _payload)})


def clean_program(model: Json) -> tuple[Json, list[str]]:
    """Return the content of ``models/model.json``, with its known fields only, and the inputs that are passed by keyword.

    Raises:
        RefusedError: it holds something that is not known to be harmless; the message names it.
        MalformedError: something that must be there is missing, or of another type.
        UnusableError: the program is in training mode, or not on the CPU.
    """
    cleaned = _program(model, "models/model.json") | {"guards_code": []}
    _, structure = json.loads(cleaned["graph_module"]["module_call_graph"][0]["signature"]["in_spec"])
    dicts = [tree["context"] for tree in structure["children_spec"][1:] if tree["type"] == "builtins.dict"]
    return cleaned, [str(name) for names in dicts for name in json.loads(names) or ()]


def clean_tensors(config: Json, where: str, sizes: Mapping[str, int]) -> Json:
    """Return the list of a program's weights or constants, checked against their records.

    Args:
        config: the content of ``data/weights/model_weights_config.json`` or of the constants' counterpart.
        where: the record's name.
        sizes: bytes of each record that tensors may lie in, by its name in the list.

    Raises:
        RefusedError, MalformedError, UnusableError: as for :func:`clean_program`.
    """
    cleaned = _payloads(config, where)
    for path, given in cleaned["config"].items():
        held = sizes.get(given["path_name"])
        if held is None:
            raise MalformedError(f"{where}: record {given['path_name']} is missing")
        elements = 1
        for size in given["tensor_meta"]["sizes"]:
            elements *= size["as_int"]
        if elements > (max(held, _FREE_VALUES) if held else 0):
            raise RefusedError(f"{where}: {path} has {elements} values in {held} bytes")
    return cleaned
