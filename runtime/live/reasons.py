"""Why a source cannot be opened: OpenCV only says that it cannot, so what can be asked of the system and the host is asked."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from mtl_deploy.runtime.files.reading import describe

from .sources import CAMERA, PORTS, Source

_PATIENCE = 5.0  # seconds for the host to answer
_LONGEST = 4096  # bytes of an answer that are looked at


def reason(source: Source) -> str:
    """Return why a source cannot be opened, in a few words."""
    if source.kind == "pipeline":
        return "GStreamer cannot play this pipeline; it must end in appsink (try it with gst-launch-1.0 and fakesink in its place)"
    if source.kind == "camera":
        return _of_device(source.text)
    if source.kind == "file":
        return "OpenCV cannot open it (no video, or no codec for it)" if Path(source.text).is_file() else "no such file"
    try:
        return _of_address(urlsplit(source.text))
    except ValueError:  # a port that is no number, half of an IPv6 address
        return "not an address: write SCHEME://HOST:PORT/PATH, with %40 for @ and %2F for / in a password"


def _of_device(text: str) -> str:
    device = Path(f"/dev/video{text.removeprefix(CAMERA)}" if text.startswith(CAMERA) else text)
    if not device.exists():
        found = sorted(str(path) for path in Path("/dev").glob("video*"))
        others = f"; there is {', '.join(found)}" if found else "; is it plugged in?"
        return f"no such camera ({device}){others}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"no permission for {device}: add the user to the group {_group(device)}"
    return f"OpenCV cannot open {device}: another program may use it, or it is none that takes pictures"


def _group(device: Path) -> str:
    try:
        return device.group()
    except (KeyError, OSError):
        return "video"


def _of_address(url: SplitResult) -> str:
    scheme = url.scheme.lower()
    port = url.port or PORTS.get(scheme)
    if not url.hostname:
        return "it names no host: write SCHEME://HOST:PORT/PATH"
    if port is None or scheme not in PORTS:
        return "nothing that OpenCV can play came from there"
    try:
        with socket.create_connection((url.hostname, port), _PATIENCE) as connection:
            return _answer(connection, url, scheme) or "OpenCV cannot play what it sends"
    except socket.gaierror:
        return f"no such host: {url.hostname}"
    except ConnectionRefusedError:
        return f"connection refused by {url.hostname}, port {port}"
    except TimeoutError:
        return f"no answer from {url.hostname}, port {port}, within {_PATIENCE:g} s"
    except OSError as error:
        return f"{url.hostname}, port {port}: {describe(error)}"


def _answer(connection: socket.socket, url: SplitResult, scheme: str) -> str | None:
    """Ask for the stream and return what is wrong with the answer; None: nothing that this can see."""
    if scheme not in ("http", "https", "rtsp"):
        return None
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    host = url.netloc.rpartition("@")[2]
    if scheme == "rtsp":
        request = f"DESCRIBE rtsp://{host}{path} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    else:
        request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\n{_authorization(url)}\r\n"
    if scheme == "https":
        try:
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=url.hostname)
        except ssl.SSLError as error:
            return f"its certificate or encryption: {error.reason or error}"
    with connection:
        connection.sendall(request.encode())
        lines = connection.recv(_LONGEST).decode("latin-1").splitlines()
    words = lines[0].split(maxsplit=2) if lines else []
    if len(words) < 2 or not words[1].isdecimal():
        return f"what answers there does not speak {scheme.upper()}"
    said = " ".join(words[1:])[:80]
    if words[1] in ("401", "403"):
        whose = "check user and password" if url.username else f"write {scheme}://USER:PASSWORD@HOST"
        return f"it answers {said}: {whose}"
    if int(words[1]) >= 400:
        return f"it answers {said}"
    kind = next((line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("content-type:")), "")
    return f"it sends {kind.partition(';')[0]}, which is no video" if kind.startswith("text/") else None


def _authorization(url: SplitResult) -> str:
    if not url.username:
        return ""
    with suppress(UnicodeError):
        words = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
        return f"Authorization: Basic {base64.b64encode(words).decode()}\r\n"
    return ""
