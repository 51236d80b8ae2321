"""The proxy's routes as an OpenAPI 3.1 document, at `/openapi.json`.

What answers look like is taken from the models that answers are; the rest is written here, and a
test holds it against the application's routes and its real answers. What a request may have is
told as exactly as the routes take it. Fields that are not named go to the provider as they are, so
objects stay open.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router import __version__
from router.proxy.answers import json_response
from router.proxy.arguments import NAMING, NOT_THE_CALLERS
from router.types import Character, Video, VideoDeleted, VideoPage

__all__ = ["document", "openapi_routes"]

Json = dict[str, Any]

# A path with `/v1` is what clients are configured with; the bare one is the same.
PREFIXES = ("/v1", "")


def openapi_routes() -> list[Route]:
    """The document's own route; it tells nothing of this deployment, and needs no key."""

    async def serve(_: Request) -> Response:
        return json_response(document())

    return [Route("/openapi.json", serve, name="openapi")]


@functools.cache
def document() -> Json:
    """The whole document, fit for JSON."""
    paths: Json = {}
    for prefix in PREFIXES:
        for path, operations in _video_paths().items():
            paths[prefix + path] = {
                method: _named(operation, prefix) for method, operation in operations.items()
            }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "video-router",
            "version": __version__,
            "summary": "An OpenAI-compatible API for video models, over many accounts.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"key": []}],
        "tags": [
            {"name": "videos", "description": "Make videos, follow the jobs, fetch what they made"},
            {"name": "characters", "description": "Make reusable characters, and look them up"},
            {"name": "models", "description": "The model groups that a key may use"},
            {"name": "operating", "description": "For whoever looks after the proxy"},
        ],
        "paths": {**paths, **_operating_paths()},
        "components": {
            "schemas": _schemas(),
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "responses": _RESPONSES,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def _named(operation: Json, prefix: str) -> Json:
    """An operation under a name of its own: the bare path's differs."""
    name = operation["operationId"]
    return {**operation, "operationId": name if prefix else f"{name}_bare"}


# Schemas ----------------------------------------------------------------------------------------

# All four keys are always there, as in OpenAI's own.
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "accepted": {
                    "enum": ["maybe", "yes"],
                    "description": "There where a paid job runs, or may run, because of this call",
                },
                "video_id": {"type": "string", "description": "The job, where there is one"},
            },
        }
    },
}
_NAMES: Json = {
    "description": "Model groups; the best deployment of all of them is picked. Beats `model`.",
    "anyOf": [
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        {"type": "string", "minLength": 1, "description": "With commas"},
    ],
}
_PROMPT: Json = {"type": "string", "minLength": 1, "maxLength": 32_000, "pattern": r"\S"}
_SECONDS: Json = {
    "description": "Seconds of video; which lengths there are is the provider's to say",
    "anyOf": [
        {"type": "string", "pattern": "^[1-9][0-9]{0,3}$"},
        {"type": "integer", "minimum": 1, "maximum": 9999},
    ],
}
_ID: Json = {"type": "string", "minLength": 1}
_BY_ID: Json = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": _ID},
    "additionalProperties": False,
}
_FILE: Json = {"type": "string", "format": "binary"}
_IMAGE: Json = {
    "type": "object",
    "properties": {
        "image_url": {"type": "string", "pattern": "^([Hh][Tt][Tt][Pp][Ss]?://|[Dd][Aa][Tt][Aa]:)"},
        "file_id": _ID,
    },
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}
_CHARACTERS: Json = {
    "type": "array",
    "items": {"type": "object", "required": ["id"], "properties": {"id": _ID}},
}
_COMMON: Json = {
    "model": {"type": "string", "minLength": 1, "description": "A model group"},
    "target_model_names": _NAMES,
    "custom_llm_provider": {"type": "string", "minLength": 1},
    "user": {"type": "string"},
    "metadata": {"type": "object", "description": "Never sent on; in events and logs"},
    "max_cost": {
        "type": "number",
        "minimum": 0.000001,
        "maximum": 1_000_000_000,
        "description": "Dollars that the job may cost",
    },
}


def _in_form(properties: Mapping[str, Json]) -> Json:
    """The same fields as a form has them: of a list, each entry is a field of the same name.

    An object is JSON in a field's text. Where that is not said here, it may be one field for each
    of its entries as well, `metadata[order]`; a list may be JSON, too.
    """
    one_by_one = {
        "target_model_names": {"type": "string", "minLength": 1},
        "target_model_names[]": {"type": "array", "items": {"type": "string", "minLength": 1}},
    }
    plain = {name: schema for name, schema in properties.items() if name != "characters"}
    return {**plain, **one_by_one}


_PLAIN_NAME = r"^[^\[\]\x00-\x1f\x7f]{1,200}$"
# With these brackets, or with others that nest fields of the provider's; those are not told here.
_FIELD_NAME = (
    r"^([^\[\]\x00-\x1f\x7f]{1,200}|video\[id\]|target_model_names\[\]|characters\[\]\[id\])$"
)


def _object(properties: Json, *required: str, **more: Any) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def _body(properties: Json, *required: str, **more: Any) -> Json:
    """A body as JSON: what is not named here goes to the provider, as far as the caller may."""
    names = _names(_PLAIN_NAME, properties)
    return _object(properties, *required, propertyNames=names, **more)


def _names(pattern: str, properties: Json) -> Json:
    """Which fields there may be besides: not what is refused by its name."""
    refused = (NOT_THE_CALLERS | NAMING) - properties.keys()
    return {"pattern": pattern, "not": {"enum": sorted(refused)}}


def _fields(properties: Json, *required: str, **more: Any) -> Json:
    """The same as a form."""
    once = {"required": ["target_model_names", "target_model_names[]"]}
    rules = {
        "propertyNames": _names(_FIELD_NAME, properties),
        "additionalProperties": {"type": "string"},
        "not": once,
    }
    return _object(_in_form(properties), *required, **rules, **more)


_GENERATION = {
    **_COMMON,
    "prompt": _PROMPT,
    "seconds": _SECONDS,
    "size": {"type": "string", "minLength": 1, "examples": ["1280x720"]},
    "characters": _CHARACTERS,
    "fallbacks": {"type": "boolean", "default": True},
}
_EDIT = {**_COMMON, "prompt": _PROMPT}
_EXTENSION = {**_COMMON, "prompt": _PROMPT, "seconds": _SECONDS}
_REMIX = {k: v for k, v in _EDIT.items() if k not in ("model", "target_model_names")}
_CHARACTER = {
    **_COMMON,
    "name": {"type": "string", "minLength": 1, "maxLength": 80, "pattern": r"\S"},
    "video": _FILE,
    "replicate": {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 8}, {"const": "all"}],
        "default": 1,
        "description": "To how many accounts the clip goes",
    },
}


def _bodies() -> Json:
    """The requests' schemas: as JSON, and as forms."""
    # An edit or an extension starts from one of these.
    source = {"oneOf": [{"required": ["video"]}, {"required": ["video_id"]}]}
    brackets = [*source["oneOf"], {"required": ["video[id]"]}]
    by_id = {"video": _BY_ID, "video_id": _ID}
    uploaded = {"video": _FILE, "video_id": _ID, "video[id]": _ID}
    return {
        "Generation": _body({**_GENERATION, "input_reference": _IMAGE}, "prompt"),
        "GenerationForm": _fields(
            {
                **_GENERATION,
                "input_reference": _FILE,
                "characters[][id]": {"type": "array", "items": _ID},
            },
            "prompt",
        ),
        "Edit": _body({**_EDIT, **by_id}, "prompt", **source),
        "EditForm": _fields({**_EDIT, **uploaded}, "prompt", oneOf=brackets),
        "Extension": _body({**_EXTENSION, **by_id}, "prompt", "seconds", **source),
        "ExtensionForm": _fields({**_EXTENSION, **uploaded}, "prompt", "seconds", oneOf=brackets),
        "Remix": _body(_REMIX, "prompt"),
        "RemixForm": _fields(_REMIX, "prompt"),
        "CharacterForm": _fields(_CHARACTER, "name", "video"),
    }


def _schemas() -> Json:
    _, answers = models_json_schema(
        [(model, "serialization") for model in (Video, VideoPage, VideoDeleted, Character)],
        ref_template="#/components/schemas/{model}",
    )
    model = {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
    }
    listed = {"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}
    return {
        **{name: _written(schema) for name, schema in answers["$defs"].items()},
        **_bodies(),
        "Error": _ERROR,
        "Model": _object(model, *model),
        "ModelList": _object(listed, *listed),
    }


def _written(schema: Json) -> Json:
    """An answer's schema as it is written: each key is there, null or not."""
    properties = {
        name: {k: v for k, v in one.items() if k not in ("default", "title")}
        for name, one in schema["properties"].items()
    }
    return _object(properties, *properties)


def _ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


# Parameters, headers, answers -------------------------------------------------------------------

_PROVIDER_NOTE = "Keep to this provider. The header beats the query, and that the body."
_PARAMETERS: Json = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same call under the same key is made once; another one is a 409",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    "ProviderHeader": {
        "name": "custom-llm-provider",
        "in": "header",
        "description": _PROVIDER_NOTE,
        "schema": {"type": "string"},
    },
    "ProviderQuery": {
        "name": "custom_llm_provider",
        "in": "query",
        "description": _PROVIDER_NOTE,
        "schema": {"type": "string"},
    },
    "Id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "An id that this proxy gave, percent-encoded",
        "schema": {"type": "string", "minLength": 1},
    },
}
_HEADERS: Json = {
    "RequestId": {
        "description": "This request's: the caller's own x-request-id, where it is a sane one",
        "required": True,
        "schema": {"type": "string"},
    },
    "Deployment": {
        "description": "Which deployment answered",
        "schema": {"type": "string"},
    },
    "Attempts": {
        "description": "How many exchanges it took",
        "schema": {"type": "integer", "minimum": 0},
    },
    "PollAfter": {
        "description": "Milliseconds until it is worth while to ask again",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RetryAfter": {
        "description": "Seconds until it is worth while to try again",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RetryAfterMs": {
        "description": "The same in milliseconds",
        "schema": {"type": "integer", "minimum": 0},
    },
    "ShouldRetry": {
        "description": "There where to send the call again gains nothing, or may be paid twice",
        "schema": {"const": "false"},
    },
}
_ALWAYS: Json = {"x-request-id": _ref("RequestId", "headers")}
_SERVED: Json = {
    **_ALWAYS,
    "x-router-deployment": _ref("Deployment", "headers"),
    "x-router-attempts": _ref("Attempts", "headers"),
}
_FAILED: Json = {
    **_SERVED,
    "retry-after": _ref("RetryAfter", "headers"),
    "retry-after-ms": _ref("RetryAfterMs", "headers"),
    "x-should-retry": _ref("ShouldRetry", "headers"),
}
_ERRORS: Mapping[str, str] = {
    "400": "What was sent cannot be read, or a value in it is not allowed",
    "401": "No key was sent, or one that is not known",
    "403": "The key, or the provider, does not allow it",
    "404": "No such model, or nothing that this key may know has this id",
    "405": "Not with this method",
    "408": "The body comes too slowly",
    "409": "Another call was made under this Idempotency-Key, or the job has failed",
    "410": "The video was made, and is no longer kept",
    "413": "The body is too large",
    "415": "The body is of no type that is taken",
    "429": "The key's requests, or all room at the deployments, are used up",
    "501": "No deployment that this call may go to can do this",
    "502": "The provider failed. With `accepted`, a paid job may run all the same: do not repeat",
    "503": "No deployment is in rotation, or shared state is needed and out of reach",
    "504": "The deadline passed",
}
_JSON_ERROR: Json = {"application/json": {"schema": _ref("Error")}}
_RESPONSES: Json = {
    **{
        f"Error{status}": {"description": text, "headers": _FAILED, "content": _JSON_ERROR}
        for status, text in _ERRORS.items()
    },
    "ErrorOther": {
        "description": "What else the provider refused, with its own status",
        "headers": _FAILED,
        "content": _JSON_ERROR,
    },
}


def _failures(*statuses: str) -> Json:
    return {status: _ref(f"Error{status}", "responses") for status in statuses}


_ANY_CALL = ("400", "401", "403", "404", "405", "429", "501", "502", "503", "504")
_WITH_A_BODY = ("408", "409", "413", "415")


def _answers(schema: str, *statuses: str, **headers: Json) -> Json:
    """What a route answers: this on success, and what may go wrong with any call."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "200": {
            "description": "Done",
            "headers": {**_SERVED, **named},
            "content": {"application/json": {"schema": _ref(schema)}},
        },
        **_failures(*_ANY_CALL, *statuses),
        "4XX": _ref("ErrorOther", "responses"),
    }


# Routes -----------------------------------------------------------------------------------------


def _operation(name: str, summary: str, tag: str, responses: Json, **more: Any) -> Json:
    made = {"operationId": name, "summary": summary, "tags": [tag]}
    return {**made, **more, "responses": responses}


def _form(schema: str) -> Json:
    media = {"schema": _ref(schema), "encoding": {"metadata": {"contentType": "application/json"}}}
    return {"multipart/form-data": media}


def _linked(*operations: str) -> Json:
    """What may be asked next, by the id that was answered."""
    by_id = {"id": "$response.body#/id"}
    return {name: {"operationId": name, "parameters": by_id} for name in operations}


def _submit(name: str, summary: str, schema: str, **more: Any) -> Json:
    """A route that starts a job: by JSON or by a form."""
    content = {"application/json": {"schema": _ref(schema)}, **_form(f"{schema}Form")}
    answers = _answers("Video", *_WITH_A_BODY, openai_poll_after_ms=_ref("PollAfter", "headers"))
    answers["200"]["links"] = _linked("getVideo", "getVideoContent", "remixVideo", "deleteVideo")
    parameters = [*more.pop("parameters", []), *_SUBMITS]
    body = {"required": True, "content": content}
    return _operation(
        name, summary, "videos", answers, parameters=parameters, requestBody=body, **more
    )


_READS = [_ref("ProviderHeader", "parameters"), _ref("ProviderQuery", "parameters")]
_SUBMITS = [_ref("IdempotencyKey", "parameters"), *_READS]
_BY_PATH = _ref("Id", "parameters")


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _video_paths() -> Mapping[str, Json]:
    polled = {"openai_poll_after_ms": _ref("PollAfter", "headers")}
    return {
        "/videos": {
            "post": _submit("createVideo", "Start a video from a prompt", "Generation"),
            "get": _operation(
                "listVideos",
                "The videos of all accounts, as one list",
                "videos",
                _answers("VideoPage"),
                parameters=[
                    _query("limit", {"type": "integer", "minimum": 0, "maximum": 100}, "At most"),
                    _query("order", {"enum": ["asc", "desc"]}, "By creation; newest first: desc"),
                    _query("after", {"type": "string"}, "A page's `last_id`"),
                    _query("model", {"type": "string"}, "A model group"),
                    _query("target_model_names", {"type": "string"}, "Groups, with commas"),
                    *_READS,
                ],
            ),
        },
        "/videos/edits": {"post": _submit("editVideo", "Make another video from one", "Edit")},
        "/videos/extensions": {"post": _submit("extendVideo", "Make a video longer", "Extension")},
        "/videos/characters": {
            "post": _operation(
                "createCharacter",
                "Make a reusable character from a clip",
                "characters",
                _made_character(),
                parameters=_SUBMITS,
                requestBody={"required": True, "content": _form("CharacterForm")},
            )
        },
        "/videos/characters/{id}": {
            "get": _operation(
                "getCharacter",
                "A character",
                "characters",
                _answers("Character"),
                parameters=[_BY_PATH, *_READS],
            )
        },
        "/videos/{id}": {
            "get": _operation(
                "getVideo",
                "A video, and how its job is",
                "videos",
                _answers("Video", **polled),
                parameters=[_BY_PATH, *_READS],
            ),
            "delete": _operation(
                "deleteVideo",
                "Delete a video",
                "videos",
                _answers("VideoDeleted", "409"),
                parameters=[_BY_PATH, *_READS],
            ),
        },
        "/videos/{id}/content": {
            "get": _operation(
                "getVideoContent",
                "A video's file, or its thumbnail or spritesheet",
                "videos",
                {
                    "200": {"description": "The file", "headers": _SERVED, "content": _MEDIA},
                    **_failures(*_ANY_CALL, "409", "410"),
                    "4XX": _ref("ErrorOther", "responses"),
                },
                parameters=[
                    _BY_PATH,
                    _query("variant", {"enum": ["video", "thumbnail", "spritesheet"]}, "Which"),
                    *_READS,
                ],
            )
        },
        "/videos/{id}/remix": {
            "post": _submit(
                "remixVideo", "Make a variation of a video", "Remix", parameters=[_BY_PATH]
            )
        },
        "/models": {
            "get": _operation(
                "listModels",
                "The model groups that this key may use",
                "models",
                _plain("ModelList", "401", "405", "429", "503"),
            )
        },
    }


def _made_character() -> Json:
    answers = _answers("Character", *_WITH_A_BODY)
    answers["200"]["links"] = _linked("getCharacter")
    return answers


# A provider says what it sends.
_MEDIA: Json = {kind: {} for kind in ("video/mp4", "image/webp", "image/jpeg", "*/*")}


def _plain(schema: str, *statuses: str) -> Json:
    """Answers of the proxy's own, for which nobody else was asked."""
    content = {"application/json": {"schema": _ref(schema)}}
    return {
        "200": {"description": "Done", "headers": _ALWAYS, "content": content},
        **_failures(*statuses),
    }


def _told(description: str, schema: Json, media_type: str = "application/json") -> Json:
    content = {media_type: {"schema": schema}}
    return {"description": description, "headers": _ALWAYS, "content": content}


def _operating_paths() -> Json:
    text: Json = {"type": "string"}
    ready = {
        "status": {"enum": ["ready", "unready"]},
        "reason": text,
        "shared_state": {"const": "out of reach"},
    }
    live = _object({"status": {"const": "live"}}, "status")
    standing = _object(ready, "status")
    refusals = _failures("401", "403", "405")
    after = _query("after", text, "The `cursor` of an answer: of what is long, only what is newer")
    paths = {
        "/health/live": _operation(
            "live",
            "The process is there",
            "operating",
            {"200": _told("It is", live), **_failures("405")},
            security=[],
        ),
        "/health/ready": _operation(
            "ready",
            "Whether to send calls here",
            "operating",
            {
                "200": _told("Calls may come", standing),
                "503": _told("It is stopping, or no deployment can take any call", standing),
                **_failures("405"),
            },
            security=[],
        ),
        "/metrics": _operation(
            "metrics",
            "Figures for Prometheus",
            "operating",
            {"200": _told("Prometheus' text", text, "text/plain"), **refusals, **_failures("501")},
        ),
        "/openapi.json": _operation(
            "openapi",
            "This document",
            "operating",
            {"200": _told("It", {"type": "object"}), **_failures("405")},
            security=[],
        ),
        "/operator/state": _operation(
            "operatorState",
            "What the operators' page shows",
            "operating",
            {"200": _told("The fleet now", {"type": "object"}), **refusals},
            parameters=[after],
        ),
    }
    files = {
        "/": ("page", "The operators' page", "text/html"),
        "/operator/page.css": ("pageStyle", "Its style", "text/css"),
        "/operator/page.js": ("pageScript", "Its script", "text/javascript"),
        "/operator/icon.svg": ("pageIcon", "Its icon", "image/svg+xml"),
    }
    for path, (name, summary, media_type) in files.items():
        served = {"200": _told(summary, text, media_type), **_failures("405")}
        paths[path] = _operation(name, summary, "operating", served, security=[])
    return {path: {"get": operation} for path, operation in paths.items()}
