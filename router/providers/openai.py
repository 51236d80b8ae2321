"""The dialect of OpenAI's video API, which outlived it.

Spoken by Azure, self-hosted servers, resellers and gateways; a server's name is a `base_url`, never
a host in this file. Facts: OpenAI's published OpenAPI document as of 2026-08-21, its guide, and the
bytes that the official clients send (openai-python 2.54 and 3.3, openai-node 6.49).

What may be enumerated there (sizes, seconds, models) is sent as the caller wrote it: compatible
servers allow other values, and it is theirs to refuse. A server that is known to speak only a part
of the dialect is a preset: the same class with a `Subset`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.config import Deployment
from router.messages import (
    Body,
    ErrorBody,
    InvalidBody,
    Reply,
    Request,
    join_url,
    json_body,
    json_object,
    multipart_body,
)
from router.operations import Call
from router.providers.base import (
    OPTIONAL,
    Bound,
    Lack,
    identity,
    read_answer,
    read_error,
    text_or_none,
    usual_lacks,
)
from router.types import Answer, Character, Operation, Video, VideoDeleted, VideoPage

__all__ = ["OpenAIDialect", "Subset"]


@dataclass(frozen=True, slots=True)
class Subset:
    """What a server speaks of the dialect that speaks not all of it, and has the usual lacks.

    `image` says in which fields it takes an image by URL. `form`: it takes nothing but forms; else
    it takes forms only with a file in them. With `tells_failures` a failed job is told with the
    status of its failure, and not with 200. `user` is sent where it is known.
    """

    name: str
    operations: frozenset[Operation]
    image: Callable[[str], Mapping[str, Any]]
    form: bool = False
    tells_failures: bool = False
    user: bool = False

    @property
    def parameters(self) -> Mapping[Operation, frozenset[str]]:
        taken = {operation: OPTIONAL[operation] for operation in self.operations}
        return {
            **taken,
            Operation.GENERATION: OPTIONAL[Operation.GENERATION] - {"characters"},
            Operation.CONTENT: frozenset(),
        }


class OpenAIDialect:
    """One compatible server, or with a `subset` one that speaks a part of it.

    `key_header` is where the key goes; `root` the path of a bare host.
    """

    dialect = "openai"

    def __init__(
        self,
        *,
        key_header: str = "authorization",
        root: str = "/v1",
        subset: Subset | None = None,
    ) -> None:
        self._key_header = key_header
        self._root = root
        self._subset = subset
        self.operations = subset.operations if subset else frozenset(Operation)
        self.parameters = subset.parameters if subset else OPTIONAL

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        return () if self._subset is None else tuple(usual_lacks(self._subset.name, call))

    def headers(self, deployment: Deployment) -> dict[str, str]:
        scheme = "Bearer " if self._key_header == "authorization" else ""
        return identity(deployment, header=self._key_header, scheme=scheme)

    def request(self, bound: Bound) -> Request:
        return _BUILD[bound.call.operation](self, bound)

    def answer(self, bound: Bound, reply: Reply) -> Answer:
        data = json_object(reply.body)
        match bound.call.operation:
            case Operation.LIST:
                return _page(data, bound.call.limit)
            case Operation.DELETE:
                # Some servers answer with the video that it was.
                return read_answer(VideoDeleted, {**data, "object": "video.deleted"})
            case Operation.CREATE_CHARACTER | Operation.GET_CHARACTER:
                return read_answer(Character, data)
            case _:
                return read_answer(Video, data)

    def error(self, reply: Reply) -> ErrorBody:
        data = read_error(reply)
        error = (data.get("error") or data) if isinstance(data, dict) else data
        if not isinstance(error, dict):
            return ErrorBody(str(error))
        message = error.get("message") or error.get("detail") or ""
        code, kind = text_or_none(error.get("code")), text_or_none(error.get("type"))
        return ErrorBody(str(message), code, kind)

    # Requests, by operation ---------------------------------------------------------------------

    def _url(self, bound: Bound, *path: str, query: Mapping[str, Any] | None = None) -> str:
        base = bound.deployment.base_url
        return join_url(base, "videos", *path, query=query, bare_root=self._root)

    def _create_character(self, bound: Bound) -> Request:
        body = _form(bound, {"name": bound.call.name})
        return Request("POST", self._url(bound, "characters"), body=body)

    def _get_character(self, bound: Bound) -> Request:
        return Request("GET", self._url(bound, "characters", bound.native))

    def _generation(self, bound: Bound) -> Request:
        call = bound.call
        fields: dict[str, Any] = {
            "model": bound.deployment.model,
            "prompt": call.prompt,
            "seconds": call.seconds,
            "size": call.size,
            "input_reference": call.reference,
        }
        if bound.natives:
            fields["characters"] = [{"id": native} for native in bound.natives]
        # Plain forms are what every client sends and every server takes; nested values are read
        # more widely as JSON.
        as_json = bool(call.reference or bound.natives or call.extra_body)
        if self._subset is not None:
            fields |= self._in_subset(call)
            as_json = not self._subset.form
        body = _json if as_json and bound.upload is None else _form
        return Request("POST", self._url(bound), body=body(bound, fields))

    def _in_subset(self, call: Call[Any]) -> Mapping[str, Any]:
        """The fields that the server has otherwise."""
        assert self._subset is not None
        image = self._subset.image(call.reference["image_url"]) if call.reference else {}
        user = {"user": call.user} if self._subset.user else {}
        # "8.0" is whole, and no whole number to those who read it.
        length = None if call.seconds is None else str(int(float(call.seconds)))
        return {"input_reference": None, "seconds": length, **image, **user}

    def _edit(self, bound: Bound) -> Request:
        return self._from_source(bound, "edits", {"prompt": bound.call.prompt})

    def _extension(self, bound: Bound) -> Request:
        fields = {"prompt": bound.call.prompt, "seconds": bound.call.seconds}
        return self._from_source(bound, "extensions", fields)

    def _from_source(self, bound: Bound, path: str, fields: dict[str, Any]) -> Request:
        """From a video that exists, whose model is taken; or from an upload, which needs one."""
        url = self._url(bound, path)
        if bound.upload is None:
            fields = {"video": {"id": bound.native}, **fields}
            return Request("POST", url, body=_json(bound, fields))
        return Request("POST", url, body=_form(bound, {"model": bound.deployment.model, **fields}))

    def _remix(self, bound: Bound) -> Request:
        body = _json(bound, {"prompt": bound.call.prompt})
        return Request("POST", self._url(bound, bound.native, "remix"), body=body)

    def _status(self, bound: Bound) -> Request:
        request = Request("GET", self._url(bound, bound.native))
        if self._subset is not None and self._subset.tells_failures:
            request.reader, request.verdict = _verdict, True
        return request

    def _content(self, bound: Bound) -> Request:
        # The variant is left out where it is the default: not every server knows the parameter.
        variant = None if bound.call.variant == "video" else bound.call.variant
        url = self._url(bound, bound.native, "content", query={"variant": variant})
        return Request("GET", url, {"accept": "*/*"}, download=True)

    def _list(self, bound: Bound) -> Request:
        query = {
            "limit": bound.call.limit,
            "order": bound.call.order,
            "after": bound.natives[0] if bound.natives else None,
        }
        return Request("GET", self._url(bound, query=query))

    def _delete(self, bound: Bound) -> Request:
        return Request("DELETE", self._url(bound, bound.native))


_BUILD = {
    Operation.CREATE_CHARACTER: OpenAIDialect._create_character,
    Operation.GET_CHARACTER: OpenAIDialect._get_character,
    Operation.GENERATION: OpenAIDialect._generation,
    Operation.EDIT: OpenAIDialect._edit,
    Operation.EXTENSION: OpenAIDialect._extension,
    Operation.REMIX: OpenAIDialect._remix,
    Operation.STATUS: OpenAIDialect._status,
    Operation.CONTENT: OpenAIDialect._content,
    Operation.LIST: OpenAIDialect._list,
    Operation.DELETE: OpenAIDialect._delete,
}


def _json(bound: Bound, fields: Mapping[str, Any]) -> Body:
    return json_body(_present(bound, fields))


def _form(bound: Bound, fields: Mapping[str, Any]) -> Body:
    files = {bound.call.upload_field: bound.upload} if bound.upload is not None else {}
    return multipart_body(_present(bound, fields), files)


def _present(bound: Bound, fields: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in fields.items() if value is not None}
    return {**given, **(bound.call.extra_body or {})}


def _verdict(reply: Reply) -> Video:
    """A video; with another status than success only one that has failed."""
    data = json_object(reply.body)
    if reply.status >= 300 and data.get("status") != "failed":
        raise InvalidBody("the body is no job that has failed")
    return read_answer(Video, data)


def _page(data: Mapping[str, Any], limit: int) -> VideoPage:
    listed = data.get("data")
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise InvalidBody("the answer lacks a usable data")
    videos = [read_answer(Video, item) for item in listed]
    # Who does not say whether there is more may have more behind a full page.
    has_more = data.get("has_more", len(videos) >= limit)
    return VideoPage(data=videos, has_more=has_more is True)
