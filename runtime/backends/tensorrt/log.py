"""TensorRT's own messages, filtered and cleaned."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import weakref
from typing import Any

CUDA_FAILED = "CUDA initialization failure"  # its words where the driver is too old, or there is no GPU
_KEPT = 200  # messages
_LOGGER = logging.getLogger("mtl_deploy.tensorrt")

_NOISE = (
    "Thread context has not been set",  # an internal note of TensorRT-RTX's
    "is unsupported in TensorRT-RTX",  # about getters that print and inspect; setters are checked one by one
    "CUDA lazy loading is not enabled",
    "Unable to determine GPU memory usage",
    "TensorRT was linked against",
    "Using an engine plan file across different models of devices",  # said in our own words, see record.py
    "Context memory is required to be set",
)
_CONTINUED = re.compile(r"^(--- Begin node ---|--- End node ---|Node name:|While parsing node)")
_PREFIXES = (
    re.compile(
        r"^\[?[\w./]+\.(cpp|h|cu):?:?[\w:]*:?\d*\]?:? *"
    ),  # ModelImporter.cpp:151:  and  [optimizer.cpp::run::12]
    re.compile(r"^\d+: (?=\[)"),  # "1: [runtime.cpp::...", TensorRT 8's error codes
    re.compile(r"^I\w+::\w+: *"),  # IRuntime::deserializeCudaEngine:
    re.compile(r"^createInfer\w+: *"),
    re.compile(r"^ERROR: *"),
    re.compile(r"^In function \w+: *(\[\d+\] *)?"),
    re.compile(r"^Error Code \d+: *"),
)


class Messages:
    """What TensorRT said about one model or build since the last :meth:`clear`.

    A model is called from several threads, and several models log through one logger (:func:`logger_for`). A message from a thread
    that works for this model (:meth:`listen`) belongs to that thread's call. A message from the library's own threads goes to
    all models, and counts where the thread itself got none.
    """

    def __init__(self) -> None:
        self._said: list[
            tuple[int | None, bool, str]
        ] = []  # the thread that it came from, whether it is an error, its text
        self._lock = threading.RLock()  # an engine logs when it is collected, too

    @property
    def errors(self) -> list[str]:
        """All errors, in order, cleaned of source positions, each once."""
        return self._texts(errors=True)

    @property
    def warnings(self) -> list[str]:
        """All warnings, likewise."""
        return self._texts(errors=False)

    def listen(self) -> None:
        """Have the messages of this thread go here only, from now on."""
        _thread.listener = weakref.ref(self)

    def add(self, severity: int, text: str, thread: int | None = None) -> None:
        """Take a message in.

        Args:
            severity: TensorRT's, 0 (internal error) to 4 (verbose).
            text: the message.
            thread: the one that it came from, where that works for this model; None: the library's own.
        """
        if any(noise in text for noise in _NOISE):
            severity = 4
        elif CUDA_FAILED in text:  # TensorRT 8.6 only warns about it, and then crashes
            severity = min(severity, 1)
        cleaned = clean(text)
        _LOGGER.debug("%s", cleaned)
        if severity > 2 or not cleaned or _CONTINUED.match(cleaned):
            return
        entry = (thread, severity < 2, cleaned)
        with self._lock:
            if entry not in self._said:
                self._said.append(entry)
                del self._said[:-_KEPT]

    def clear(self) -> None:
        """Forget the messages of this thread and of the library's own, and listen."""
        self.listen()
        if self._said:
            own = threading.get_ident()
            with self._lock:
                self._said = [entry for entry in self._said if entry[0] not in (own, None)]

    def reason(self) -> str:
        """Return the first error of this thread's call, which is the cause of the later ones."""
        errors = self._heard()
        return errors[0] if errors else "the library gave no reason"

    @property
    def out_of_memory(self) -> bool:
        """Whether an error of this thread's call says that memory could not be allocated."""
        return any(re.search(r"out of ?memory|OutOfMemory", text, re.IGNORECASE) for text in self._heard())

    @property
    def cuda_failed(self) -> bool:
        """Whether CUDA did not start for the library. What it returned must then be neither used nor freed."""
        return any(CUDA_FAILED in text for text in self.errors)

    def _heard(self) -> list[str]:
        own = threading.get_ident()
        with self._lock:
            for threads in ((own,), (None,)):
                found = [text for thread, error, text in self._said if error and thread in threads]
                if found:
                    return found
            return [text for _, error, text in self._said if error]

    def _texts(self, *, errors: bool) -> list[str]:
        with self._lock:
            return list(dict.fromkeys(text for _, error, text in self._said if error == errors))


def clean(text: str) -> str:
    """Remove source positions, function names and error codes from the front of a message, and put it on one line."""
    line = " ".join(text.split())
    changed = True
    while changed:
        changed = False
        for prefix in _PREFIXES:
            shorter = prefix.sub("", line, count=1)
            changed = changed or shorter != line
            line = shorter
    return line.rstrip(". ") if line else ""


def logger_for(module: Any, messages: Messages) -> Any:
    """Return the logger of a TensorRT module, which from now on passes messages on to these too, for as long as they exist.

    There is one for the life of the process. TensorRT keeps a bare pointer to the first that it is given, and logs through it
    whichever model works (``nvinfer1::getLogger``): a logger that was freed with its model would leave that pointer dangling.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``; its logger class is only known once it is imported.
        messages: where to pass messages from now on. They come from any thread.
    """
    with _lock:
        if module not in _loggers:
            _loggers[module] = _make_logger(module)
        logger, listeners = _loggers[module]
        listeners.add(messages)
    messages.listen()
    return logger


def _make_logger(module: Any) -> tuple[Any, weakref.WeakSet[Messages]]:
    listeners: weakref.WeakSet[Messages] = weakref.WeakSet()

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            chosen: Messages | None = getattr(_thread, "listener", _nobody)()
            with _lock:
                known = list(listeners)
            if chosen is not None and any(chosen is one for one in known):
                chosen.add(int(severity), text, threading.get_ident())
                return
            for one in known:
                one.add(int(severity), text)

    logger = Logger()
    keep_forever(logger)
    return logger, listeners


def keep_forever(thing: object) -> None:
    """Let an object outlive the interpreter: its destructor, or what still points to it, would crash the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _nobody() -> Messages | None:
    return None


_thread = threading.local()
_lock = threading.RLock()  # an engine logs when it is collected, too
_loggers: dict[Any, tuple[Any, weakref.WeakSet[Messages]]] = {}  # by module
