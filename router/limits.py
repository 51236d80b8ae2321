"""Which limits a call has to find room in, and when to come back where there is none.

Pure: what is held and by whom stands in the store. A limit of the deployment and one of its account
both apply; a submit needs room in requests per minute, in requests in flight and, if it starts a
job, in running jobs; a read in the first two.
"""

from __future__ import annotations

from router.config import JOB_TTL, Limits
from router.leases import Grant, Need
from router.types import Operation

__all__ = ["job_ttl", "needs", "retry_after", "share"]

USUAL_JOB_SECONDS = 60.0
"""What a job is taken to last before one has been seen to end."""
LEAST_WAIT = 0.1
LONGEST_WAIT = 300.0
FLIGHT_SECONDS = 1.0
"""A request in flight is over in about so long."""


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


def share(need: Need, workers: int) -> Need:
    """One worker's part of a limit, while the workers cannot ask each other."""
    return Need(need.resource, max(1, need.limit // max(workers, 1)))


def retry_after(grant: Grant, now: float, job_seconds: float | None) -> float:
    """Seconds after which trying again is likely to succeed.

    A window says to the moment when it has room. A running job is expected to end at the usual
    time, a late one at any moment; it is seen to have ended a little later, by whoever polls it.
    """
    usual = job_seconds or USUAL_JOB_SECONDS
    waits = []
    for resource, opens in grant.full:
        if opens is not None:
            waits.append(opens + LEAST_WAIT)
        elif resource.startswith("jobs:"):
            left = [usual - (now - accepted) for accepted in grant.holding]
            soonest = min(left, default=usual)
            waits.append(max(soonest, 0.1 * usual) * 1.1)
        else:
            waits.append(FLIGHT_SECONDS)
    return min(max(min(waits, default=LEAST_WAIT), LEAST_WAIT), LONGEST_WAIT)
