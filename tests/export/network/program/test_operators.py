"""The list of operators that a program may call: what is in it only computes."""

from __future__ import annotations

import pytest
import torch

from mtl_deploy.export.network.program.operators import (
    SEEDED,
    SIZE_FUNCTIONS,
    count_degree,
    is_allowed,
    is_pure,
    listed,
    refused_argument,
)


def operators() -> list[torch._ops.OpOverload]:
    found = []
    for target in listed():
        if target not in SIZE_FUNCTIONS:
            _, _, namespace, name, overload = target.split(".")
            found.append(getattr(getattr(getattr(torch.ops, namespace), name), overload))
    return found


def test_what_is_listed_is_a_function_of_its_tensors() -> None:
    found = operators()
    assert len(found) > 500
    for operator in found:
        schema = operator._schema
        written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        kinds = {str(argument.type) for argument in schema.arguments}
        assert not any(word in kind for kind in kinds for word in ("Generator", "Storage", "Stream", "Any", "Dict")), (
            operator
        )
        assert all(argument.name in ("self", "input", "running_mean", "running_var") for argument in written), operator
        texts = {
            argument.name for argument in schema.arguments if "str" in str(argument.type) and argument.name != "dim"
        }
        assert texts <= {
            "approximate", "assert_msg", "equation", "indexing", "mode", "ord", "padding", "padding_mode", "path", "reduce",
            "rounding_mode", "side",
        }, operator  # fmt: skip
        if torch.Tag.nondeterministic_seeded in operator.tags:
            assert schema.name.partition("::")[2] in SEEDED, operator
        assert schema.returns or schema.name.startswith(("aten::_assert", "aten::sym_constrain")), operator


_NETWORKS = """
    torch.ops.aten.relu_.default torch.ops.aten.flatten.using_ints torch.ops.aten.conv2d.default
    torch.ops.aten.batch_norm.default torch.ops.aten.scaled_dot_product_attention.default torch.ops.aten.sym_size.int
    torch.ops.aten.add_.Tensor torch.ops.aten.upsample_bilinear2d.vec torch.ops.prims.convert_element_type.default
    torch.ops.torchvision.deform_conv2d.default _operator.mul torch.sym_max
"""
NETWORKS = _NETWORKS.split()


@pytest.mark.parametrize("target", NETWORKS)
def test_what_networks_call_is_allowed(target: str) -> None:
    assert is_allowed(target)


_OTHERS = """
    torch.os.system torch.hub.load torch.ops.aten.from_file.default torch.ops.aten.rand.default
    torch.ops.aten.empty.memory_format torch.ops.aten.relu torch.ops.aten.relu.__class__ torch.ops.aten.relu.op
    torch.ops.aten.relu.overloads torch.ops.aten.relu.default.x torch.ops.aten.add.out torch.ops.aten.add.str
    torch.ops.aten.pow.int torch.ops.aten.sort.str torch.ops.aten.uniform_.default torch.ops.aten.multinomial.default
    torch.ops.aten.item.default torch.ops.aten.set_.default torch.ops.aten.record_stream.default
    torch.ops.aten.normal.Tensor_float torch.ops.aten.rrelu.default torch.ops.torchvision.roi_align.default
    torch.ops.prims.device_put.default torch.ops.prims.normal.default torch.ops.prim.Print.default
    torch.ops.mine.relu.default torch.ops.higher_order.cond _operator.call _operator.getitem math.exp
    torch.ops.aten.RELU.default x.torch.ops.aten.relu.default
"""
OTHERS = _OTHERS.split()


@pytest.mark.parametrize("target", [*OTHERS, "torch.ops.aten.relu.default\n", ""])
def test_anything_else_is_not(target: str) -> None:
    assert not is_allowed(target)


def test_an_overload_with_another_signature_is_not_pure() -> None:
    for operator in (
        torch.ops.aten.add.out,
        torch.ops.aten.bernoulli_.float,
        torch.ops.aten.set_.source_Storage,
        torch.ops.aten.rand_like.default,
        torch.ops.aten.randperm.generator,
    ):
        assert not is_pure(operator), operator


@pytest.mark.parametrize(
    ("target", "name", "kind", "value", "effect"),
    [
        ("torch.ops.aten.dropout.default", "train", "as_bool", False, ""),
        ("torch.ops.aten.dropout.default", "train", "as_bool", True, "training mode"),
        ("torch.ops.aten.dropout.default", "train", "as_sym_bool", {"as_name": "x"}, "training mode"),
        ("torch.ops.aten.batch_norm.default", "training", "as_bool", True, "training mode"),
        ("torch.ops.aten.scaled_dot_product_attention.default", "dropout_p", "as_float", 0.0, ""),
        ("torch.ops.aten.scaled_dot_product_attention.default", "dropout_p", "as_float", 0.1, "random numbers"),
        ("torch.ops.aten.scaled_dot_product_attention.default", "dropout_p", "as_sym_float", {}, "random numbers"),
        ("torch.ops.aten.zeros.default", "pin_memory", "as_bool", True, "memory of a device"),
        ("torch.ops.aten.zeros.default", "pin_memory", "as_bool", False, ""),
        ("torch.ops.aten.relu.default", "", "as_bool", True, ""),
    ],
)
def test_arguments_that_do_more(target: str, name: str, kind: str, value: object, effect: str) -> None:
    assert refused_argument(target, name, kind, value) == effect


def power(base: dict[str, object], exponent: dict[str, object]) -> dict[str, object]:
    output = {"as_sym_int": {"as_name": "y"}}
    return {"target": "_operator.pow", "inputs": [{"arg": base}, {"arg": exponent}], "outputs": [output]}


def test_powers_and_products_of_sizes_stay_small() -> None:
    size, other = {"as_sym_int": {"as_name": "x"}}, {"as_sym_int": {"as_name": "y"}}
    degrees: dict[str, int] = {}
    assert count_degree(power(size, {"as_int": 8}), degrees)
    assert degrees == {"y": 8}
    assert count_degree(power(other, {"as_int": 8}), degrees)
    assert not count_degree(power(other, {"as_int": 2}), degrees)
    for base, exponent in ((size, {"as_int": 9}), (size, {"as_int": -1}), (size, size), ({"as_int": 2}, size)):
        assert not count_degree(power(base, exponent), {})
