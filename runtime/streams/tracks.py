"""Whose a value is: a source's, or that of one object in its frames, which the caller knows again by a key."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

KEPT_SECONDS = 60.0
"""How long an object that is no longer in the frames is remembered: a tracker counts on, and memory must not grow with it."""


@dataclass(frozen=True)
class Track:
    """One object in a source's frames, or the source itself.

    Attributes:
        source: whose frames they are.
        key: the caller's; None: the source itself.
    """

    source: Hashable
    key: Hashable


class Absent:
    """Tells which objects were not seen for :data:`KEPT_SECONDS`. Sources are never forgotten."""

    def __init__(self) -> None:
        self._seen: dict[Track, float] = {}
        self._looked = 0.0

    def since(self, identity: Hashable, now: float) -> list[Track]:
        """Note that something was seen, and return what is to be forgotten, each once.

        Args:
            identity: a source or a :class:`Track`.
            now: seconds, of any clock that does not run backwards.
        """
        if not isinstance(identity, Track) or identity.key is None:
            return []
        self._seen[identity] = now
        if now - self._looked < KEPT_SECONDS / 4:
            return []
        self._looked = now
        gone = [track for track, seen in self._seen.items() if now - seen > KEPT_SECONDS]
        for track in gone:
            del self._seen[track]
        return gone
