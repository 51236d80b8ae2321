"""What an errand comes to, once it is known what there is: a method, and its arguments.

Callers say the same thing in many shapes: an id or the answer that bears it, bytes or a path or an
open file. `arguments` holds what is meant, for the checker; `given` what is passed for it.
"""

from __future__ import annotations

import asyncio
import io
import random
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from sim_plan import GROUPS, Errand

from router.testing.media import CLIP
from router.types import Character, Video

__all__ = ["PATIENCE", "Asked", "Draws", "Made", "mark"]

PATIENCE = 1000.0
"""Seconds that anybody waits for a job."""

CLIPS_PATH = Path(str(files("router.testing").joinpath("clip.mp4")))
ABOUT_A_VIDEO = {"remix", "status", "wait", "content", "picture", "delete", "observe", "locate"}
METHODS = {"locate": "locate", "pick": "pick", "observe": "observe"}

Made = dict[str, tuple[tuple[str, str], ...]]

# Another clip than the usual one, of the same length.
OTHER_CLIP = CLIP + b"\0\0\0\x08free"


def mark(number: int) -> str:
    """A prompt, or a character's name, that no other call has but those under the same key."""
    return f"call {number}: a fox runs"


@dataclass(slots=True)
class Asked:
    """One call, as it is going to be made."""

    what: str
    method: str
    arguments: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    """Of a mistake: the classes of error of which one is owed, with nothing sent."""
    picks: str = "generation"
    leaves: str = ""
    """How a pick's block is left without a word: silently, or by an error of the caller's own."""
    shape: str = ""
    """In which shape something is given, where it is not the usual one."""


class AwaitedFile:
    """A file as web frameworks hand it on: its `read` is awaited."""

    filename = "clip.mp4"

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def __repr__(self) -> str:
        return "<awaited clip>"

    async def read(self, size: int = -1, /) -> bytes:
        await asyncio.sleep(0.001)
        return self._file.read(size)


class Draws:
    """Draws calls, given what exists by then."""

    def __init__(self, accounts: list[str], made: Made) -> None:
        self._accounts = accounts
        self._made = made
        self._meant: dict[str, Asked] = {}
        """By idempotency key: what its first call asked for."""
        self.pages: list[str] = []
        """Cursors of the pages that were listed."""

    def asked(self, errand: Errand, rng: random.Random, stack: ExitStack) -> Asked:
        """The call of this errand; `stack` closes what it opens."""
        asked = self._drawn(errand, rng) if errand.key is None else self._repeated(errand, rng)
        if asked.what != "mistake":
            self._shaped(asked, errand, rng, stack)
        return asked

    def _drawn(self, errand: Errand, rng: random.Random) -> Asked:
        video, character = self._some("video", rng, errand.what), self._some("character", rng)
        what = errand.what
        if what in ABOUT_A_VIDEO and video is None:
            what = "generation"
        if what == "get_character" and character is None:
            what = "create_character"
        what = {"pick_read": "pick", "picture": "content"}.get(what, what)
        if what == "mistake":
            return self._mistake(rng, mark(errand.number), video)
        asked = Asked(what, METHODS.get(what, f"video_{what}"), {})
        draw = getattr(self, f"_{what}", self._of_a_video)
        draw(asked, errand, rng, video, character)
        return asked

    def _repeated(self, errand: Errand, rng: random.Random) -> Asked:
        """What is asked for under a key: as whoever came first, unless by mistake."""
        key = errand.key
        assert key is not None
        if key.name not in self._meant:
            self._meant[key.name] = self._drawn(replace(errand, number=key.first), rng)
        meant = self._meant[key.name]
        asked = Asked(meant.what, meant.method, dict(meant.arguments))
        if key.other:
            self._change(asked, errand, rng)
        return asked

    @staticmethod
    def _change(asked: Asked, errand: Errand, rng: random.Random) -> None:
        """Other parameters than were meant, in one of them."""
        arguments = asked.arguments
        text = "name" if asked.what == "create_character" else "prompt"
        others: dict[str, Any] = {text: mark(errand.number), "user": "somebody else"}
        if asked.what in ("generation", "extension"):
            others["seconds"] = 8
        if "video" in arguments:
            others["video"] = OTHER_CLIP
        if asked.what == "create_character" and "account" not in arguments:
            others["replicate"] = 3 if arguments.get("replicate") == 2 else 2
        changed = rng.choice(sorted(others))
        arguments[changed] = others[changed]

    # One after another --------------------------------------------------------------------------

    def _generation(
        self, asked: Asked, errand: Errand, rng: random.Random, _: object, character: str | None
    ) -> None:
        asked.arguments = {**self._named(rng), "prompt": mark(errand.number)}
        if character is not None and rng.random() < 0.3:
            others = {character, self._some("character", rng) or character}
            asked.arguments["characters"] = sorted(others) if rng.random() < 0.5 else [character]
        self._account(asked, rng)

    def _edit(
        self, asked: Asked, errand: Errand, rng: random.Random, video: str | None, _: object
    ) -> None:
        named = self._named(rng) if video is None or rng.random() < 0.3 else {}
        source = {"video": CLIP} if video is None else {"video_id": video}
        asked.arguments = {**named, "prompt": mark(errand.number), **source}
        if video is None:
            self._account(asked, rng)

    def _extension(
        self, asked: Asked, errand: Errand, rng: random.Random, video: str | None, _: object
    ) -> None:
        self._edit(asked, errand, rng, video, _)
        asked.arguments["seconds"] = 4

    def _remix(
        self, asked: Asked, errand: Errand, rng: random.Random, video: str, _: object
    ) -> None:
        asked.arguments = {"prompt": mark(errand.number), "video_id": video}

    def _create_character(
        self, asked: Asked, errand: Errand, rng: random.Random, *_: object
    ) -> None:
        asked.arguments = {**self._named(rng), "name": mark(errand.number), "video": CLIP}
        if rng.random() < 0.3:
            asked.arguments["replicate"] = rng.choice((2, 3, "all"))
        else:
            self._account(asked, rng)

    def _get_character(
        self, asked: Asked, errand: Errand, rng: random.Random, _: object, character: str
    ) -> None:
        asked.arguments = {"character_id": character}

    def _list(self, asked: Asked, errand: Errand, rng: random.Random, *_: object) -> None:
        if rng.random() < 0.5:
            asked.arguments["limit"] = rng.choice((1, 3, 100))
        if rng.random() < 0.3:
            asked.arguments["order"] = rng.choice(("asc", "desc"))
        if self.pages and rng.random() < 0.5:
            asked.arguments["after"] = rng.choice(self.pages)

    def _wait(
        self, asked: Asked, errand: Errand, rng: random.Random, video: str, _: object
    ) -> None:
        patience = rng.choice((10.0, 200.0, 400.0, PATIENCE))
        asked.arguments = {"video_id": video, "wait_timeout": patience}
        if rng.random() < 0.3:
            asked.arguments["raise_on_failure"] = False

    def _observe(
        self, asked: Asked, errand: Errand, rng: random.Random, video: str, _: object
    ) -> None:
        status = rng.choice(("completed", "failed", "in_progress", "what is this"))
        asked.arguments = {"video_id": video, "status": status}

    def _locate(
        self, asked: Asked, errand: Errand, rng: random.Random, video: str, _: object
    ) -> None:
        asked.arguments = {"text": self._made[video][0][1]}

    def _of_a_video(
        self, asked: Asked, errand: Errand, rng: random.Random, video: str, _: object
    ) -> None:
        """Status, content (a picture is that, too), deletion."""
        asked.arguments = {"video_id": video}
        if rng.random() < 0.2:
            account, native = self._made[video][0]
            asked.arguments = {"video_id": native, "account": account}
        if errand.what == "picture":
            asked.arguments["variant"] = rng.choice(("thumbnail", "spritesheet"))

    def _pick(
        self,
        asked: Asked,
        errand: Errand,
        rng: random.Random,
        video: str | None,
        character: str | None,
    ) -> None:
        if errand.what == "pick_read" and video is not None:
            asked.picks, asked.arguments = "status", {"video_id": video}
            if rng.random() < 0.3:
                account, native = self._made[video][0]
                asked.arguments = {"video_id": native, "account": account}
        else:
            asked.arguments = self._named(rng)
        asked.leaves = rng.choice(("", "", "", "silently", "by an error", "unsent"))

    # Shapes -------------------------------------------------------------------------------------

    def _shaped(self, asked: Asked, errand: Errand, rng: random.Random, stack: ExitStack) -> None:
        """Some of what is meant, in another shape."""
        if "video" in asked.arguments:
            shapes = ("bytes", "path", "file", "tuple", "awaited")
            asked.shape = rng.choice(shapes if errand.door == "async" else shapes[:-1])
            asked.given["video"] = _clip(asked.shape, asked.arguments["video"], stack)
        if rng.random() < 0.3 and asked.what not in ("pick", "observe"):
            for name, kind in (("video_id", _answer_of), ("character_id", _character_of)):
                if name in asked.arguments and "account" not in asked.arguments:
                    asked.shape, asked.given[name] = "answer", kind(asked.arguments[name])

    def _account(self, asked: Asked, rng: random.Random) -> None:
        if rng.random() < 0.1:
            asked.arguments["account"] = rng.choice(self._accounts)

    def _named(self, rng: random.Random) -> dict[str, Any]:
        draw = rng.random()
        if draw < 0.5:
            return {}
        if draw < 0.75:
            return {"model": rng.choice(GROUPS)}
        return {"target_model_names": rng.choice((list(GROUPS), "sora-2-pro,sora-2", ["sora-2"]))}

    def _some(self, kind: str, rng: random.Random, what: str = "") -> str | None:
        found = [made for made in self._made if made.startswith(kind)]
        if not found:
            return None
        at = rng.randrange(len(found))
        # Older ones are sooner finished, which is when there is something to bring or to change.
        older = what in ("content", "picture", "remix", "edit", "extension")
        return found[min(at, rng.randrange(len(found))) if older else at]

    # Mistakes -----------------------------------------------------------------------------------

    def _mistake(self, rng: random.Random, prompt: str, video: str | None) -> Asked:
        """What a caller gets wrong; no deployment is to suffer by it, nor to hear of it."""
        method, arguments, *expected = rng.choice(self._mistakes(rng, prompt, video))
        return Asked("mistake", method, arguments, expected=tuple(expected))

    def _mistakes(
        self, rng: random.Random, prompt: str, video: str | None
    ) -> list[tuple[Any, ...]]:
        wrong: list[tuple[Any, ...]] = [
            (
                "video_generation",
                {"prompt": prompt, "model": "no such group"},
                "UnknownModelError",
            ),
            ("video_generation", {"prompt": ""}, "BadRequestError"),
            ("video_generation", {"prompt": prompt, "seconds": -1}, "BadRequestError"),
            ("video_status", {"video_id": "video_vr1nonsense"}, "InvalidIdError"),
            ("video_status", {"video_id": "../../secrets", "account": "east"}, "InvalidIdError"),
            (
                "video_edit",
                {"prompt": prompt, "video_id": "video_unknown", "account": "nobody"},
                "OwnershipError",
                "UnsupportedOperationError",
            ),
            ("video_edit", {"prompt": prompt}, "BadRequestError"),
            ("video_list", {"limit": 0}, "BadRequestError"),
        ]
        if video is not None:
            others = [a for a in self._accounts if a != self._made[video][0][0]]
            altered = video[:-9] + ("a" if video[-9] != "a" else "b") + video[-8:]
            wrong.append(("video_status", {"video_id": altered}, "InvalidIdError"))
            wrong += [
                ("video_status", {"video_id": video, "account": a}, "OwnershipError")
                for a in others
            ]
            wrong.append(("video_get_character", {"character_id": video}, "InvalidIdError"))
            # The right account, and something that it has never made: only it can say so.
            native = {"video_id": "video_unknown", "account": self._made[video][0][0]}
            wrong.append(("video_status", native))
        return wrong


def _clip(shape: str, clip: bytes, stack: ExitStack) -> Any:
    if shape == "path" and clip == CLIP:
        return CLIPS_PATH
    if shape == "file" and clip == CLIP:
        return stack.enter_context(CLIPS_PATH.open("rb"))
    if shape == "tuple":
        return ("a fox.mp4", clip, "video/mp4")
    return AwaitedFile(clip) if shape == "awaited" else clip


def _answer_of(video_id: str) -> Video:
    return Video(id=video_id, status="queued")


def _character_of(character_id: str) -> Character:
    return Character(id=character_id)
