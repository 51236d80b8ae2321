"""Decodes request bodies the way real clients send them.

JSON, urlencoded and multipart forms all become one tree of fields plus the file parts. Nested form
keys follow the SDKs: `video[id]`, `characters[][id]`, `characters[0][id]`, `tags[]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, unquote

from router.testing.messages import Body, Upload

__all__ = ["decode", "nested"]

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_NAME = re.compile(r';\s*name="([^"]*)"', re.IGNORECASE)
_FILENAME = re.compile(r';\s*filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME_UTF8 = re.compile(r";\s*filename\*=utf-8''([^;\s]+)", re.IGNORECASE)
_STEP = re.compile(r"\[([^\]]*)\]")


def decode(headers: Mapping[str, str], content: bytes) -> Body:
    """Decode `content` by its Content-Type; what cannot be decoded becomes `Body.problem`."""
    content_type = headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if not content:
        return Body()
    try:
        if media_type == "multipart/form-data":
            return _multipart(content, content_type)
        if media_type == "application/x-www-form-urlencoded":
            return Body(nested(parse_qsl(content.decode(), keep_blank_values=True)))
        data = json.loads(content)
    except ValueError as error:
        return Body(problem=str(error))
    return Body(data) if isinstance(data, dict) else Body(problem="not a JSON object")


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Grow the tree that bracketed form keys describe; `[]` opens a new item when it must."""
    tree: dict[str, Any] = {}
    for key, value in pairs:
        root, bracket, _ = key.partition("[")
        _graft(tree, [root, *_STEP.findall(key)] if bracket else [key], value)
    return {key: _listed(value) for key, value in tree.items()}


def _graft(tree: dict[str, Any], steps: list[str], value: str) -> None:
    for step, following in pairwise(steps):
        name = step or _current_item(tree, following)
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[steps[-1] or str(len(tree))] = value


def _current_item(items: dict[str, Any], following: str) -> str:
    """The last item while it still lacks the key that comes next, else a new one."""
    last = str(len(items) - 1)
    return last if last in items and following not in items[last] else str(len(items))


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if all(key.isdigit() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(item) for key, item in value.items()}


def _multipart(content: bytes, content_type: str) -> Body:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return Body(problem="multipart/form-data without a boundary")
    # The delimiter includes the line break before it; the body's first one has none of its own.
    _, *parts = (b"\r\n" + content).split(b"\r\n--" + boundary[1].encode())
    if not parts or not parts[-1].startswith(b"--"):
        return Body(problem="multipart/form-data without its closing boundary")
    pairs: list[tuple[str, str]] = []
    uploads: list[Upload] = []
    for part in parts[:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        headers = _part_headers(head.decode())
        disposition = headers.get("content-disposition", "")
        name, filename = _NAME.search(disposition), _filename(disposition)
        if name is None:
            return Body(problem="a part without a name")
        if filename is None:
            pairs.append((unquote(name[1]), data.decode()))
        else:
            kind = headers.get("content-type", "application/octet-stream")
            uploads.append(Upload(unquote(name[1]), filename, kind, data))
    return Body(nested(pairs), tuple(uploads))


def _part_headers(head: str) -> dict[str, str]:
    lines = (line.partition(":") for line in head.split("\r\n") if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _filename(disposition: str) -> str | None:
    if encoded := _FILENAME_UTF8.search(disposition):
        return unquote(encoded[1])
    plain = _FILENAME.search(disposition)
    return unquote(plain[1]) if plain else None
