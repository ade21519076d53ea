"""What the code uses of TensorRT and CUDA, collected from its syntax tree: a new use is found without anybody listing it.

Objects of the libraries are annotated ``Any`` in this project, and are followed from where they come: by the parameter's or
attribute's name (:data:`_NAMED`), and through assignments by what a call returns (:data:`_RETURNS`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TENSORRT_FILES = (
    *sorted(ROOT.glob("runtime/backends/tensorrt/[a-z]*.py")),
    *sorted(ROOT.glob("runtime/backends/tensorrt/library/[a-z]*.py")),
    *(ROOT / "export/engines/build.py", ROOT / "export/engines/bundle_engines.py"),
    ROOT / "examples/bare_loop.py",
)
CUDA_FILES = (
    *(ROOT / f"runtime/cuda/{name}.py" for name in ("calls", "context", "driver")),
    ROOT / "examples/bare_loop.py",
)
LIBCUDA_FILES = (ROOT / "runtime/cuda/gpu.py", ROOT / "runtime/cuda/calls.py")

_MODULE = "the module"
_NAMED = {
    "trt": _MODULE,
    "module": _MODULE,
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "dtype": "DataType",
    "engine": "ICudaEngine",
    "error": "ParserError",
    "execution": "IExecutionContext",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "runtime_config": "IRuntimeConfig",
}
_ATTRIBUTES = {
    "module": _MODULE,
    "engine": "ICudaEngine",
    "_execution": "IExecutionContext",
    "_runtime": "Runtime",
    "_uncaptured": "IExecutionContext",
}
_CACHES = {"runtime/backends/tensorrt/kernel_cache.py": {"_cache": "IRuntimeCache"}}
_RETURNS = {
    "Builder": "Builder",
    "_configure": "ITimingCache",
    "load_timing_cache": "ITimingCache",
    "OnnxParser": "OnnxParser",
    "Runtime": "Runtime",
    "build_serialized_network": "IHostMemory",
    "create_builder_config": "IBuilderConfig",
    "create_context": "IExecutionContext",
    "create_engine_inspector": "EngineInspector",
    "create_execution_context": "IExecutionContext",
    "create_network": "INetworkDefinition",
    "create_optimization_profile": "IOptimizationProfile",
    "create_runtime_cache": "IRuntimeCache",
    "create_runtime_config": "IRuntimeConfig",
    "create_timing_cache": "ITimingCache",
    "deserialize_cuda_engine": "ICudaEngine",
    "get_error": "ParserError",
    "get_input": "ITensor",
    "get_layer": "ILayer",
    "make_execution": "IExecutionContext",
    "start_builder": "Builder",
    "start_runtime": "Runtime",
}
_CLASSES = frozenset(_RETURNS.values()) | frozenset(_NAMED.values()) - {_MODULE}


@dataclass(frozen=True)
class Use:
    """A name that the code uses.

    Attributes:
        owner: the class or enum that has it; empty for a name of the module.
        name: it.
        positional: how many arguments a call passes; None where it is not called.
        keywords: that a call passes.
        asked: whether the code asks first whether it exists (``hasattr``, ``getattr``).
        where: file and line.
    """

    owner: str
    name: str
    positional: int | None = None
    keywords: tuple[str, ...] = ()
    asked: bool = False
    where: str = ""

    @property
    def title(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


def tensorrt_uses() -> list[Use]:
    """Return what the code uses of TensorRT's module, its enums and its classes."""
    found = {use for file in TENSORRT_FILES for use in _File(file).uses()}
    return sorted(found, key=lambda use: (use.title, use.where))


def attributes() -> dict[str, str]:
    """Return every attribute that the code reads or writes in those files, with a place."""
    found = {}
    for file in TENSORRT_FILES:
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.Attribute):
                found.setdefault(node.attr, f"{file.relative_to(ROOT)}:{node.lineno}")
    return found


def own_names() -> set[str]:
    """Return the names that the project defines itself: functions, classes, fields, and what it assigns to ``self``."""
    found: set[str] = set()
    for room in ("runtime", "export", "bench", "calibration"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(_tree(file)):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found.add(node.name)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found.add(node.target.id)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                    found.add(node.attr)
    return found


def cuda_uses() -> list[Use]:
    """Return the functions, enums and members that the code uses of cuda-bindings."""
    found = []
    for file in CUDA_FILES:
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.Attribute) and node.attr.startswith("CU_"):
                parent = node.value.attr if isinstance(node.value, ast.Attribute) else ""
                if isinstance(node.value, ast.Name) and node.value.id in ("flags", "kinds"):
                    parent = {"flags": "CUevent_flags", "kinds": "CUpointer_attribute"}[node.value.id]
                found.append(Use(parent if parent.startswith("CU") else "", node.attr, where=_place(file, node)))
            elif isinstance(node, ast.Attribute) and node.attr[:2] == "cu" and node.attr[2:3].isupper():
                found.append(Use("", node.attr, where=_place(file, node)))
    return sorted(set(found), key=lambda use: (use.title, use.where))


def libcuda_uses() -> set[str]:
    """Return the driver's own functions that the code calls by ctypes."""
    names = {node.attr for file in LIBCUDA_FILES for node in ast.walk(_tree(file)) if isinstance(node, ast.Attribute)}
    return {name for name in names if name.startswith("cu") and name[2:3].isupper()}


class _File:
    """One file's uses of TensorRT."""

    def __init__(self, file: Path) -> None:
        self._file, self._tree = file, _tree(file)
        self._attributes = _ATTRIBUTES | _CACHES.get(str(file.relative_to(ROOT)), {})
        self._calls = {id(node.func): node for node in ast.walk(self._tree) if isinstance(node, ast.Call)}

    def uses(self) -> Iterator[Use]:
        """Return them; a name is looked up in the innermost function around it."""
        yield from self._of(self._tree, {})

    def _of(self, scope: ast.AST, outer: dict[str, str]) -> Iterator[Use]:
        types = outer | self._parameters(scope)
        body = list(_inside(scope))
        for _ in range(3):  # assignments may lean on later ones' names
            for node in body:
                if isinstance(node, ast.Assign) and (kind := self._type(node.value, types)) is not None:
                    types |= {target.id: kind for target in node.targets if isinstance(target, ast.Name)}
        for node in body:
            if isinstance(node, ast.Attribute):
                yield from self._use(node, node.value, node.attr, types)
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("hasattr", "getattr")
            ):
                name = node.args[1]
                if isinstance(name, ast.Constant):
                    yield from self._use(node, node.args[0], str(name.value), types, asked=True)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
                yield from self._of(node, types)

    def _use(
        self, node: ast.expr, value: ast.expr, name: str, types: dict[str, str], *, asked: bool = False
    ) -> Iterator[Use]:
        owner = self._type(value, types)
        if owner is None or name.startswith("__"):
            return
        call = None if asked else self._calls.get(id(node))
        yield Use(
            "" if owner == _MODULE else owner,
            name,
            None if call is None or any(isinstance(each, ast.Starred) for each in call.args) else len(call.args),
            () if call is None else tuple(keyword.arg for keyword in call.keywords if keyword.arg),
            asked,
            _place(self._file, node),
        )

    def _parameters(self, scope: ast.AST) -> dict[str, str]:
        if not isinstance(scope, ast.FunctionDef):
            return {}
        given = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
        raw = [each.arg for each in given if isinstance(each.annotation, ast.Name) and each.annotation.id == "Any"]
        return dict.fromkeys((each.arg for each in given), "") | {name: _NAMED[name] for name in raw if name in _NAMED}

    def _type(self, node: ast.expr, types: dict[str, str]) -> str | None:
        """Return the class of an expression: one of the library's, an enum's name, or the module; None for anything else."""
        if isinstance(node, ast.Name):
            return types.get(node.id) or None
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            return _RETURNS.get(name)
        if isinstance(node, ast.Attribute):
            if self._type(node.value, types) == _MODULE:
                return node.attr
            return self._attributes.get(node.attr)
        return None


def _inside(scope: ast.AST) -> Iterator[ast.AST]:
    """Return the nodes of a scope in order; functions and classes in it, but not what is inside them."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            yield from _inside(child)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _place(file: Path, node: ast.AST) -> str:
    return f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
