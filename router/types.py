"""What the router answers, and what it takes.

Answers are pydantic models in the shape of OpenAI's video objects. They keep fields that we do not
know, and they do not quarrel over fields that we do: a job that was paid for is returned even when
`progress` came as a word. Only an id, and for a video a status, must be there.

How a call was served stands in `.routing`, which is private to this process: it is in no dump, no
JSON and no repr.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Annotated, Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    Strict,
    ValidationError,
)

__all__ = [
    "Answer",
    "AsyncWritable",
    "AttemptRecord",
    "Character",
    "CharacterRef",
    "Clock",
    "Content",
    "FileInput",
    "ImageInput",
    "Operation",
    "Routing",
    "Video",
    "VideoDeleted",
    "VideoError",
    "VideoInput",
    "VideoPage",
    "length_in",
]


class Operation(enum.StrEnum):
    """What can be asked of a deployment. The values are the words of the YAML's `operations`."""

    CREATE_CHARACTER = "create_character"
    GENERATION = "generation"
    EDIT = "edit"
    EXTENSION = "extension"
    REMIX = "remix"
    GET_CHARACTER = "get_character"
    STATUS = "status"
    CONTENT = "content"
    LIST = "list"
    DELETE = "delete"

    # Enum hashes a member by its name in Python code; these are keys on the path of every pick.
    __hash__ = str.__hash__

    @property
    def is_submit(self) -> bool:
        """It starts a paid job or stores an asset, so it is sent at most once."""
        return self in SUBMITS

    @property
    def starts_job(self) -> bool:
        return self in JOBS


JOBS = frozenset({Operation.GENERATION, Operation.EDIT, Operation.EXTENSION, Operation.REMIX})
SUBMITS = JOBS | {Operation.CREATE_CHARACTER}


class Clock(Protocol):
    """Time, as the router sees it. Tests and simulations pass their own."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""

    def time(self) -> float:
        """Unix time in seconds."""

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""

    async def asleep(self, seconds: float) -> None:
        """Suspend the calling task."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One HTTP exchange of a call: where it went, how long it took in seconds, how it ended."""

    deployment: str
    account: str
    seconds: float
    status: int | None
    result: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """How a call was served.

    `seconds` is the whole call's duration; `cost` is in dollars, of the job that the call started
    by the deployment's `cost_per_second`, and `None` where there is none or it is not known;
    `poll_after` is when to look at a running job again, in seconds; `copies` of a replicated
    character are the accounts that hold it, `failures` those where the upload failed and why.
    """

    deployment: str
    account: str
    attempts: tuple[AttemptRecord, ...] = ()
    seconds: float = 0.0
    cost: float | None = None
    warnings: tuple[str, ...] = ()
    poll_after: float | None = None
    copies: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None


NonEmpty = Annotated[str, Strict(), Field(min_length=1)]


class Answer(BaseModel):
    """The base of all answers."""

    # Built at the first answer: five validators would be a tenth of the package's import time.
    model_config = ConfigDict(
        extra="allow",
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        defer_build=True,
        hide_input_in_errors=True,
    )

    _routing: Routing | None = PrivateAttr(default=None)

    @property
    def routing(self) -> Routing | None:
        """How the call was served; `None` on an answer that no router gave."""
        return self._routing

    def with_routing(self, routing: Routing) -> Self:
        self._routing = routing
        return self

    @classmethod
    def tolerant(cls, data: Mapping[str, Any]) -> Self:
        """Read `data`; optional fields of a wrong type become `None` instead of an error.

        Raises pydantic's `ValidationError` where a required field is missing or wrong.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as exc:
            wrong = {error["loc"][0] for error in exc.errors() if error["loc"]}
            return cls.model_validate({k: v for k, v in data.items() if k not in wrong})


# Millionths of a second and years of video are no lengths: what is reckoned with them stays finite.
_SHORTEST, _LONGEST = 1e-3, 1e6


def length_in(written: str | None) -> float | None:
    """Seconds of video, as calls and answers write them; `None` for what is no length."""
    if not written:
        return None
    try:
        length = float(written)
    except ValueError:
        return None
    return length if _SHORTEST <= length <= _LONGEST else None


def _finite(number: float) -> float:
    # False for what is not a number, too; and a whole number may be longer than any float.
    if not abs(number) < sys.float_info.max:
        raise ValueError("must be finite")
    return number


Number = Annotated[int | float, AfterValidator(_finite)]


class VideoError(BaseModel):
    """Why a job failed, in the provider's words."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True, defer_build=True)

    code: str | None = None
    message: str | None = None


class Video(Answer):
    """A video, or the job that makes it. Times are Unix times in seconds."""

    id: NonEmpty
    status: Annotated[str, Strict()]
    object: str = "video"
    model: str | None = None
    progress: Number | None = None
    created_at: Number | None = None
    completed_at: Number | None = None
    expires_at: Number | None = None
    prompt: str | None = None
    seconds: str | None = None
    size: str | None = None
    remixed_from_video_id: str | None = None
    error: VideoError | None = None

    @property
    def done(self) -> bool:
        """The video is there. An unknown status is neither done nor failed."""
        return self.status == "completed"

    @property
    def failed(self) -> bool:
        """The job has ended without a video."""
        return self.status in {"failed", "cancelled", "canceled", "expired"}


class Character(Answer):
    """A reusable character."""

    id: NonEmpty
    name: str | None = None
    created_at: Number | None = None


class VideoDeleted(Answer):
    """What is left of a deleted video."""

    id: NonEmpty
    object: str = "video.deleted"
    deleted: bool = True


class VideoPage(Answer):
    """One page of videos, newest first unless asked otherwise.

    Pass `last_id` as `after` for the next page while `has_more`. The cursor spans all accounts
    that were asked; it is opaque. `.routing.failures` names accounts that did not answer.
    """

    object: str = "list"
    data: list[Video] = Field(default_factory=list)
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class Content(bytes):
    """A downloaded file: its bytes, with `content_type` and `routing`."""

    content_type: str | None = None
    routing: Routing | None = None

    def __repr__(self) -> str:
        return f"<Content {len(self)} bytes, {self.content_type}>"

    # Printing a file would fill a screen with its bytes.
    __str__ = __repr__


@runtime_checkable
class AsyncReadable(Protocol):
    """What FastAPI's `UploadFile` is: an object whose `read` is awaited."""

    async def read(self, size: int = -1, /) -> bytes: ...


@runtime_checkable
class AsyncWritable(Protocol):
    """Where a download may go that waits for its taker: an object whose `write` is awaited."""

    async def write(self, data: bytes, /) -> object: ...


FileSource: TypeAlias = (
    bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | AsyncReadable
)
FileInput: TypeAlias = (
    FileSource | tuple[str | None, FileSource] | tuple[str | None, FileSource, str | None]
)
VideoInput: TypeAlias = FileInput | Mapping[Literal["id"], str] | Video
ImageInput: TypeAlias = FileInput | Mapping[str, str]
CharacterRef: TypeAlias = Character | str | Mapping[str, Any]
Names: TypeAlias = str | Sequence[str]
