"""One call, described: the operation, what it names, what it carries, how it may be served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Generic, TypedDict, TypeVar

from router.tenants import Tenant
from router.types import AsyncWritable, FileInput, Operation, length_in

__all__ = ["MOST_COPIES", "USUAL_LENGTH", "Call", "Demand", "Options", "SubmitOptions"]

# Copies of one character at most, so that an id stays short enough for a URL.
MOST_COPIES = 8
# Seconds of video, where a call names none.
USUAL_LENGTH = 4.0

AnswerT = TypeVar("AnswerT", covariant=True)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call asks for, as far as it tells candidates apart: so many `seconds` of video."""

    operation: Operation
    seconds: float = USUAL_LENGTH
    size: str | None = None

    @classmethod
    def of(cls, call: Call[Any]) -> Demand:
        """What a call asks for; what names no length is taken to be as long as usual."""
        return cls(call.operation, length_in(call.seconds) or USUAL_LENGTH, call.size)


class Options(TypedDict, total=False):
    """What every call takes besides its own arguments.

    `custom_llm_provider` keeps only deployments of that provider or dialect; it is ignored where
    an id names the owner. `account` names the owner of native ids and of account-bound files.
    `timeout` (one attempt) and `deadline` (the call) are in seconds; `retries` counts further
    attempts. `max_wait` is in seconds too: how long the call may wait for a free slot. The
    `extra_headers`, `extra_body` and `extra_query` are added to the request. `user` is
    sent where the API knows it; `metadata` is never sent, and stands in events and in `.routing`.
    `tenant` is on whose behalf an application makes the call.
    """

    custom_llm_provider: str | None
    account: str | None
    timeout: float | None
    deadline: float | None
    retries: int | None
    max_wait: float | None
    extra_headers: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None
    extra_query: Mapping[str, Any] | None
    user: str | None
    metadata: Mapping[str, Any] | None
    tenant: Tenant | None


class SubmitOptions(Options, total=False):
    """What submits take besides.

    Under one `idempotency_key` a call is one job, from whichever worker and however often it is
    made. `max_cost` is in dollars: whoever asks more for it, or names no price, does not serve it.
    """

    idempotency_key: str | None
    max_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Call(Generic[AnswerT]):
    """The description of one call. Nothing here has been looked up, opened or sent.

    `ids` are what the call names (a video, or characters), as the caller wrote them. `upload` is
    the file to send and `upload_field` the name of its form field; `reference` is an image by url
    or file id. `replicate` is the number of copies, `None` for one in each account. `models` is
    `None` where the caller named no group. `fallbacks` allows those of the settings.
    """

    operation: Operation
    models: tuple[str, ...] | None = None
    ids: tuple[str, ...] = ()
    prompt: str | None = None
    name: str | None = None
    seconds: str | None = None
    size: str | None = None
    variant: str = "video"
    upload: FileInput | None = None
    upload_field: str = "video"
    reference: Mapping[str, str] | None = None
    replicate: int | None = 1
    fallbacks: bool = True
    limit: int = 20
    after: str | None = None
    order: str = "desc"
    to: str | os.PathLike[str] | IO[bytes] | AsyncWritable | None = None
    # What submits take besides; the words are explained at `SubmitOptions`.
    idempotency_key: str | None = None
    max_cost: float | None = None
    # What all calls take; the words are explained at `Options`.
    custom_llm_provider: str | None = None
    account: str | None = None
    timeout: float | None = None
    deadline: float | None = None
    retries: int | None = None
    max_wait: float | None = None
    extra_headers: Mapping[str, str] | None = None
    extra_body: Mapping[str, Any] | None = None
    extra_query: Mapping[str, Any] | None = None
    user: str | None = None
    metadata: Mapping[str, Any] | None = None
    tenant: Tenant | None = None

    @property
    def claim_key(self) -> str | None:
        """The idempotency key, told apart from the same one of another tenant."""
        if self.idempotency_key is None or self.tenant is None:
            return self.idempotency_key
        return self.tenant.scoped(self.idempotency_key)

    @property
    def names_id(self) -> bool:
        """It names something that may be missing: a video, a character, a file, a page's place."""
        file = self.reference is not None and "file_id" in self.reference
        return bool(self.ids) or self.after is not None or file

    @property
    def is_particular(self) -> bool:
        """It carries what not every provider takes, so that providers are to be asked about it."""
        if self.operation.is_submit:
            given = self.seconds is not None or self.size is not None
            return given or bool(self.ids) or self.upload is not None or self.reference is not None
        if self.operation is Operation.LIST:
            return self.after is not None or self.order != "desc"
        return self.operation is Operation.CONTENT and self.variant != "video"

    def __repr__(self) -> str:
        # Prompts, files and headers are the caller's business, not a log's.
        return f"<Call {self.operation} models={self.models} ids={self.ids}>"
