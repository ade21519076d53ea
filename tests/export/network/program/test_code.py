"""What a program's texts may say: the grammar of size expressions, guards, names and tree specifications."""

from __future__ import annotations

import json

import pytest

from mtl_deploy.export.network.program.code import check_guard, clean_expression, clean_structure, is_name, is_path

EXPRESSIONS = [
    "Symbol('s77', positive=True, integer=True)",
    "Mul(Integer(4), Max(Integer(1), FloorDiv(Symbol('s0', positive=True, integer=True), Integer(2))))",
    "Float('0.5', precision=53)",
    "Add(Integer(-1), Rational(1, 2))",
    "Pow(Symbol('s0'), Integer(2))",
    "Piecewise(ExprCondPair(Integer(1), StrictLessThan(Symbol('u0', integer=True), Integer(2))), ExprCondPair(Integer(0), true))",
]
CODE = [
    "__import__('os').system('id')",
    "Symbol('s0').__class__.__base__",
    "sympify('s0')",
    "Symbol('open(1)')",
    "Symbol('x')",
    "Symbol('u99999999999')",  # torch counts up to it
    "Symbol('s0', positive=exit())",
    "(lambda: 1)()",
    "[s for s in L]",
    "L['f']()",
    "Integer(2",
    "Integer(2)\nInteger(3)",
    "Integer(2), exit()",
    "Integer(True)",
    "Integer('2')",
    "Integer(99999999999999999999)",
    "Rational(1, 0)",
    "Pow(Integer(9), Integer(999999999))",
    "Pow(Integer(9), Pow(Integer(9), Integer(8)))",
    "LShift(Integer(1), Integer(1000))",
    "Float('nan()')",
    "Add()",
    "Add(*Integer)",
    "Add(Integer(1), x=Integer(1))",
    "\uff33ymbol('s0')",
    "(" * 5000 + "1" + ")" * 5000,
    "Add(" * 100 + "Integer(1)" + ")" * 100,
    "Add(" + ", ".join(["Integer(1)"] * 5000) + ")",
    "",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_size_expressions_of_torch_are_written_anew(text: str) -> None:
    import sympy
    import torch.utils._sympy.functions as functions

    local = {name: getattr(functions, name) for name in ("FloorDiv", "Max") if hasattr(functions, name)}
    assert sympy.sympify(clean_expression(text), locals=local) == sympy.sympify(text, locals=local)


@pytest.mark.parametrize("text", CODE, ids=range(len(CODE)))
def test_anything_else_is_no_size_expression(text: str) -> None:
    with pytest.raises(ValueError):
        clean_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "(torch.sym_max(1, L['x'].size()[3] // 2)*L['x'].size()[2]) != 1 and L['x'].size()[0] >= 2",
        "((1 + (((-1) + L['image'].size()[3]) // 4))*(1 + (((-1) + L['image'].size()[2]) // 4))) != 1",
        "L['args'][0].size()[2] % 32 == 0",
        "L['x'].storage_offset() == 0",
    ],
)
def test_guards_compare_sizes(text: str) -> None:
    check_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "torch.os.system('id')", "L['x'].tofile(L)", "torch.sym_max", "L['x'].size()[exit()]", "L['x']['__class__'].y", "print()",
        "2 ** 9999999999", "L[L['x']].size()[0]", "L['x'].size(*L)[0]", "x == 1", "(yield)", "L['x'].size.__self__ == 1",
    ],
)  # fmt: skip
def test_anything_else_is_no_guard(text: str) -> None:
    with pytest.raises(ValueError):
        check_guard(text)


@pytest.mark.parametrize("text", ["x", "p_net_layer1_0_conv1_weight", "input", "__and__", "max_1", "relu_"])
def test_names(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "x: print()", "x\ny", "x=exit()", "1x", "lambda", "torch", "self", "\uff58", "x.y", "x" * 600]
)
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(
    "text",
    ["age.bias", "net.layer1.0.conv1.weight", "attention.self.query", "lifted_tensor_0", "_x", "trunk.block1-0.proj"],
)
def test_paths_of_tensors(text: str) -> None:
    assert is_path(text)


@pytest.mark.parametrize(
    "text",
    [
        'x") + exit() + ("', "", "a..b", "a.", "__class__.x", "a.__dict__", "forward", "a.training.b", "None", "a.class", "self",
        "a b", "a.b\n", "_parameters.x", "graph", "\u00e4", ".".join("a" * 100),
    ],
)  # fmt: skip
def test_what_is_no_path(text: str) -> None:
    assert not is_path(text)


def spec(kind: str | None, context: object, *children: object) -> list[object]:
    return [1, {"type": kind, "context": context, "children_spec": list(children)}]


LEAF = {"type": None, "context": None, "children_spec": []}


@pytest.mark.parametrize(
    ("named", "structure"),
    [
        (True, spec("builtins.tuple", "null", LEAF)),
        (True, spec("builtins.dict", '["image"]', LEAF)),
        (False, spec("builtins.dict", '["skin tone", "age (years)", 3]', LEAF, LEAF, LEAF)),
        (False, spec("collections.namedtuple", "faces.Output", LEAF)),
        (False, spec(None, None)),
    ],
)
def test_plain_structures_are_written_anew(named: bool, structure: object) -> None:
    assert json.loads(clean_structure(json.dumps(structure), named=named)) == structure


@pytest.mark.parametrize(
    ("named", "structure"),
    [
        (True, spec("builtins.dict", '["image=exit()"]', LEAF)),
        (True, spec("builtins.dict", '["self"]', LEAF)),
        (True, spec("collections.namedtuple", "faces.Output", LEAF)),
        (False, spec("collections.defaultdict", '{"default_factory_module": "os", "default_factory_name": "abort"}')),
        (False, spec("builtins.dict", '[{"__enum__": true, "fqn": "antigravity:E", "name": "A"}]', LEAF)),
        (False, spec("builtins.dict", '{"__enum__": true, "fqn": "antigravity:E", "name": "A"}', LEAF)),
        (False, spec("collections.deque", "null")),
        (False, spec("builtins.dict", "[1]", {**LEAF, "more": 1})),
        (False, [2, LEAF]),
        (False, [1, {}]),
        (False, 1),
        (False, "x"),
    ],
)
def test_other_structures_are_refused(named: bool, structure: object) -> None:
    with pytest.raises(ValueError):
        clean_structure(json.dumps(structure), named=named)


def test_deep_structures_are_refused() -> None:
    for depth in (100, 100_000):
        text = '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [' * depth
        with pytest.raises(ValueError):
            clean_structure(text + "]}]" * depth, named=False)
    nested: object = LEAF
    for _ in range(100):
        nested = {"type": "builtins.tuple", "context": "null", "children_spec": [nested]}
    with pytest.raises(ValueError, match="deeply"):
        clean_structure(json.dumps([1, nested]), named=False)
