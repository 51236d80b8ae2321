"""`StandIn`: what users hold in their hands.

    with StandIn(accounts={"sk-east": "east", "sk-west": "west"}) as provider:
        client = OpenAI(base_url=provider.base_url, api_key="sk-east")

or, without a socket, `httpx.Client(transport=StandIn().transport)`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, Self

from router.testing.dialects.dialect import Policy
from router.testing.faults import Fault, FaultPlan
from router.testing.listener import Listener
from router.testing.provider import OPERATIONS, Provider, SeenRequest
from router.testing.studio import AcceptedSubmit, Clock, JobSeconds, Limits, Studio
from router.testing.transport import Transport

__all__ = ["StandIn"]

DEFAULT_ACCOUNTS = {"sk-stand-in": "default"}


class StandIn:
    """A video provider that lives in this process and does what it is told.

    `accounts` maps API keys to account names; keys of one account share its assets, and no account
    sees another's. A job takes `job_seconds` of the `clock`, or what `job_seconds(operation,
    account)` says: the first tenth queued, then in progress, then completed. With 0 the creating
    answer says queued and the first read completed.

    `rpm` and `max_running_jobs` are limits of each account, answered with 429. `models` are the
    models it knows (default: any). `poll_after_ms` is told with every answer about a job. With
    `any_clip` it takes any bytes for a clip, as tests without a real one send them.
    `latency` is in seconds, before each answer. `seed` makes the ids repeatable.

    Entering it starts a real HTTP server on `host` and `port` (0: a free one); `transport` needs no
    entering. Both doors lead to the same provider.
    """

    def __init__(
        self,
        accounts: Mapping[str, str] | None = None,
        *,
        job_seconds: JobSeconds = 0.0,
        rpm: int | None = None,
        max_running_jobs: int | None = None,
        models: Sequence[str] | None = None,
        poll_after_ms: int | None = None,
        any_clip: bool = False,
        latency: float = 0.0,
        clock: Clock = time,
        seed: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        accounts = DEFAULT_ACCOUNTS if accounts is None else accounts
        faults = FaultPlan(operations=OPERATIONS, accounts=set(accounts.values()))
        studio = Studio(
            accounts,
            limits=Limits(rpm, max_running_jobs),
            job_seconds=job_seconds,
            clock=clock,
            random=Random(seed),
            faults=faults,
        )
        policy = Policy(None if models is None else tuple(models), poll_after_ms, any_clip)
        self._provider = Provider(studio, faults, policy=policy, latency=latency)
        self._host, self._port = host, port
        self._listener: Listener | None = None
        self.transport = Transport(self._provider, clock.sleep)
        """Serves `httpx.Client` and `httpx.AsyncClient`, and whoever calls `handle_request`."""

    def __enter__(self) -> Self:
        if self._listener is not None:
            raise RuntimeError("this StandIn is already listening")
        self._listener = Listener(self._provider, host=self._host, port=self._port)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._listener is None:
            raise RuntimeError("a StandIn listens only inside its `with`; or use its transport")
        return self._listener.port

    @property
    def base_url(self) -> str:
        """Where clients of the OpenAI dialect go.

        RunwayML's, Google's and fal's go without the `/v1`; xAI's to `/xai/v1` in its place.
        """
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    def fault(
        self,
        kind: str,
        *,
        operation: str | None = None,
        account: str | None = None,
        times: int | None = 1,
        **details: Any,
    ) -> Fault:
        """Plan a fault for the next `times` matching requests; None is for ever.

        A request suffers one fault, the oldest that matches. These are the kinds and their details;
        all but the last two also take `after`, whether the work is done (and billed) first:

        | kind | details |
        |---|---|
        | `status` | `status=500, body=None, headers={}`; `after` is False by default |
        | `delay` | `seconds=1.0` |
        | `reset` | `after` is False by default |
        | `reset_mid_body`, `empty`, `truncated` | |
        | `garbage` | `body="<html>…", content_type="text/html"` |
        | `wrong_types` | `body={"id": 5, "object": "video", "status": None}` |
        | `endless` | `size=1024, seconds=0.001` |
        | `drip` | `seconds=0.1` |
        | `redirect` | `location, status=302`; `after` is False by default |
        | `many_headers` | `count=200` |
        | `job_fails` | `code, message, status=None` |
        | `never_ends` | `status=None` |
        """
        with self._provider.lock:
            return self._provider.faults.plan(
                kind, operation=operation, account=account, times=times, **details
            )

    def put_video(self, id: str, *, account: str | None = None) -> None:
        """Let there be a completed video of this id, as a test's fixed ids need it.

        Nobody is billed for it: it is not among the `accepted`. One that is there is made anew.
        `account` may be left out where there is only one. Of OpenAI's dialect.
        """
        self._provider.put("videos", id, account)

    def put_character(self, id: str, *, account: str | None = None) -> None:
        """The same for a character."""
        self._provider.put("characters", id, account)

    @property
    def accepted(self) -> list[AcceptedSubmit]:
        """The submits it took on so far, in order, those whose answer was lost included."""
        with self._provider.lock:
            return list(self._provider.studio.accepted)

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request so far, in the order they were answered."""
        with self._provider.lock:
            return list(self._provider.requests)

    def reset(self) -> None:
        """Forget everything: faults, records, videos, characters, used-up limits."""
        self._provider.forget()
