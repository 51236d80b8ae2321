"""Advice before a call is sent: on a character's clip, and on prompts that use a character.

It costs a call no exchange: clips are read where they stand, and what is known of characters is in
this process's memory. What one worker learns of them goes out with its turns, and all others hear
of it with the news. Whatever is not known, nothing is said of.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections import OrderedDict

from router.characters import MOST_CHARACTERS, CharacterFacts, advice_on_use
from router.clips import Clip, advice_on_clip, read_clip
from router.errors import RouterWarning
from router.ids import Copy
from router.state import News, Sharing
from router.trip import Trip
from router.types import Operation

__all__ = ["ADVISED", "Advising"]

ADVISED = frozenset({Operation.CREATE_CHARACTER, Operation.GENERATION})
"""Of a clip to be edited or extended nothing is advised; what is no good for that is refused."""
READ_SECONDS = 1.0
"""Advice is worth no more waiting for a slow disk."""
_PACKAGE = os.path.dirname(__file__) + os.sep


class Advising:
    """Knows characters, and warns. Safe under threads."""

    def __init__(self, sharing: Sharing | None) -> None:
        self._sharing = sharing
        self._lock = threading.Lock()
        # In the order in which they were heard of.
        self._known: OrderedDict[Copy, CharacterFacts] = OrderedDict()

    def after_fork(self) -> None:
        """In a child process: what is known is known, but no lock is held."""
        self._lock = threading.Lock()

    # Warning ------------------------------------------------------------------------------------

    async def on(self, trip: Trip) -> None:
        """Note what speaks against a call, and warn of it.

        Where the caller has turned a `RouterWarning` into an error, it is raised here: nothing has
        been sent, and nothing is held.
        """
        if trip.operation is Operation.GENERATION:
            found = self._on_use(trip) if trip.call.ids else []
        else:
            trip.clip = await self._read(trip)
            found = advice_on_clip(trip.clip) if trip.clip is not None else []
        trip.advice = tuple(found)
        for advice in found:
            warnings.warn(advice, RouterWarning, stacklevel=_level_of_caller())

    def _on_use(self, trip: Trip) -> list[str]:
        """By whichever copy of each character is known."""
        found: list[str] = []
        for place in range(len(trip.call.ids)):
            copies = (Copy(account, of[place]) for account, of in trip.owned.natives.items())
            known = next(filter(None, map(self._known.get, copies)), None)
            if known is not None:
                found += advice_on_use(known, trip.call.prompt or "", trip.call.size)
        return found

    @staticmethod
    async def _read(trip: Trip) -> Clip | None:
        if trip.upload is None:
            return None
        door = trip.side.door
        try:
            return await door.foreign(door.offload(read_clip, trip.upload.source), READ_SECONDS)
        except TimeoutError:
            return None

    # Knowing ------------------------------------------------------------------------------------

    def made(self, trip: Trip, copy: Copy) -> None:
        """A character was made; the others are to know of it."""
        clip = trip.clip or Clip(0, 0)
        facts = CharacterFacts((trip.call.name or "").strip(), clip.width, clip.height)
        try:
            "".join((facts.name, *copy)).encode()
        except UnicodeEncodeError:  # half a character, which no store takes
            return
        self._put(copy, facts)
        if self._sharing is not None:
            self._sharing.tell_character(copy, facts)

    def absorb(self, news: News) -> None:
        for copy, facts in news.characters.items():
            self._put(copy, facts)

    def _put(self, copy: Copy, facts: CharacterFacts) -> None:
        with self._lock:
            self._known[copy] = facts
            self._known.move_to_end(copy)
            if len(self._known) > MOST_CHARACTERS:
                self._known.popitem(last=False)


def _level_of_caller() -> int:
    """The stack level, for who asks, of the innermost code that is not this package's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level
