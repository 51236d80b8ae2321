"""One configuration being read: its variables, what is wrong with it, and what must stay unsaid.

Every message about a configuration is made here, so that here one can see that none holds a secret.
What stands where a secret belongs (a key, a header, a URL's userinfo) is never shown, wherever else
it stands. What a variable held elsewhere may be a secret by mistake, and is not shown either; but
a name that the file gives in plain text is no less a name for being a variable's value too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from router._yaml import Path
from router.errors import ConfigError

__all__ = ["SHORTEST_SECRET", "Reading", "allowed"]

# A shorter secret would blot out syllables of honest text and protect nothing.
SHORTEST_SECRET = 4
# deployments → one → headers → value is 4 deep. What goes on and on is a dict that holds itself.
MAX_DEPTH = 8

_SECRET_KEYS = frozenset({"api_key", "headers", "id_secrets", "key", "sha256"})
_USERINFO = re.compile(r"//([^/?#]*)@")
_VARIABLE = re.compile(
    r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})?"
)


def allowed(names: Iterable[str]) -> str:
    return f"allowed: {', '.join(names)}"


def _around(place: Path) -> Iterable[Path]:
    """The place, and those around it, from the inside."""
    return (place[:end] for end in range(len(place), -1, -1))


class Reading:
    """One configuration being read: what was found wrong so far, and what must not be printed.

    Of one place only the first problem is kept, because the later ones follow from it.
    """

    def __init__(
        self,
        source: str,
        environ: Mapping[str, str],
        lines: Mapping[Path, int] = MappingProxyType({}),
    ) -> None:
        self.source = source
        self.words: frozenset[str] = frozenset()
        # Where a place of ours stands in the file, if that is in another form.
        self.origins: Mapping[Path, Path] = MappingProxyType({})
        self.environ = environ
        self.lines = lines
        self.problems: dict[Path, str] = {}
        # The variables, by the place that takes them, whose values become a part of a URL there.
        self.quoted: Mapping[Path, Collection[str]] = MappingProxyType({})
        self._secrets: set[str] = set()
        self._variables: set[str] = set()
        self._names: frozenset[str] = frozenset()

    # What is wrong, and where

    def problem(self, place: Path, text: str) -> None:
        self.problems.setdefault(place, text)

    def spoiled(self, place: Path) -> bool:
        """Whether something at this place, or under it, is wrong already."""
        return any(found[: len(place)] == place for found in self.problems)

    def refuse(self, text: str | None = None) -> ConfigError:
        """The error to raise, with everything found, in the order of the file."""
        if text:
            self.problem((), text)
        # What a file of LiteLLM's says once may be of several deployments here.
        problems = tuple(dict.fromkeys(self.told(self.problems.items())))
        return ConfigError("\n".join(problems), problems=problems)

    def told(self, said: Iterable[tuple[Path, str]]) -> tuple[str, ...]:
        """A line for each thing that is said of a place, in the order of the file."""
        ordered = sorted(said, key=lambda pair: self._line_of(pair[0]))
        return tuple(self.line(place, text) for place, text in ordered)

    def line(self, place: Path, text: str) -> str:
        number = self._line_of(place)
        where = f"{self.source}:{number}" if number else self.source
        return f"{where}: {self.key(place)}: {text}" if place else f"{where}: {text}"

    def _line_of(self, place: Path) -> int:
        """The line of the place or of the nearest one around it; 0 if there are no lines."""
        return next(
            (self.lines[path] for path in _around(self._in_file(place)) if path in self.lines), 0
        )

    def _in_file(self, place: Path) -> Path:
        for path in _around(place):
            if path in self.origins:
                return self.origins[path] + place[len(path) :]
        return place

    def key(self, place: Path) -> str:
        """A place as the file has it: `deployments[0].headers`."""
        return "".join(map(self._step, self._in_file(place))).removeprefix(".")

    def _step(self, step: str | int) -> str:
        if isinstance(step, int):
            return f"[{step}]"
        return f".{self._named(step)}"

    def shown(self, value: object) -> str:
        """A value of the file as a message may print it: no secret, one line, not endless."""
        text = str(value)
        if self._is_secret(text):
            return "***"
        text = text if text.isprintable() else ascii(text)[1:-1]
        return text if len(text) <= 80 else text[:80] + "…"

    def _is_secret(self, text: str) -> bool:
        if any(secret in text for secret in self._secrets):
            return True
        return text not in self._names and any(value in text for value in self._variables)

    def unknown(self, kind: str, name: str, known: Iterable[str]) -> str:
        names = list(known)
        return f"unknown {kind} `{self.shown(name)}`{self.hint(name, names)}; {self.allowed(names)}"

    def hint(self, name: str, known: Collection[str], likeness: float = 0.6) -> str:
        """What may have been meant, if anything is as near as `difflib` measures it."""
        import difflib  # for a misspelt file only, and a millisecond of every import else

        near = difflib.get_close_matches(name, known, 1, likeness)
        return f" (did you mean `{self._named(near[0])}`?)" if near else ""

    def allowed(self, names: Iterable[str]) -> str:
        return allowed(map(self._named, names))

    def _named(self, name: str) -> str:
        # Our own words are no secrets, whatever a variable holds.
        return name if name in self.words else self.shown(name)

    def take_names(self, names: Iterable[str]) -> None:
        """Learn what the file names things, its variables not expanded: that may be told."""
        self._names = frozenset(names)

    # Variables

    def expand(self, value: Any, place: Path) -> Any:
        """The value with its variables replaced, once. The shape stays, so the lines still fit."""
        if isinstance(value, str | SecretStr):
            return self._expand_text(value, place)
        if not isinstance(value, Mapping | list | tuple):
            return value
        if len(place) > MAX_DEPTH:
            self.problem(place, "is nested too deeply")
            return None
        if isinstance(value, Mapping):
            return {key: self.expand(item, (*place, str(key))) for key, item in value.items()}
        return [self.expand(item, (*place, index)) for index, item in enumerate(value)]

    def _expand_text(self, value: str | SecretStr, place: Path) -> str | SecretStr:
        expanded = self._substitute(value, place) if isinstance(value, str) else value
        plain = expanded if isinstance(expanded, str) else expanded.get_secret_value()
        if not _SECRET_KEYS.isdisjoint(place):
            self.hide(plain)
        for userinfo in _USERINFO.findall(plain):
            self.hide(userinfo, *userinfo.split(":", 1))
        return expanded

    def hide(self, *texts: str) -> None:
        """From now on, no message shows any of these."""
        self._secrets.update(text for text in texts if len(text) >= SHORTEST_SECRET)

    def _substitute(self, text: str, place: Path) -> str:
        if text.startswith("os.environ/"):
            self.problem(place, "`os.environ/NAME` is LiteLLM's form; write `${NAME}`")
            return ""
        missing: list[str] = []
        expanded = _VARIABLE.sub(lambda match: self._variable(match, place, missing), text)
        if missing:
            self.problem(place, "; ".join(dict.fromkeys(missing)))
        return "" if missing else expanded

    def _variable(self, match: re.Match[str], place: Path, missing: list[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match["name"], match["default"]
        if name is None:
            missing.append("a variable is written ${NAME} or ${NAME:-default}; $${ is a plain ${")
            return ""
        value = self.environ.get(name)
        # As in a shell, `:-` also stands in for a variable that is set to nothing.
        if value is None or (not value and default is not None):
            value = default
        if value is None:
            missing.append(f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
            return ""
        # Whatever variable was meant here, the one that was taken may hold a key.
        if _is_of_secret(match, place):
            self.hide(value)
        elif name in self.environ and len(value) >= SHORTEST_SECRET:
            self._variables.add(value)
        return quote(value, safe="") if name in self.quoted.get(place, ()) else value


def _is_of_secret(variable: re.Match[str], place: Path) -> bool:
    """Whether a variable stands where a secret does: in a URL before its @, or after its ?."""
    before, after = variable.string[: variable.start()], variable.string[variable.end() :]
    return not _SECRET_KEYS.isdisjoint(place) or "@" in after or "?" in before
