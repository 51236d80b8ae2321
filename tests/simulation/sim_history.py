"""What happened in a timeline, in order, for the checker and for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Entry", "History"]


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

    def __str__(self) -> str:
        who = "  " if self.worker is None else f"w{self.worker}"
        which = "        " if self.call is None else f"call {self.call:<3}"
        told = "  ".join(f"{name}={_short(value)}" for name, value in self.about.items())
        return f"{self.at:10.3f}  {who}  {which}  {self.what:<10}  {told}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 90 else text[:87] + "..."


@dataclass
class History:
    """All entries, in the order in which they came."""

    clock: Callable[[], float]
    entries: list[Entry] = field(default_factory=list)

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

    def of(self, *what: str) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.what in what)

    def told(self, calls: Iterable[int] = ()) -> str:
        """As text; of these calls, and of what concerned nobody's call, where any are named."""
        wanted = {None, *calls}
        shown = [e for e in self.entries if not calls or e.call in wanted]
        return "\n".join(map(str, shown))
