"""What an error of a library means: its reason in one line, and whether memory ran out."""

from __future__ import annotations

_MEMORY = ("bad_alloc", "Failed to allocate memory", "out of memory", "bad allocation", "Cannot allocate memory")


def is_memory(error: BaseException) -> bool:
    """Return whether memory ran out: Python's, C++'s (``std::bad_alloc``), or that of a library's own allocators."""
    words = str(error)
    return isinstance(error, MemoryError) or any(sign in words for sign in _MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an error that is not empty; ONNX Runtime says there what was wrong."""
    return (_lines(error) or [type(error).__name__])[0]


def last_line(error: BaseException) -> str:
    """Return the last line of an error that is not empty; OpenVINO's first lines say where in its source it was raised."""
    return (_lines(error) or [type(error).__name__])[-1]


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()]
