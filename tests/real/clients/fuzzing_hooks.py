"""What schemathesis asks of each answer: see test_proxy_fuzzing."""

from __future__ import annotations

import os

import schemathesis

SECRETS = [word.encode() for word in os.environ["FUZZ_SECRETS"].split()]


@schemathesis.check
def nothing_broke(ctx, response, case) -> None:
    """An error is one that the proxy means: it says 500 where it was mistaken."""
    assert response.status_code != 500, response.content[:400]
    assert "x-request-id" in response.headers


@schemathesis.check
def no_secret(ctx, response, case) -> None:
    """Neither in what is said, nor in a header."""
    said = response.content + repr(response.headers).encode()
    shown = [secret for secret in SECRETS if secret in said]
    assert shown == []
