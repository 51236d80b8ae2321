"""The door of gRPC between xAI's SDK and the stand-in. Importing it takes a second, and gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import xai_sdk
from google.protobuf import json_format
from xai_sdk.proto import deferred_pb2, video_pb2, video_pb2_grpc
from xai_sdk.types.video import VideoAspectRatioMap, VideoResolutionMap
from xai_sdk.video import VideoGenerationError

from router.testing import StandIn

__all__ = [
    "Door",
    "VideoAspectRatioMap",
    "VideoGenerationError",
    "VideoResolutionMap",
    "deferred_pb2",
    "grpc",
    "video_pb2_grpc",
    "xai_sdk",
]

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
ENUMS = {
    "aspect_ratio": {number: word for word, number in VideoAspectRatioMap.items()},
    "resolution": {number: word for word, number in VideoResolutionMap.items()},
}


class Door(video_pb2_grpc.VideoServicer):  # type: ignore[misc]  # generated code has no types
    def __init__(self, provider: StandIn) -> None:
        origin = provider.base_url.removesuffix("/v1")
        self._http = httpx.Client(base_url=f"{origin}/xai/v1", trust_env=False)

    def close(self) -> None:
        self._http.close()

    def GenerateVideo(self, request: Any, context: Any) -> Any:  # noqa: N802  (the service's word)
        kind = "edits" if request.HasField("video") else "generations"
        return self._start(kind, request, context)

    def ExtendVideo(self, request: Any, context: Any) -> Any:  # noqa: N802  (the service's word)
        return self._start("extensions", request, context)

    def GetDeferredVideo(self, request: Any, context: Any) -> Any:  # noqa: N802  (the service's word)
        answer = self._ask(context, "GET", f"videos/{request.request_id}")
        status = deferred_pb2.DeferredStatus.Value(answer.pop("status").upper())
        response = json_format.ParseDict(answer, video_pb2.VideoResponse())
        return video_pb2.GetDeferredVideoResponse(status=status, response=response)

    def _start(self, kind: str, request: Any, context: Any) -> Any:
        answer = self._ask(context, "POST", f"videos/{kind}", _as_json(request))
        return json_format.ParseDict(answer, deferred_pb2.StartDeferredResponse())

    def _ask(self, context: Any, method: str, path: str, data: Any = None) -> Any:
        metadata = dict(context.invocation_metadata())
        headers = {k: v for k, v in metadata.items() if k == "authorization"}
        answer = self._http.request(method, path, json=data, headers=headers)
        said = answer.json()
        if answer.status_code >= 400:
            context.abort(CODES[answer.status_code], f"{said['code']}: {said['error']}")
        return said


def _as_json(request: Any) -> dict[str, Any]:
    """A request's fields by the names of its proto, but for what JSON calls otherwise."""
    data: dict[str, Any] = json_format.MessageToDict(request, preserving_proto_field_name=True)
    for name, words in ENUMS.items():
        if name in data:
            data[name] = words[getattr(request, name)]
    if "image" in data:
        url = data["image"].get("image_url")
        data["image"] = {"url": url} if url else {"file_id": data["image"]["file_id"]}
    return data
