"""YAML with the line of every value, so that a mistake can be shown where it stands.

`yaml.safe_load` forgets lines, lets a second key silently replace the first, and raises more than
`YAMLError` on odd input. Here the loader only composes the node tree; the walk over it is ours, and
it knows just what a configuration is made of: mappings, lists, text, numbers, true, false, null,
anchors and merge keys. Dates stay text: the field that takes one decides what it is.

What is reported never quotes the file: a broken line may be the one with the key on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

__all__ = ["Document", "Path", "YamlError", "read"]

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands: the keys (as text) and the list positions that lead to it."""

Pairs: TypeAlias = dict[Any, tuple[yaml.Node, yaml.Node]]

# Aliases may repeat a subtree exponentially. No honest configuration comes near this many values.
MAX_VALUES = 50_000

_PREFIX = "tag:yaml.org,2002:"
_MERGE = _PREFIX + "merge"
_SCALARS = frozenset(_PREFIX + kind for kind in ("str", "int", "float", "bool", "null"))

# What PyYAML quotes is a piece of the file, unless it is a token's name or a single character.
_UNQUOTED = re.compile(r"""(?:[^'"]|'.'|"."|'<[\w ]+>')*""")


class YamlError(ValueError):
    """The text is not YAML that we read. `line` and `column` count from 1; `None` if unknown."""

    def __init__(self, text: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(text)
        self.text, self.line, self.column = text, line, column


@dataclass(frozen=True, slots=True)
class Document:
    """What the text says, on which line it says so, and which keys it says twice."""

    data: Any
    lines: dict[Path, int]
    duplicates: dict[Path, int]  # the line of the first one; `lines` has the last


def read(text: str) -> Document:
    """Read one document; `None` is the data of an empty one. Raises `YamlError` only."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        walk = _Walk()
        data = None if root is None else walk.value(root, ())
    except yaml.MarkedYAMLError as exc:
        raise _located(exc) from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise YamlError("a control character is not allowed", line) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None
    except YamlError:
        raise
    except (ValueError, LookupError, ArithmeticError):
        # PyYAML's own slips, for instance on "\UFFFFFFFF"; their texts quote the file.
        raise YamlError("a value or an escape that YAML does not allow") from None
    return Document(data, walk.lines, walk.duplicates)


def _located(exc: yaml.MarkedYAMLError) -> YamlError:
    mark = exc.problem_mark or exc.context_mark
    problem = exc.problem or "not valid YAML"
    if r"\t" in problem:
        problem = "a tab cannot indent; use spaces"
    found = _UNQUOTED.match(problem)
    text = found[0].rstrip() if found else ""
    return YamlError(text, mark.line + 1, mark.column + 1) if mark else YamlError(text)


class _Loader(yaml.SafeLoader):
    """SafeLoader without its rarer guesses: no dates, and a lone `=` is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own name and shape
        first: [(tag, pattern) for tag, pattern in pairs if tag in _SCALARS or tag == _MERGE]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Walk:
    """From nodes to values. A subtree behind an alias is built anew for each place it stands in,
    because each place is a path of its own."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.duplicates: dict[Path, int] = {}
        self._scalars = _Loader("")
        self._pairs: dict[int, Pairs] = {}
        self._open: set[int] = set()
        self._left = MAX_VALUES

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._left -= 1
        if self._left < 0:
            raise YamlError(f"aliases repeat more than {MAX_VALUES} values", _line(node))
        self.lines.setdefault(path, _line(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._enter(node)
        value = self._collection(node, path)
        self._open.discard(id(node))
        return value

    def _enter(self, node: yaml.Node) -> None:
        if id(node) in self._open:
            raise YamlError("an anchor that contains itself", _line(node))
        self._open.add(id(node))

    def _collection(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            return self._mapping(node, path)
        raise YamlError("a tag that is not supported", _line(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        mapping = {}
        for key, (key_node, value_node) in self._merged(node, path).items():
            place = (*path, str(key))
            self.lines[place] = _line(key_node)
            mapping[key] = self.value(value_node, place)
        return mapping

    def _merged(self, node: yaml.MappingNode, path: Path) -> Pairs:
        """The pairs of a mapping with its `<<`: its own keys first, then the earlier base."""
        if id(node) not in self._pairs:
            own = self._own(node, path)
            bases = own.pop(_MERGE, None)
            for base in self._bases(bases[1]) if bases else []:
                self._enter(base)
                own = self._merged(base, path) | own
                self._open.discard(id(base))
            self._pairs[id(node)] = own
        return self._pairs[id(node)]

    def _own(self, node: yaml.MappingNode, path: Path) -> Pairs:
        own: Pairs = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in own:
                name = "<<" if key == _MERGE else str(key)
                self.duplicates[*path, name] = _line(own[key][0])
                self.lines[*path, name] = _line(key_node)
            own[key] = (key_node, value_node)
        return own

    def _key(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise YamlError("a key must be plain text", _line(node))
        return _MERGE if node.tag == _MERGE else self._scalar(node)

    def _bases(self, node: yaml.Node) -> list[yaml.MappingNode]:
        bases = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for base in bases:
            if not isinstance(base, yaml.MappingNode):
                raise YamlError("`<<` takes a mapping, or a list of them", _line(node))
        return list(bases)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag not in _SCALARS:
            raise YamlError("a tag that is not supported", _line(node))
        try:
            return self._scalars.construct_object(node)
        except (ValueError, LookupError):
            raise YamlError("not a value of its type", _line(node)) from None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
