"""The simulated TensorRT's enums, and TensorRT-RTX's configuration of contexts with its cache of kernels."""

from __future__ import annotations

import enum
import weakref
from typing import Any


class DataType(enum.IntEnum):
    """TensorRT's types, as far as borders have them."""

    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4

    def __int__(self) -> int:
        return self.value


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Allocation(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class Specialization(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class HostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class RuntimeCache:
    def __init__(self) -> None:
        self.shapes: set[int] = set()

    def serialize(self) -> HostMemory:
        return HostMemory(b"CACHE" + bytes(sorted(self.shapes))) if self.shapes else HostMemory()

    def deserialize(self, blob: bytes) -> bool:
        if blob[:5] != b"CACHE":
            return False
        self.shapes |= set(blob[5:])
        return True


class RuntimeConfig:
    def __init__(self) -> None:
        self.strategy, self.cache = Allocation.STATIC, RuntimeCache()
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return RuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class Alive:
    """A weak reference, so that graphs keep no context alive."""

    def __init__(self, execution: Any) -> None:
        self.get = weakref.ref(execution)
