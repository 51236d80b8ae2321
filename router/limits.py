"""Which limits a call has to find room in, and when to come back where there is none.

Pure: what is held and by whom stands in the store. A limit of the deployment and one of its account
both apply; a submit needs room in requests per minute, in requests in flight and, if it starts a
job, in running jobs; a read in the first two.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from router.config import JOB_TTL, Limits
from router.leases import WINDOW, Grant, Need
from router.observations import percentile
from router.types import Operation

__all__ = [
    "Later",
    "Usual",
    "job_cap",
    "job_ttl",
    "needs",
    "retry_after",
    "share",
    "trial",
    "usual",
]

USUAL_JOB_SECONDS = 60.0
"""What a job is taken to last before one has been seen to end."""
LEAST_WAIT = 0.1
LONGEST_WAIT = 300.0
FLIGHT_SECONDS = 1.0
"""A request in flight is over in about so long, if no longer time is known."""
FLIGHTS = 3.0
"""After so many times that time, who is in flight now is not any more."""
SPREAD = (0.6, 0.75, 0.9, 1.0, 1.15, 1.4, 1.8)
"""How the times of jobs lie about the usual one, as long as nobody has seen many."""
LIKELY_TIMES = 20
ENOUGH_SAMPLES = 10
LIKELY = 0.85
"""How sure the end of a job is to be for somebody to come back for its slot."""
LATE = 0.2
"""A job that is late already ends within about this part of the longest time known."""
JITTER = 0.25
STEPS = 24


def needs(
    deployment: str, account: str, own: Limits, shared: Limits, operation: Operation
) -> tuple[Need, ...]:
    """What one exchange for `operation` needs room in."""
    rate = "rpm" if operation.is_submit else "read_rpm"
    found: list[Need] = []
    for limits, owner in ((own, f"deployment:{deployment}"), (shared, f"account:{account}")):
        if operation.starts_job and limits.max_parallel_jobs is not None:
            found.append(Need(f"jobs:{owner}", limits.max_parallel_jobs))
        if limits.max_parallel_requests is not None:
            found.append(Need(f"requests:{owner}", limits.max_parallel_requests))
        per_minute = limits.rpm if operation.is_submit else limits.read_rpm
        if per_minute is not None:
            found.append(Need(f"{rate}:{owner}", per_minute))
    return tuple(found)


def job_ttl(own: Limits, shared: Limits) -> float:
    """Seconds after which a job that nobody has seen stops holding its slot."""
    return own.job_ttl or shared.job_ttl or JOB_TTL


def job_cap(own: Limits, shared: Limits) -> int | None:
    """How many jobs may run at a deployment, by its limit and its account's; `None` for any."""
    caps = [limits.max_parallel_jobs for limits in (own, shared)]
    return min((cap for cap in caps if cap is not None), default=None)


def trial(deployment: str) -> Need:
    """One call of the whole fleet, to see whether a deployment is well again."""
    return Need(f"trial:deployment:{deployment}", 1)


def share(need: Need, workers: int) -> Need:
    """One worker's part of a limit, while the workers cannot ask each other.

    Of slots each has one at least; money can be parted to the last millionth of a dollar.
    """
    least = 0 if need.in_day else 1
    return dataclasses.replace(need, limit=max(least, need.limit // max(workers, 1)))


class Usual(NamedTuple):
    """How long it usually takes, in seconds, until room is given back.

    `jobs` are times that are equally likely for a job to last, shortest first; `flight` is for how
    long a request is in flight.
    """

    jobs: tuple[float, ...]
    flight: float


class Later(NamedTuple):
    """When to come back, in seconds, and for room in what."""

    seconds: float
    resources: tuple[str, ...]


def usual(buckets: Mapping[int, int], length: float, flight: float | None) -> Usual:
    """What is known of the times of jobs (buckets of seconds per second of video) and requests.

    A few samples say little of how far the times of jobs lie apart, so a guess is mixed with them.
    """
    known = sum(buckets.values())
    middle = (percentile(buckets, 0.5) or 0.0) * length or USUAL_JOB_SECONDS
    shares = [(place + 0.5) / LIKELY_TIMES for place in range(LIKELY_TIMES if known else 0)]
    measured = [(percentile(buckets, share) or 0.0) * length for share in shares]
    guessed = [] if known >= ENOUGH_SAMPLES else [middle * spread for spread in SPREAD]
    return Usual(tuple(sorted(measured + guessed)), max(flight or 0.0, FLIGHT_SECONDS))


def retry_after(
    grant: Grant,
    now: float,
    times: Usual,
    rng: random.Random,
    ahead: Callable[[Collection[str], float], float] = lambda resources, until: 0.0,
) -> Later:
    """When trying again is likely to succeed, at the first of the choices that will have room.

    A window says to the moment when it has room, and money is there again at midnight UTC. A job is
    expected to end as the times of others tell, given how long it has been running; one must have
    ended for this caller, and one for each of those who will be back before. How many that are,
    `ahead` says of some resources and a time.

    Nothing is kept for who comes back, and whoever else comes by takes what has become free. So
    the more slots there are, and the more often they change hands, the less it helps to be there
    when the next job ends, and the more to come at another time than this one, at which all are
    taken: after about the time of a job. Chance spreads those who were refused together.
    """
    jobs = tuple(dict.fromkeys(r for r, _ in grant.full if r.startswith("jobs:")))
    spread = rng.uniform(1 - JITTER, 1 + JITTER)
    until_jobs_end = _until_jobs_end(grant, now, times.jobs, jobs, ahead, spread) if jobs else 0.0
    found: list[Later] = []
    for resource, opens in grant.full:
        opens = 0.0 if opens is None else opens + LEAST_WAIT
        if resource in jobs:
            found.append(Later(max(until_jobs_end, opens), jobs))
        elif resource.startswith("requests:"):
            found.append(Later(max(FLIGHTS * times.flight * spread, opens), (resource,)))
        else:
            found.append(Later(opens or WINDOW, (resource,)))
    soonest = min(found, default=Later(LEAST_WAIT, ()))
    # All else is guessed, or at most a few minutes off; of money nobody has any until midnight.
    longest = math.inf if any(Need(r, 0).in_day for r in soonest.resources) else LONGEST_WAIT
    return soonest._replace(seconds=min(max(soonest.seconds, LEAST_WAIT), longest))


def _until_jobs_end(
    grant: Grant,
    now: float,
    times: Sequence[float],
    jobs: Collection[str],
    ahead: Callable[[Collection[str], float], float],
    spread: float,
) -> float:
    """Seconds until enough of the jobs in the way have ended, and until chance is on one's side."""
    # Who holds a slot and is not known yet was accepted just now.
    ages = [max(now - accepted, 0.0) for accepted in grant.holding] or [0.0]
    # Where whole seconds are told, short jobs seem to take no time at all.
    middle = max(times[len(times) // 2], LEAST_WAIT)
    others = middle * (1 - 1 / len(ages)) * spread
    step = middle / STEPS
    for place in range(1, math.ceil(LONGEST_WAIT / step) + 1):
        wait = place * step
        needed = 1 + ahead(jobs, now + wait)
        if needed > len(ages):
            # All that run now are for others: by then so many more have ended, too.
            if wait > middle * needed / len(ages):
                return max(wait, others)
        elif _likely_ended(ages, times, wait, needed) >= LIKELY:
            return max(wait, others)
    return LONGEST_WAIT


def _likely_ended(
    ages: Sequence[float], times: Sequence[float], wait: float, needed: float
) -> float:
    """How likely at least so many of the jobs of these ages end within `wait` seconds."""
    ends = [_ends_within(age, wait, times) for age in ages]
    if needed <= 1:
        return 1.0 - math.prod(1.0 - likely for likely in ends)
    spread = math.sqrt(sum(likely * (1.0 - likely) for likely in ends))
    beyond = sum(ends) - needed + 0.5
    return 0.5 * (1.0 + math.erf(beyond / (spread * math.sqrt(2)))) if spread else float(beyond > 0)


def _ends_within(age: float, wait: float, times: Sequence[float]) -> float:
    """How likely a job of this age ends within `wait` seconds."""
    over = bisect.bisect_right(times, age)
    left = len(times) - over
    if not left:
        # It lasts longer than any did: it may end at any moment, and soon does.
        return 1.0 - math.exp(-wait / (LATE * times[-1])) if times[-1] else 1.0
    return (bisect.bisect_right(times, age + wait) - over) / left
