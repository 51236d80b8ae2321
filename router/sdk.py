"""The operations as functions, on one router for the whole process.

It is built at the first call, from the file that `$ROUTER_CONFIG` names, else `./deployments.yaml`.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from router.router import Router

__all__ = [
    "alocate",
    "aresume",
    "avideo",
    "avideo_content",
    "avideo_create_character",
    "avideo_delete",
    "avideo_edit",
    "avideo_extension",
    "avideo_generation",
    "avideo_get_character",
    "avideo_list",
    "avideo_remix",
    "avideo_status",
    "avideo_wait",
    "default_router",
    "locate",
    "resume",
    "video",
    "video_content",
    "video_create_character",
    "video_delete",
    "video_edit",
    "video_extension",
    "video_generation",
    "video_get_character",
    "video_list",
    "video_remix",
    "video_status",
    "video_wait",
]

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_router: Router | None = None


def default_router() -> Router:
    """The process's router; raises `ConfigError` where there is no usable file."""
    global _router
    with _lock:
        if _router is None:
            _router = Router.from_yaml(os.environ.get("ROUTER_CONFIG") or "deployments.yaml")
        return _router


def _on_default(method: Callable[Concatenate[Router, P], T]) -> Callable[P, T]:
    @functools.wraps(method)
    def function(*args: P.args, **kwargs: P.kwargs) -> T:
        return method(default_router(), *args, **kwargs)

    return function


video_create_character = _on_default(Router.video_create_character)
avideo_create_character = _on_default(Router.avideo_create_character)
video_get_character = _on_default(Router.video_get_character)
avideo_get_character = _on_default(Router.avideo_get_character)
video_generation = video = _on_default(Router.video_generation)
avideo_generation = avideo = _on_default(Router.avideo_generation)
video_edit = _on_default(Router.video_edit)
avideo_edit = _on_default(Router.avideo_edit)
video_extension = _on_default(Router.video_extension)
avideo_extension = _on_default(Router.avideo_extension)
video_remix = _on_default(Router.video_remix)
avideo_remix = _on_default(Router.avideo_remix)
video_status = _on_default(Router.video_status)
avideo_status = _on_default(Router.avideo_status)
video_content = _on_default(Router.video_content)
avideo_content = _on_default(Router.avideo_content)
video_list = _on_default(Router.video_list)
avideo_list = _on_default(Router.avideo_list)
video_delete = _on_default(Router.video_delete)
avideo_delete = _on_default(Router.avideo_delete)
video_wait = _on_default(Router.video_wait)
avideo_wait = _on_default(Router.avideo_wait)
resume = _on_default(Router.resume)
aresume = _on_default(Router.aresume)
locate = _on_default(Router.locate)
alocate = _on_default(Router.alocate)


def _after_fork() -> None:
    # A thread of the parent's may have held it.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
