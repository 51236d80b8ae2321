"""What happened in a timeline, in order, for the checker and for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.types import Video

__all__ = ["Entry", "History"]

LONGEST = 110
# What concerns more than one call; it is told with the calls that somebody asks for.
COMMON = {
    *("hired", "killed", "blow", "reloaded", "refused", "alone"),
    *("heard", "heard back", "Ejected", "Restored"),
}

Names = Mapping[str, str]

_IDS = re.compile(r"\b(?:video|character|char)_[0-9A-Za-z_-]{16,}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: to whom, in which call, and what is to be said of it.

    `about` is shown; `unshown` is for the checker.
    """

    at: float
    worker: int | None
    call: int | None
    what: str
    about: Mapping[str, Any]
    unshown: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.about[name] if name in self.about else self.unshown[name]

    def get(self, name: str) -> Any:
        """What is noted under a name; `None` for nothing."""
        return self.about.get(name, self.unshown.get(name))

    def __str__(self) -> str:
        return self.told({})

    def told(self, names: Names) -> str:
        """One line, in which ids bear these names."""
        who = "  " if self.worker is None else f"w{self.worker}"
        which = "        " if self.call is None else f"call {self.call:<3}"
        told = "  ".join(f"{name}={_short(value, names)}" for name, value in self.about.items())
        return f"{self.at:10.3f}  {who}  {which}  {self.what:<10}  {told}".rstrip()


def _short(value: Any, names: Names) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, bytes):
        return _bytes(value)
    text = value if isinstance(value, str) else repr(value)
    if isinstance(value, Video):
        text = f"{value.id} {value.status}"
    text = _IDS.sub(lambda found: names.get(found[0], f"{found[0][:14]}…"), text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _bytes(value: bytes) -> str:
    return "<clip>" if value[4:8] == b"ftyp" else f"<{len(value):,} bytes>"


@dataclass
class History:
    """All entries, in the order in which they came."""

    clock: Callable[[], float]
    entries: list[Entry] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """What ids are called where people read them."""

    def note(
        self,
        what: str,
        worker: int | None = None,
        call: int | None = None,
        *,
        unshown: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        self.entries.append(Entry(self.clock(), worker, call, what, about, unshown or {}))

    def christen(self, id_: str, call: int, copies: Sequence[tuple[str, str]]) -> None:
        """Name an id, and the native ids behind it, after the call that was answered with it."""
        kind = id_.partition("_")[0]
        accounts = "+".join(account for account, _ in copies)
        self.names.setdefault(id_, f"{kind}#{call}@{accounts}")
        for account, native in copies:
            self.names.setdefault(native, f"native#{call}@{account}")

    def of(self, *what: str) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.what in what)

    def told(self, calls: Iterable[int] = ()) -> str:
        """As text; of these calls, and of what concerns more than one, where any are named."""
        wanted = set(calls)
        return "\n".join(
            entry.told(self.names)
            for entry in self.entries
            if not wanted or entry.call in wanted or entry.what in COMMON
        )
