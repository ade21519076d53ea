"""Addresses without their passwords: what is printed, logged or written never holds a camera's credentials."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:/{1,2}")
_URL = re.compile(rf"({_SCHEME.pattern})([^\s'\"<>]*)")
"""With one slash as well, which is what a path makes of two."""
_HOST = re.compile(r"[^:@]*(:\d*)?|\[[^]]*\](:\d*)?")  # with a port, and IPv6
_QUERY = re.compile(
    r"(?i)([?&;](?:user(?:name)?|usr|login|pass(?:word|wd)?|pwd?|token|(?:api_?)?key|auth|secret|sig(?:nature)?)=)[^&;\s#'\"]*"
)
_PROPERTY = re.compile(
    r"(?i)\b((?:(?:user|proxy)-(?:id|pw)|user(?:name)?|pass(?:word|wd)?|pwd?|token)\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s!]+)"
)
HIDDEN = "***"


def redacted(text: str) -> str:
    """Return a text in which credentials in addresses are replaced by ``***``: ``rtsp://user:password@host`` and ``?token=...``."""
    return _URL.sub(lambda found: found[1] + _redacted_rest(found[2]), text) if ":/" in text else text


def redacted_source(text: str) -> str:
    """Do the same for what is nothing but an address, which may hold spaces and quotes, or a GStreamer pipeline.

    Its properties ``user-pw=`` and the like are hidden too.
    """
    if " ! " in text:
        return _PROPERTY.sub(rf"\1{HIDDEN}", redacted(text))
    found = _SCHEME.match(text)
    return text if found is None else found[0] + _redacted_rest(text[found.end() :])


def _redacted_rest(rest: str) -> str:
    """Return what follows ``scheme://`` without credentials. A password with an unescaped slash is one all the same."""
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if "@" in authority:
        authority = f"{HIDDEN}@{authority.rpartition('@')[2]}"
    elif "@" in path and not _HOST.fullmatch(authority):
        authority, path = HIDDEN, "@" + path.rpartition("@")[2]
    return authority + _QUERY.sub(rf"\1{HIDDEN}", path)
