"""The dialect of OpenAI's video API, which outlived it.

Spoken by Azure, self-hosted servers, resellers and gateways; a server's name is a `base_url`, never
a host in this file. Facts: OpenAI's published OpenAPI document as of 2026-08-21, its guide, and the
bytes that the official clients send (openai-python 2.54 and 3.3, openai-node 6.49).

What may be enumerated there (sizes, seconds, models) is sent as the caller wrote it: compatible
servers allow other values, and it is theirs to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from router.providers.base import Bound, read_answer, read_error
from router.types import Answer, Character, Operation, Video, VideoDeleted, VideoPage

__all__ = ["OpenAIDialect"]


class OpenAIDialect:
    """One compatible server. `key_header` is where the key goes; `root` the path of a bare host."""

    dialect = "openai"
    operations = frozenset(Operation)

    def __init__(self, *, key_header: str = "authorization", root: str = "/v1") -> None:
        self._key_header = key_header
        self._root = root

    def headers(self, deployment: Deployment) -> dict[str, str]:
        headers = {"accept": "application/json", "user-agent": "video-router"}
        if deployment.api_key is not None:
            key = deployment.api_key.get_secret_value()
            bearer = self._key_header == "authorization"
            headers[self._key_header] = f"Bearer {key}" if bearer else key
        return headers

    def request(self, bound: Bound) -> Request:
        return _BUILD[bound.call.operation](self, bound)

    def answer(self, bound: Bound, reply: Reply) -> Answer:
        data = json_object(reply.body)
        match bound.call.operation:
            case Operation.LIST:
                return _page(data)
            case Operation.DELETE:
                return read_answer(VideoDeleted, data)
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
        return ErrorBody(str(message), _text(error.get("code")), _text(error.get("type")))

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
        nested = call.reference is not None or bound.natives or call.extra_body
        as_json = nested and bound.upload is None
        return Request(
            "POST", self._url(bound), body=_json(bound, fields) if as_json else _form(bound, fields)
        )

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
        return Request("GET", self._url(bound, bound.native))

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


def _page(data: Mapping[str, Any]) -> VideoPage:
    listed = data.get("data")
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise InvalidBody("the answer lacks a usable data")
    videos = [read_answer(Video, item) for item in listed]
    return VideoPage(data=videos, has_more=data.get("has_more") is True)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
