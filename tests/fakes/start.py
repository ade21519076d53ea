"""How TensorRT starts, for better or worse, and through which logger it speaks.

Seen with TensorRT 8.6.0, lean 10.16 and 11.4 and RTX 1.7 on drivers that are too old or missing (tests/conformance).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

FAILURE = "CUDA initialization failure with error: 35"
INSUFFICIENT = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/dispatch/checkMacros.cpp:250 "
    "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
)


class ProcessEndedError(BaseException):
    """A real process would be gone here."""


class Started:
    """What a runtime is once it has started, or has not."""

    _broken: list[str] | None = None

    def fail(self, major: int, log: Callable[[int, str], None], violations: list[str]) -> None:
        """Become what TensorRT gives where CUDA does not start: nothing at all, or an object that nobody may touch or free."""
        if major == 8:
            log(2, f"{FAILURE}. Segmentation fault expected if caused by installation without CUDA.")
            violations.append("the process ended in Runtime(logger)")
            raise ProcessEndedError
        log(
            1,
            f"createInferRuntime: Error Code 6: API Usage Error ({FAILURE} In checkCudaInstallation at runtime.cpp:960)",
        )
        log(1, INSUFFICIENT)
        self._broken = violations

    def __getattribute__(self, name: str) -> Any:
        broken = object.__getattribute__(self, "_broken")
        if broken is not None and not name.startswith("__"):
            broken.append(f"the process ended: {name} of a runtime that had not started")
            raise ProcessEndedError
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        broken = object.__getattribute__(self, "_broken")
        if broken is not None:
            broken.append(f"the process ended: {name} of a runtime that had not started was set")
            raise ProcessEndedError
        object.__setattr__(self, name, value)

    def __del__(self) -> None:
        broken = object.__getattribute__(self, "_broken")
        if broken is not None:
            broken.append("the process ended: a runtime that had not started was freed")


class Speech:
    """Through which logger the library speaks: that of the first runtime that lives, by a bare pointer.

    Args:
        violations: takes in what would have crashed.
    """

    def __init__(self, violations: list[str]) -> None:
        self._violations = violations
        self._living: weakref.WeakSet[Any] = weakref.WeakSet()
        self._logger: Callable[[], Any] = lambda: None

    def begin(self, started: Any, logger: Any) -> None:
        """Take a runtime in."""
        if not len(self._living):
            self._logger = weakref.ref(logger)
        elif self._logger() is not logger:
            self._violations.append("The logger passed into createInferRuntime differs from one already registered")
        self._living.add(started)

    def say(self, severity: Any, text: str) -> None:
        """Speak."""
        logger = self._logger()
        if logger is None:
            self._violations.append("the process ended: a message went to a logger that was freed")
            return
        logger.log(severity, text)
