"""What a size says to those who take a proportion and a number of lines in place of pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from router.clips import same_shape, size_in
from router.operations import Call
from router.providers.base import Lack

__all__ = ["lacks_of_size", "shaped"]


def shaped(size: str | None, aspects: Sequence[str]) -> tuple[str | None, str | None]:
    """The aspect ratio, as one of `aspects`, and the lines ("720p") that `size` asks for.

    `1280x720` asks for both, `16:9` and `720p` for one of them.
    """
    pixels = size_in(size)
    if pixels is not None:
        ratio = pixels[0] / pixels[1]
        same = (aspect for aspect in aspects if same_shape(ratio, _ratio(aspect)))
        return next(same, None), f"{min(pixels)}p"
    return (size, None) if ":" in (size or "") else (None, size)


def lacks_of_size(
    name: str, call: Call[Any], aspects: Sequence[str], resolutions: Sequence[str] = ()
) -> Iterator[Lack]:
    """The lack of who makes only these; with no `resolutions` whatever they are called."""
    if call.size is None:
        return
    aspect, lines = shaped(call.size, aspects)
    shapely = aspect in aspects or (aspect is None and size_in(call.size) is None)
    if not shapely or (resolutions and lines not in (None, *resolutions)):
        known = f"{name} makes {', '.join(aspects)}"
        known += f" in {', '.join(resolutions)}" if resolutions else ""
        nearest = _nearest(call.size, aspects, resolutions)
        yield Lack("size", f"{known}; the nearest to {call.size} is {nearest}")


def _nearest(size: str, aspects: Sequence[str], resolutions: Sequence[str]) -> str:
    """Written as `size` is: in pixels, as a proportion, or in lines."""
    numbers = [int(number) for number in re.findall(r"\d+", size)[:2]]
    if len(numbers) < 2 or not all(numbers):
        return _nearest_lines(numbers[0] if numbers else 720, resolutions)
    wanted = numbers[0] / numbers[1]
    aspect = min(aspects, key=lambda one: abs(_ratio(one) - wanted))
    if ":" in size:
        return aspect
    lines, ratio = int(_nearest_lines(min(numbers), resolutions)[:-1]), _ratio(aspect)
    wide, tall = (lines * ratio, lines) if ratio >= 1 else (lines, lines / ratio)
    return f"{round(wide / 2) * 2}x{round(tall / 2) * 2}"


def _nearest_lines(lines: int, resolutions: Sequence[str]) -> str:
    known = [one for one in resolutions if one[:-1].isdigit()]
    return min(known, key=lambda one: abs(int(one[:-1]) - lines)) if known else f"{lines}p"


def _ratio(aspect: str) -> float:
    width, _, height = aspect.partition(":")
    return int(width) / int(height)
