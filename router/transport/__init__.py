"""Sends a request and brings back the reply, or says why there is none and what went out.

    exchange      what goes out and what comes in, whoever carries it; what an exception means
    blocking      the blocking door's transport
    awaiting      the async door's
    connections   connections of our own: opened, kept on a stack for each origin, given up
    http11        one of them, which speaks HTTP/1.1 by h11
    network       the sockets below

The two share everything but the waiting. Owning the connections leaves two decisions to us that a
shared pool makes by itself. A submit uses only a connection that was in use within the last two
seconds, or a fresh one, so that a server closing an idle connection never meets a paid call half
way. And a connection on which anything went wrong is closed, not kept. It is also what makes a
routed call quicker than a bare one: httpx's client, its pool and its layer for other event loops
take longer than all that the router does.

What went out is judged by the bytes that were handed over: `Sending` notes when the last of them
was asked for. Exceptions only tell what to call it (`FAULTS`).

A caller's own `httpx` client or transport is used as it is; then its pool and its limits rule.
"""

from __future__ import annotations

from router.transport.awaiting import AsyncTransport
from router.transport.blocking import BlockingTransport
from router.transport.exchange import (
    FAULTS,
    Patience,
    Sink,
    SinkFailed,
    Transport,
    Unanswered,
)

__all__ = [
    "FAULTS",
    "AsyncTransport",
    "BlockingTransport",
    "Patience",
    "Sink",
    "SinkFailed",
    "Transport",
    "Unanswered",
]
