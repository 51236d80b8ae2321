"""What the lines of the logger `router` carry beside their words.

All have the same fields, so that a formatter or a filter may name any of them; what a line does
not speak of is `None`. Names are those of the events where an event tells the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

__all__ = ["FIELDS", "ChangeWord", "fields"]

ChangeWord: TypeAlias = Literal[
    "ejected",
    "restored",
    "retires",
    "not-taken",
    "job-unheard",
    "job-heard",
    "state-away",
    "state-back",
    "news-away",
    "not-understood",
    "hook-failed",
    "proxy-failed",
    "download-broke-off",
    "reloaded",
    "not-reloaded",
    "stopping",
    "cut-off",
    "worker-ended",
]

FIELDS = ("change", "deployment", "account", "deployments", "scope", "cause", "seconds")


def fields(
    change: ChangeWord,
    *,
    deployment: str | None = None,
    account: str | None = None,
    deployments: Sequence[str] = (),
    scope: str | None = None,
    cause: str | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """For a line's `extra`. `deployments` are all that the change concerns, `deployment` the first.

    `seconds` is for how long it will be so.
    """
    alone = () if deployment is None else (deployment,)
    return {
        "change": change,
        "deployment": deployment,
        "account": account,
        "deployments": tuple(deployments) or alone,
        "scope": scope,
        "cause": cause,
        "seconds": seconds,
    }
