"""Videos that a provider keeps elsewhere, and gives to whoever knows the link."""

from __future__ import annotations

from router.errors import JobFailedError, VideoNotReadyError
from router.messages import InvalidBody, Request
from router.types import Video

__all__ = ["download", "must_be_done", "web_address"]


def web_address(value: object, what: str) -> str:
    """`value`, where it is an address to ask; raises `InvalidBody` for anything else."""
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise InvalidBody(f"it is finished, and has no {what}")
    return value


def download(url: str) -> Request:
    """What asks for a file. It says not who asks: the link is all that its host wants."""
    return Request("GET", url, {"accept": "*/*"}, download=True, by_link=True)


def must_be_done(video: Video, retry_after: float) -> None:
    """Raise the error of a job that has no video: not yet, or not at all."""
    if video.failed:
        error = video.error
        said = (error.message if error else None) or f"the job is {video.status}"
        raise JobFailedError(said, code=error.code if error else None)
    if not video.done:
        raise VideoNotReadyError(f"the job is {video.status}", retry_after=retry_after)
