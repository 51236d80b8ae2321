"""Workers that do wrong, each in a way of its own: the checker has to find them.

A mutation stands between a lane and its router. It has what a careless integration has, and no
more: it never writes into a journal.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from chaos_plan import CAPS

from router import errors

if TYPE_CHECKING:
    from chaos_worker import Lane, Worker

__all__ = ["MUTATIONS", "Mutation"]


class Mutation:
    """Does nothing wrong."""

    async def send(self, lane: Lane, method: str, arguments: dict[str, Any]) -> Any:
        return await lane.send(method, **arguments)

    def at_end(self, worker: Worker) -> None:
        """When the worker is closed."""


class Resubmits(Mutation):
    """Sends again what may have been accepted."""

    async def send(self, lane: Lane, method: str, arguments: dict[str, Any]) -> Any:
        try:
            return await lane.send(method, **arguments)
        except errors.AmbiguousSubmitError:
            arguments.pop("idempotency_key", None)
            return await lane.send(method, **arguments)


class AsksAnother(Mutation):
    """Takes an id to whoever comes first, as a router without owners in its ids does."""

    async def send(self, lane: Lane, method: str, arguments: dict[str, Any]) -> Any:
        if method == "video_status":
            (copy,) = lane.worker.router.describe_id(arguments["video_id"]).copies
            arguments["video_id"] = copy.native_id
            arguments["account"] = next(name for name in CAPS if name != copy.account)
        return await lane.send(method, **arguments)


class IgnoresCaps(Mutation):
    """Its configuration has no caps, which the fleet sees to."""


class Forgets(Mutation):
    """Says nothing of what it does not know: an answer that was lost counts as a refusal."""

    async def send(self, lane: Lane, method: str, arguments: dict[str, Any]) -> Any:
        try:
            return await lane.send(method, **arguments)
        except errors.AmbiguousSubmitError as error:
            error.accepted = "no"
            raise


class DropsKeys(Mutation):
    """Takes a key, and never looks at it."""

    async def send(self, lane: Lane, method: str, arguments: dict[str, Any]) -> Any:
        arguments.pop("idempotency_key", None)
        return await lane.send(method, **arguments)


class Dawdles(Mutation):
    """Goes on after its deadline."""

    async def send(self, lane: Lane, method: str, arguments: dict[str, Any]) -> Any:
        if method in ("video_status", "video_list", "video_content") and lane.blocking:
            threading.Event().wait(arguments["deadline"] + 4.0)
        return await lane.send(method, **arguments)


class Leaks(Mutation):
    """Leaves a thread and a file behind."""

    def at_end(self, worker: Worker) -> None:
        self.kept = open("/dev/null")  # noqa: SIM115  (that is the fault)
        threading.Thread(target=time.sleep, args=(1.0,), name="left behind").start()


MUTATIONS: dict[str, Mutation] = {
    "resubmits": Resubmits(),
    "asks another account": AsksAnother(),
    "ignores caps": IgnoresCaps(),
    "forgets": Forgets(),
    "drops keys": DropsKeys(),
    "dawdles": Dawdles(),
    "leaks": Leaks(),
}
