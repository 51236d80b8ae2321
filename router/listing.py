"""One page of videos over several accounts.

Each account is asked for a full page from where the listing stands there, since the page may come
from one of them alone; the merged page takes what is due, and its cursor notes how far each account
has been read.

An account lists everybody's videos. A tenant is shown what is known to be its own: what was
accepted for it in the last day. So little of a page may be that further ones are asked for, until
one is full or nothing of its own can follow; where many others are busy a page may come out short,
or empty, and say `has_more` all the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

from router.engine import Engine
from router.errors import RouterError
from router.ids import Copy, Kind
from router.operations import Call
from router.trip import Side, Trip
from router.types import Routing, Video, VideoPage

__all__ = ["list_videos"]

MOST_PAGES = 10
"""Of each account, in one call for a tenant."""
LONGEST_PAGE = 100
SKEW_SECONDS = 120.0
"""How far a provider's clock may be off ours."""

Own: TypeAlias = Mapping[Copy, float]
"""What was accepted for a tenant, and when, in Unix seconds."""


async def list_videos(engine: Engine, call: Call[VideoPage], side: Side) -> VideoPage:
    """A page of all accounts among the candidates; accounts that failed stand in `.routing`.

    Raises the last error when no account answered.
    """
    tenant = call.tenant
    if tenant is None or not engine.fleet.codec.signs:
        return await _one_page(engine, call, side)
    own = await side.door.offload(engine.leasing.made_for, tenant.name)
    found: list[Video] = []
    page = await _one_page(engine, call, side, own)
    for _ in range(MOST_PAGES - 1):
        found += page.data
        missing, failed = call.limit - len(found), page.routing and page.routing.failures
        if not page.has_more or not missing or failed:
            break
        more = dataclasses.replace(call, after=page.last_id, limit=missing)
        page = await _one_page(engine, more, side, own)
    else:
        found += page.data
    page.data, page.first_id = found, found[0].id if found else None
    return page


async def _one_page(
    engine: Engine, call: Call[VideoPage], side: Side, own: Own | None = None
) -> VideoPage:
    trip = engine.trip(call, side)
    candidates = trip.fleet.candidates(trip.route)
    ended = {a for a, position in trip.owned.natives.items() if not position}
    accounts = sorted({m.deployment.account for m in candidates} - ended)
    if own is not None:
        accounts = [a for a in accounts if any(a == copy.account for copy in own)]
        call = dataclasses.replace(call, limit=LONGEST_PAGE)
    results = await side.door.together([_page(engine, call, side, a) for a in accounts])
    answered = dict(zip(accounts, results, strict=True))
    pages = {a: r for a, r in answered.items() if isinstance(r, VideoPage)}
    failed = {a: r for a, r in answered.items() if isinstance(r, RouterError)}
    if failed and not pages:
        raise list(failed.values())[-1]
    page = _merged(trip, pages, own)
    # An account that failed is still to be listed, from where it was.
    page.has_more = page.has_more or bool(failed)
    routings = [p.routing for p in pages.values() if p.routing is not None]
    return page.with_routing(
        Routing(
            deployment=", ".join(routing.deployment for routing in routings),
            account=", ".join(pages),
            attempts=tuple(attempt for routing in routings for attempt in routing.attempts),
            seconds=engine.clock.monotonic() - trip.started,
            failures={account: str(error) for account, error in failed.items()},
            metadata=call.metadata,
        )
    )


async def _page(
    engine: Engine, call: Call[VideoPage], side: Side, account: str
) -> VideoPage | RouterError:
    try:
        return await engine.run(dataclasses.replace(call, account=account), side)
    except RouterError as error:
        return error


def _merged(trip: Trip, pages: Mapping[str, VideoPage], own: Own | None) -> VideoPage:
    call, codec, positions = trip.call, trip.codec, trip.owned.natives
    natives = {
        video.id: asset.copies[0]
        for page in pages.values()
        for video in page.data
        if (asset := codec.decode(video.id, Kind.VIDEO)) is not None
    }
    listed = [
        (account, video)
        for account, page in pages.items()
        for video in page.data
        if own is None or natives.get(video.id) in own
    ]
    listed.sort(key=lambda item: _created(item[1]), reverse=call.order == "desc")
    due = listed[: call.limit]
    reached = dict(positions)
    undue = {account for account, _ in listed[call.limit :]}
    # What is not shown was read all the same, up to the end of the page.
    read = [(a, page.data[-1]) for a, page in pages.items() if page.data and a not in undue]
    for account, video in (*due, *read):
        if video.id in natives:
            reached[account] = (natives[video.id].native_id,)
    goes_on = {a for a, page in pages.items() if page.has_more and page.data}
    if own is not None:
        goes_on -= {a for a in goes_on if _is_beyond(own, a, pages[a].data[-1], call.order)}
    left = undue | goes_on
    for account in pages.keys() - left:
        reached[account] = ()
    cursor = [Copy(account, at[0] if at else "") for account, at in reached.items()]
    return VideoPage(
        data=[video for _, video in due],
        first_id=due[0][1].id if due else None,
        last_id=codec.encode(Kind.PAGE, cursor) if cursor else None,
        has_more=bool(left),
    )


def _is_beyond(own: Own, account: str, last: Video, order: str) -> bool:
    """Whether nothing of the tenant's own can come after a video in its account's list."""
    times = [at for copy, at in own.items() if copy.account == account]
    if last.created_at is None:
        return False
    if order == "desc":
        return float(last.created_at) < min(times) - SKEW_SECONDS
    return float(last.created_at) > max(times) + SKEW_SECONDS


def _created(video: Video) -> float:
    return video.created_at or 0.0
