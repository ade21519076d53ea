"""A camera on the network: MJPEG over HTTP, on this machine alone."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

PERIOD = 0.01  # seconds between frames


class Camera:
    """Sends pictures whose brightness grows by 30 from one to the next, beginning anew for each connection.

    Args:
        frames: after which a connection is dropped; None: it goes on.
        port: where to listen; 0: anywhere.
        hangs: send nothing more after the last frame, but keep the connection.

    Attributes:
        connections: that asked for the stream.
    """

    def __init__(self, frames: int | None = None, *, port: int = 0, hangs: bool = False) -> None:
        self.connections = 0
        self._frames, self._hangs = frames, hangs
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self._answer))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/stream"

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: Any) -> None:
        path = request.path.partition("?")[0]
        if path == "/missing":
            request.send_error(404)
        elif path == "/locked" and request.headers.get("Authorization") != _basic("me:secret"):
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
        elif path in ("/page", "/nothing"):
            request.send_response(200)
            request.send_header("Content-Type", "text/html; charset=utf-8" if path == "/page" else "video/none")
            request.end_headers()
            request.wfile.write(b"<html>")
        else:
            self.connections += 1
            request.send_response(200)
            request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            request.end_headers()
            self._stream(request)

    def _stream(self, request: Any) -> None:
        number = 0
        while (self._frames is None or number < self._frames) and not self._ended.wait(PERIOD):
            content = _jpeg(30 * number % 256)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            try:
                request.wfile.write(head.encode() + content + b"\r\n")
            except OSError:
                return
            number += 1
        if self._hangs:
            self._ended.wait()


def _jpeg(level: int) -> bytes:
    with io.BytesIO() as stream:
        Image.fromarray(np.full((48, 64, 3), level, np.uint8)).save(stream, "JPEG")
        return stream.getvalue()


def _basic(words: str) -> str:
    return f"Basic {base64.b64encode(words.encode()).decode()}"


def _handler(answer: Callable[[Any], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    return Handler
