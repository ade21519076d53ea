from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from mtl_deploy.runtime.onnx_format.einsum import einsum_multiply_adds
from mtl_deploy.runtime.onnx_format.weighted import OPSET, WEIGHTED, is_weighted, multiply_adds

INPUTS = {
    "Attention": {"Q": 0, "K": 1, "V": 2, "past_key": 4},
    "CausalConvWithState": {"weight": 1, "bias": 2},
    "Conv": {"W": 1, "B": 2},
    "ConvInteger": {"w": 1},
    "ConvTranspose": {"X": 0, "W": 1, "B": 2},
    "DeformConv": {"W": 1, "offset": 2, "B": 3},
    "Einsum": {"Inputs": 0},
    "GRU": {"X": 0, "W": 1, "R": 2, "B": 3},
    "Gemm": {"A": 0, "B": 1, "C": 2},
    "LSTM": {"X": 0, "W": 1, "R": 2, "B": 3},
    "LinearAttention": {"query": 0, "key": 1, "value": 2},
    "MatMul": {"A": 0, "B": 1},
    "MatMulInteger": {"A": 0, "B": 1},
    "QLinearConv": {"w": 3, "B": 8},
    "QLinearMatMul": {"a": 0, "b": 3},
    "RNN": {"X": 0, "W": 1, "R": 2, "B": 3},
}
"""What ONNX calls the inputs that the table names by their positions."""
BIASES = {"Conv": "B", "ConvTranspose": "B", "DeformConv": "B", "GRU": "B", "LSTM": "B", "RNN": "B", "QLinearConv": "B"}
BIASES |= {"CausalConvWithState": "bias", "Gemm": "C"}


def schemas() -> dict[str, onnx.defs.OpSchema]:
    found = (s for s in onnx.defs.get_all_schemas() if s.domain == "" and s.since_version <= OPSET)
    return {schema.name: schema for schema in found}


def test_the_table_says_of_inputs_what_the_onnx_specification_says() -> None:
    known = schemas()
    assert set(INPUTS) == set(WEIGHTED)
    assert len(set(WEIGHTED) & set(known)) >= 14  # two are younger than the oldest onnx that is supported
    for name in set(WEIGHTED) & set(known):
        names = [each.name for each in known[name].inputs]
        assert {each: names.index(each) for each in INPUTS[name]} == INPUTS[name], name
        bias = WEIGHTED[name].bias
        assert (None if bias is None else names[bias]) == BIASES.get(name), name


def test_no_other_operator_of_onnx_is_taken_for_one_of_them() -> None:
    assert {name for name in schemas() if is_weighted(name)} == set(WEIGHTED) & set(schemas())


@pytest.mark.parametrize(
    "name", ["FusedConv", "NhwcFusedConv", "FusedGemm", "QGemm", "FusedMatMul", "MatMulNBits", "DynamicQuantizeLSTM"]
)
def test_what_onnx_runtime_makes_of_them_is_recognised(name: str) -> None:
    assert is_weighted(name)


@pytest.mark.parametrize("name", ["Convert", "Reorder", "BatchNormalization", "QLinearAdd", ""])
def test_names_that_only_begin_alike_are_not(name: str) -> None:
    assert not is_weighted(name)


def written_out(equation: str, operands: Sequence[np.ndarray]) -> int:
    """Count the terms of a product of two operands by going through every combination of indices that numpy would."""
    left = equation.split("->")[0].split(",")
    sizes = {
        letter: size
        for term, each in zip(left, operands, strict=True)
        for letter, size in zip(term, each.shape, strict=True)
    }
    return sum(1 for _ in itertools.product(*(range(size) for size in sizes.values())))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("nchw,kc->nkhw", [(2, 3, 4, 5), (6, 3)]),
        ("i,j->ij", [(3,), (4,)]),
        ("bi,bi->b", [(3, 4), (3, 4)]),
        ("ii,ij->ij", [(3, 3), (3, 4)]),
    ],
)
def test_an_einsum_of_two_operands_multiplies_each_combination_of_indices(
    equation: str, shapes: list[tuple[int, ...]]
) -> None:
    operands = [np.zeros(shape) for shape in shapes]
    np.einsum(equation, *operands)  # it is a valid one
    assert einsum_multiply_adds(equation, shapes) == written_out(equation, operands)


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        pytest.param("...i,...ij->...j", [(2, 7, 3), (7, 3, 5)], 2 * 7 * 3 * 5, id="an-ellipsis-is-broadcast"),
        pytest.param("ij,jk", [(3, 4), (4, 5)], 60, id="an-implicit-result"),
        pytest.param("...ij,jk", [(9, 3, 4), (4, 5)], 9 * 60, id="an-implicit-result-with-an-ellipsis"),
        pytest.param(" i j , j k -> i k ", [(3, 4), (4, 5)], 60, id="spaces"),
        pytest.param("nchw,ck->nk", [(2, 3, 4, 5), (3, 6)], 2 * 3 * 6, id="summed-before-it-is-multiplied"),
        pytest.param("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5, id="three-operands"),
        pytest.param("ij->ji", [(3, 4)], 0, id="a-transpose"),
        pytest.param("ii->", [(3, 3)], 0, id="a-trace"),
    ],
)
def test_an_einsums_multiply_adds(equation: str, shapes: list[tuple[int, ...]], expected: int) -> None:
    assert einsum_multiply_adds(equation, shapes) == expected


@pytest.mark.parametrize("seed", range(20))
def test_any_einsum_of_two_operands_takes_what_pytorch_counts(seed: int) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcde", (2, 3, 4, 5, 6), strict=True))
    left, right = ("".join(rng.permutation(list("abcde"))[: rng.integers(1, 5)]) for _ in range(2))
    out = "".join(letter for letter in sorted({*left, *right}) if rng.random() < 0.6)
    shapes = [[sizes[letter] for letter in term] for term in (left, right)]
    with FlopCounterMode(display=False) as counter:
        torch.einsum(f"{left},{right}->{out}", *(torch.zeros(shape) for shape in shapes))
    contracted = (set(left) & set(right)) - set(out)
    if not contracted:  # PyTorch multiplies element by element then, which its counter leaves out
        assert counter.get_total_flops() in (0, 2 * einsum_multiply_adds(f"{left},{right}->{out}", shapes))
    else:
        assert 2 * einsum_multiply_adds(f"{left},{right}->{out}", shapes) == counter.get_total_flops()


COUNTS: list[tuple[str, list[Any], list[Any], dict[str, Any], int]] = [
    ("Conv", [(2, 6, 9, 9), (8, 3, 3, 3)], [(2, 8, 7, 7)], {"group": 2}, 2 * 8 * 49 * 3 * 9),
    ("Conv", [(1, 4, 20), (8, 4, 5)], [(1, 8, 16)], {}, 8 * 16 * 4 * 5),
    ("ConvInteger", [(1, 3, 8, 8), (4, 3, 3, 3)], [(1, 4, 6, 6)], {}, 4 * 36 * 27),
    ("QLinearConv", [(1, 3, 8, 8), (), (), (4, 3, 3, 3), (), (), (), ()], [(1, 4, 6, 6)], {}, 4 * 36 * 27),
    ("ConvTranspose", [(2, 6, 5, 5), (6, 4, 2, 2)], [(2, 8, 10, 10)], {"group": 2}, 2 * 6 * 25 * 4 * 4),
    ("DeformConv", [(2, 6, 9, 9), (8, 3, 3, 3), (2, 18, 7, 7)], [None], {"group": 2}, 2 * 49 * 8 * 3 * 9),
    ("CausalConvWithState", [(2, 6, 10), (6, 1, 4), None], [(2, 6, 10), None], {}, 2 * 6 * 10 * 4),
    ("Gemm", [(2, 5), (7, 5), (7,)], [(2, 7)], {"transB": 1}, 2 * 5 * 7),
    ("Gemm", [(5, 2), (5, 7)], [(2, 7)], {"transA": 1}, 2 * 5 * 7),
    ("Gemm", [(2, "unk"), (7, 5)], [("unk", 7)], {"transB": 1}, 2 * 5 * 7),
    ("Gemm", [("unk", 5), (5, 7)], [(2, "unk")], {}, 2 * 5 * 7),
    ("MatMul", [(2, 9, 5), (5, 7)], [(2, 9, 7)], {}, 2 * 9 * 5 * 7),
    ("MatMul", [(2, 9, "unk"), (5, 7)], [(2, "unk", "unk")], {}, 2 * 9 * 5 * 7),
    ("MatMul", [(2, 9, 5), None], [(2, 9, 7)], {}, 2 * 9 * 5 * 7),
    ("MatMul", [(2, 9, 5), (5,)], [(2, 9)], {}, 2 * 9 * 5),
    ("MatMul", [(5,), (2, 5, 7)], [(2, 7)], {}, 2 * 5 * 7),
    ("MatMul", [(5,), (5,)], [()], {}, 5),
    ("MatMul", [("batch", 9, 5), (5, 7)], [(1, 9, 7)], {}, 9 * 5 * 7),
    ("MatMulInteger", [(2, 5), (5, 7)], [(2, 7)], {}, 70),
    ("QLinearMatMul", [(2, 5), (), (), (5, 7), (), (), (), ()], [(2, 7)], {}, 70),
    ("Einsum", [(2, 3, 4), (4, 5)], [(2, 3, 5)], {"equation": "bij,jk->bik"}, 2 * 3 * 4 * 5),
    ("RNN", [(11, 2, 3), (1, 4, 3), (1, 4, 4)], [(11, 1, 2, 4)], {}, 11 * 2 * 4 * (3 + 4)),
    ("GRU", [(2, 11, 3), (2, 12, 3), (2, 12, 4)], [None], {"layout": 1}, 11 * 2 * 2 * 12 * (3 + 4)),
    ("LSTM", [(11, 2, "unk"), (1, 16, 3), (1, 16, 4)], [None], {}, 11 * 2 * 16 * (3 + 4)),
    ("Attention", [(2, 4, 7, 8), (2, 2, 9, 8), (2, 2, 9, 5)], [(2, 4, 7, 5)], {}, 2 * 4 * 7 * 9 * (8 + 5)),
    ("Attention", [(2, 7, 32), (2, 9, 32), (2, 9, 20)], [(2, 7, 20)], {"q_num_heads": 4}, 2 * 7 * 9 * (32 + 20)),
    (
        "Attention",
        [(1, 2, 1, 8), (1, 2, 1, 8), (1, 2, 1, 8), None, (1, 2, 6, 8), (1, 2, 6, 8)],
        [(1, 2, 1, 8)],
        {},
        2 * 7 * (8 + 8),
    ),
    (
        "LinearAttention",
        [(2, 5, 4 * 3), (2, 5, 2 * 3), (2, 5, 2 * 6)],
        [(2, 5, 4 * 6)],
        {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": "linear"},
        2 * 5 * 3 * 6 * (4 + 2),
    ),
]


@pytest.mark.parametrize(("name", "inputs", "outputs", "attributes", "expected"), COUNTS)
def test_multiply_adds_are_those_of_the_specification(
    name: str, inputs: list[Any], outputs: list[Any], attributes: dict[str, Any], expected: int
) -> None:
    assert multiply_adds(name, inputs, outputs, attributes) == expected


def test_every_operator_of_the_table_is_counted_here() -> None:
    assert {name for name, *_ in COUNTS} == set(WEIGHTED)


def test_an_unknown_size_is_said_and_another_operator_costs_nothing() -> None:
    assert multiply_adds("MatMul", [(2, "n"), ("n", 3)], [(2, 3)], {}) is None
    assert multiply_adds("Conv", [(1, 3, 8, 8), None], [(1, 4, 6, 6)], {}) is None
    assert multiply_adds("Einsum", [(2, 3)], [(2,)], {"equation": "ij,jk->ik"}) is None
    assert multiply_adds("MatMul", [(), ()], [()], {}) is None
    assert multiply_adds("Relu", [(1, 3)], [(1, 3)], {}) == 0
    assert multiply_adds("Conv", [(1, 3, 8, 8), (4, 3, 3, 3)], [(1, 4, 6, 6)], {}, "a.plugin") == 0


def test_weights_and_biases_are_told_from_data() -> None:
    assert [WEIGHTED["LSTM"].may_be_weight(place) for place in range(8)] == [False, True, True, *[False] * 5]
    assert WEIGHTED["LSTM"].may_be_parameter(3)
    assert not WEIGHTED["DeformConv"].may_be_parameter(2)  # the offsets
    assert WEIGHTED["DeformConv"].may_be_parameter(3)
    assert all(WEIGHTED["Einsum"].may_be_weight(place) for place in range(4))
    assert all(WEIGHTED["MatMul"].may_be_weight(place) for place in (0, 1))
