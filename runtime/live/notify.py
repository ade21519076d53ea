"""What a service tells systemd: that it is ready, that it is alive, that it ends (sd_notify(3)), over a datagram socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType

_PATIENCE = 2.0  # seconds that a manager may be too busy to listen


class Notifier:
    """Tells the service manager how the process is; does nothing where no manager has asked, by ``NOTIFY_SOCKET``.

    With ``WatchdogSec=`` in the unit, systemd ends and restarts a service that it does not hear of in time
    (sd_watchdog_enabled(3)).

    Args:
        alive: whether the work goes on; asked twice in each of the watchdog's intervals, and no sign is given where it does not.
    """

    def __init__(self, alive: Callable[[], bool] = lambda: True) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._alive = alive
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        seconds = _watchdog_seconds()
        if self._address and seconds:
            self._thread = threading.Thread(target=self._watch, args=(seconds / 2,), name="mtl-watchdog", daemon=True)

    def ready(self, status: str) -> None:
        """Say that the service has started, and begin with the signs of life."""
        self._send(f"READY=1\nSTATUS={status}")
        if self._thread is not None:
            self._thread.start()

    def status(self, line: str) -> None:
        """Say how it is, in a line that ``systemctl status`` shows."""
        self._send(f"STATUS={line}")

    def close(self) -> None:
        """Say that the service ends."""
        self._stopped.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(1.0)  # a sign of life that comes later than the end would confuse
        self._send("STOPPING=1")

    def __enter__(self) -> Notifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _watch(self, seconds: float) -> None:
        while True:
            if self._alive():
                self._send("WATCHDOG=1")
            if self._stopped.wait(seconds):
                return

    def _send(self, message: str) -> None:
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(_PATIENCE)
                connection.sendto(message.encode(), name)
        except OSError:  # nobody listens any more; the work is more important
            return


def _watchdog_seconds() -> float:
    """Return the interval in which the manager wants a sign of life; 0.0: none is wanted of this process."""
    microseconds, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or (process and process != str(os.getpid())):
        return 0.0
    return int(microseconds) / 1e6
