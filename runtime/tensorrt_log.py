"""TensorRT's own messages, filtered and in our voice."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

_LOGGER = logging.getLogger("mtl_deploy.tensorrt")

_NOISE = (
    "Thread context has not been set",  # an internal note of TensorRT-RTX's
    "is unsupported in TensorRT-RTX",  # said of getters that print and inspect; setters are checked one by one
    "CUDA lazy loading is not enabled",
    "Unable to determine GPU memory usage",
    "TensorRT was linked against",
    "Using an engine plan file across different models of devices",  # said in our own words, see engine_record
    "Context memory is required to be set",
)
_CONTINUED = re.compile(r"^(--- Begin node ---|--- End node ---|Node name:|While parsing node)")
_PREFIXES = (
    re.compile(
        r"^\[?[\w./]+\.(cpp|h|cu):?:?[\w:]*:?\d*\]?:? *"
    ),  # ModelImporter.cpp:151:  and  [optimizer.cpp::run::12]
    re.compile(r"^\d+: (?=\[)"),  # "1: [runtime.cpp::...", TensorRT 8's error codes
    re.compile(r"^I\w+::\w+: *"),  # IRuntime::deserializeCudaEngine:
    re.compile(r"^ERROR: *"),
    re.compile(r"^In function \w+: *(\[\d+\] *)?"),
    re.compile(r"^Error Code \d+: *"),
)


class Messages:
    """What TensorRT said since the last :meth:`clear`.

    Attributes:
        errors: in order, cleaned of source positions, each once.
        warnings: likewise.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._lock = threading.RLock()  # a collected engine speaks too

    def add(self, severity: int, text: str) -> None:
        """Take a message in; severities are TensorRT's, 0 (internal error) to 4 (verbose)."""
        if any(noise in text for noise in _NOISE):
            severity = 4
        cleaned = clean(text)
        _LOGGER.debug("%s", cleaned)
        if severity > 2 or not cleaned or _CONTINUED.match(cleaned):
            return
        with self._lock:
            into = self.errors if severity < 2 else self.warnings
            if cleaned not in into:
                into.append(cleaned)

    def clear(self) -> None:
        """Forget what was said."""
        with self._lock:
            self.errors.clear()
            self.warnings.clear()

    def reason(self) -> str:
        """Return the first error, which is the cause of those that follow it."""
        with self._lock:
            return self.errors[0] if self.errors else "the library gave no reason"

    @property
    def out_of_memory(self) -> bool:
        """Whether an error speaks of memory that could not be had."""
        with self._lock:
            return any(re.search(r"out of ?memory|OutOfMemory", text, re.IGNORECASE) for text in self.errors)


def clean(text: str) -> str:
    """Take source positions, function names and error codes off the front of a message, and put it on one line."""
    line = " ".join(text.split())
    changed = True
    while changed:
        changed = False
        for prefix in _PREFIXES:
            shorter = prefix.sub("", line, count=1)
            changed = changed or shorter != line
            line = shorter
    return line.rstrip(". ") if line else ""


def make_logger(module: Any, messages: Messages) -> Any:
    """Return a logger for a TensorRT module that passes its messages on.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``; its logger class is only known once it is imported.
        messages: takes them in. They come from any thread.
    """

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            messages.add(int(severity), text)

    return Logger()
