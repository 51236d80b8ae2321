"""What is remembered of a character, and what it says of a prompt that uses it.

A provider's character is found by its name in the prompt, and drawn in the shape of its clip. It
tells neither, so workers remember both: of so many characters, for so long, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.clips import same_shape, size_in

__all__ = ["CHARACTER_SECONDS", "MOST_CHARACTERS", "CharacterFacts", "advice_on_use"]

CHARACTER_SECONDS = 30 * 86_400
"""How long a character is remembered after it was made."""
MOST_CHARACTERS = 2_000
"""Of more the oldest are forgotten. A worker that begins hears of all, so in one turn or two."""


@dataclass(frozen=True, slots=True)
class CharacterFacts:
    """The name that its maker gave it, and its clip's size in pixels, 0 where that is not known."""

    name: str
    width: int = 0
    height: int = 0


def advice_on_use(character: CharacterFacts, prompt: str, size: str | None) -> list[str]:
    """What speaks against a prompt, and a size as `1280x720`, for a video with this character."""
    advice = []
    if character.name not in prompt:
        advice.append(
            f"the prompt does not have the character's name {character.name!r} verbatim: it may "
            "not appear"
        )
    asked = size_in(size)
    if asked is not None and character.width and character.height:
        shape, wanted = character.width / character.height, asked[0] / asked[1]
        if not same_shape(shape, wanted):
            advice.append(
                f"the character {character.name!r} was made of a clip of "
                f"{character.width}x{character.height}, and {size} is asked for: in another "
                "shape it may come out distorted"
            )
    return advice
