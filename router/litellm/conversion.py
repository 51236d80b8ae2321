"""What becomes of a LiteLLM file: our form with the places it comes from, and notes of what was not
taken, or should be looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from router._yaml import Path

__all__ = [
    "ABSENT",
    "CLOSED",
    "ENCODED",
    "ENVIRON",
    "KEY",
    "KEYLESS",
    "UNUSED",
    "VARIABLE",
    "Conversion",
    "Note",
    "Shown",
    "says",
    "summary",
]

Shown: TypeAlias = Callable[[object], str]
"""How a name out of a file is printed: no secret, one line, not endless."""

UNUSED = "no counterpart here"
ABSENT = "names a group that is not here"
CLOSED = "goes to api.openai.com, which closed its video API in 2026; name a server in `api_base`"
KEYLESS = "has no `api_key`; LiteLLM would send OPENAI_API_KEY to that server, and here nothing is"
ENCODED = "becomes part of a URL, so its special characters must be percent-encoded"
_KEPT = (CLOSED, KEYLESS, ENCODED)

ENVIRON = "os.environ/"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}")
_USERINFO = re.compile(r"//([^/?#]*)@")
# What a key looks like. `{api_key:secret}`, where a blank is missing, is another.
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Note:
    """Something of the file that is not taken, or that is, and should be looked at.

    `what` is its name in the file: show it as anything out of a file is shown.
    """

    place: Path
    what: str
    why: str

    @property
    def is_entry(self) -> bool:
        """Whether a whole entry of `model_list` was skipped."""
        return self.place[:1] == ("model_list",) and len(self.place) == 2

    @property
    def is_kept(self) -> bool:
        return self.why in _KEPT

    def told(self, shown: Shown) -> str:
        """What is said of it beside its place, which names it but for models."""
        if self.is_kept:
            return self.why
        return (
            f"skipped `{shown(self.what)}`: {self.why}" if self.is_entry else f"dropped: {self.why}"
        )


@dataclass
class Conversion:
    """A LiteLLM configuration in our shape, its variables as `${NAME}`.

    `origins` says where in the file each of our places comes from. `problems` are what refuses the
    file, and `notes` what was dropped, both in the file's own places. `variables` are those that
    the file itself sets, `hidden` what no message may show, `entries` how many models the file has.
    `quoted` are, by our place, the variables whose values are to be percent-encoded there.
    """

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Path] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    quoted: dict[Path, frozenset[str]] = field(default_factory=dict)
    entries: int = 0

    def put(self, section: dict[str, Any], at: Path, key: str, value: Any, origin: Path) -> None:
        section[key] = value
        self.origins[*at, key] = origin

    def note(self, place: Path, what: str, why: str) -> None:
        self.notes.append(Note(place, what, why))
        self.hidden += _USERINFO.findall(what)

    def unused(
        self, section: Mapping[Any, Any], known: Collection[str], name: str, at: Path
    ) -> None:
        """Note what a section says besides what is known of it."""
        for key, value in section.items():
            place = (*at, str(key))
            is_odd = not KEY.fullmatch(str(key))
            if is_odd:
                self.hidden.append(str(key))
            if is_odd and name == "litellm_params":
                self.problems.append((place, "is no key; is a blank missing after a `:`?"))
            elif key not in known and (says(value) or is_odd):
                self.note(place, f"{name}.{key}", UNUSED)

    def ours(self, value: Any, place: Path) -> Any:
        """A value with LiteLLM's variables as ours."""
        if isinstance(value, Mapping):
            return {key: self.ours(item, (*place, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.ours(item, (*place, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or not value.startswith(ENVIRON):
            return value
        name = value.removeprefix(ENVIRON)
        if _NAME.fullmatch(name):
            return f"${{{name}}}"
        self.problems.append((place, "must name a variable: letters, digits and `_`"))
        return None


def summary(made: Conversion, shown: Shown) -> str | None:
    """All that was dropped, in a sentence or two; `None` where everything was taken.

    `shown` is how a name out of the file is printed.
    """
    # What is encoded here, only who writes it out has to encode.
    notes = [note for note in made.notes if note.why != ENCODED]
    if not notes:
        return None
    reasons: dict[str, dict[str, None]] = {}
    for note in notes:
        reasons.setdefault(note.why, {})[shown(note.what)] = None
    taken = made.entries - sum(note.is_entry for note in notes)
    told = f"{taken} of {made.entries} models of this LiteLLM configuration are deployments here"
    for opening, kept in (("dropped", False), ("to be looked at", True)):
        parts = [f"{', '.join(n)} ({why})" for why, n in reasons.items() if (why in _KEPT) is kept]
        told += f"; {opening}: {'; '.join(parts)}" if parts else ""
    return f"{told}. `video-router convert` tells the line of each"


def says(value: object) -> bool:
    return value is not None and value is not False and value != "" and value != [] and value != {}
