"""The provider: the stand-in in a process of its own, which writes all down that it is asked.

    chaos_provider.py <folder> <seed> <faults a second>

Its accounts have no limits: what runs there is what the routers let through. Each request and each
job is a line in `provider.jsonl` before its answer leaves, so the books are whole at any moment.
"""

from __future__ import annotations

import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos_journal import Journal
from chaos_plan import CAPS, JOB_SECONDS, faults

from router.testing import AcceptedSubmit, Fault, SeenRequest, StandIn

__all__ = ["NATIVE", "main"]

NATIVE = re.compile(r"\b(?:video|char)_[0-9a-f]{32}\b")
STALE = 4.0
"""Seconds after which a fault that met nobody is taken back."""


class Books:
    """What is asked and what is accepted, in place of the stand-in's own lists: nothing is kept.

    The stand-in adds to both under one lock, and a request after what it made; so what was accepted
    is written with the call that asked for it.
    """

    def __init__(self, journal: Journal, stand_in: StandIn) -> None:
        self._journal = journal
        self._accounts = stand_in._provider.studio.accounts
        self._made: list[dict[str, Any]] = []
        stand_in._provider.studio.accepted = _Told(self._accepted)
        stand_in._provider.requests = _Told(self._request)

    def _accepted(self, submit: AcceptedSubmit) -> None:
        job = self._accounts[submit.account].jobs.get(submit.native_id)
        made: dict[str, Any] = {"operation": submit.operation, "account": submit.account}
        made["native"] = submit.native_id
        made["mark"] = str(submit.prompt or submit.fields.get("name")).partition(":")[0]
        if job is not None:
            ends = job.started + job.lasts
            made |= {"started": job.started, "ends": ends, "fails": job.fate is not None}
        self._made.append(made)

    def _request(self, seen: SeenRequest) -> None:
        call = seen.headers.get("x-call")
        for made in self._made:
            self._journal.write("accepted", call=call, **made)
        self._made.clear()
        named = NATIVE.findall(f"{seen.path} {seen.query} {seen.fields}")
        self._journal.write(
            "request",
            call=call,
            operation=seen.operation,
            account=seen.account,
            named=named,
            status=seen.status,
        )


class _Told(list[Any]):
    """A list that tells what is added to it, and stays empty."""

    def __init__(self, told: Callable[[Any], None]) -> None:
        super().__init__()
        self._told = told

    def append(self, one: Any) -> None:
        self._told(one)


def _plan_faults(
    stand_in: StandIn, journal: Journal, coming: Iterator[tuple[float, dict[str, Any]]]
) -> None:
    waiting: list[tuple[float, Fault]] = []
    for pause, fault in coming:
        time.sleep(pause)
        while waiting and waiting[0][0] < time.monotonic() - STALE:
            waiting.pop(0)[1].cancel()
        waiting.append((time.monotonic(), stand_in.fault(**fault)))
        journal.write("fault", **fault)


def main() -> None:
    folder, seed, rate = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    journal, rng = Journal(folder / "provider.jsonl"), random.Random(f"jobs {seed}")
    keys = {f"sk-{account}": account for account in CAPS}
    with StandIn(keys, job_seconds=lambda *_: rng.uniform(*JOB_SECONDS)) as stand_in:
        Books(journal, stand_in)
        if rate:
            planning = (stand_in, journal, faults(seed, rate))
            threading.Thread(target=_plan_faults, args=planning, daemon=True).start()
        sys.stdout.write(f"{stand_in.port}\n")
        sys.stdout.flush()
        sys.stdin.read()  # until nobody is there any more


if __name__ == "__main__":
    main()
