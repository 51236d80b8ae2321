"""One page of videos over several accounts.

Each account is asked for a full page from where the listing stands there, since the page may come
from one of them alone; the merged page takes what is due, and its cursor notes how far each account
has been read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from router.engine import Engine
from router.errors import RouterError
from router.ids import Copy, Kind
from router.operations import Call
from router.trip import Side
from router.types import Routing, Video, VideoPage

__all__ = ["list_videos"]


async def list_videos(engine: Engine, call: Call[VideoPage], side: Side) -> VideoPage:
    """A page of all accounts among the candidates; accounts that failed stand in `.routing`.

    Raises the last error when no account answered.
    """
    trip = engine.trip(call, side)
    candidates = trip.fleet.candidates(trip.route)
    ended = {a for a, position in trip.owned.natives.items() if not position}
    accounts = sorted({m.deployment.account for m in candidates} - ended)
    results = await side.door.together([_page(engine, call, side, a) for a in accounts])
    answered = dict(zip(accounts, results, strict=True))
    pages = {a: r for a, r in answered.items() if isinstance(r, VideoPage)}
    failed = {a: r for a, r in answered.items() if isinstance(r, RouterError)}
    if failed and not pages:
        raise list(failed.values())[-1]
    page = _merged(engine, call, pages, trip.owned.natives)
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


def _merged(
    engine: Engine,
    call: Call[VideoPage],
    pages: Mapping[str, VideoPage],
    positions: Mapping[str, tuple[str, ...]],
) -> VideoPage:
    listed = [(account, video) for account, page in pages.items() for video in page.data]
    listed.sort(key=lambda item: _created(item[1]), reverse=call.order == "desc")
    due = listed[: call.limit]
    reached = dict(positions)
    for account, video in due:
        asset = engine.fleet.codec.decode(video.id, Kind.VIDEO)
        if asset is not None:
            reached[account] = (asset.native_in(account),)
    left = {account for account, _ in listed[call.limit :]}
    left |= {account for account, page in pages.items() if page.has_more and page.data}
    for account in pages.keys() - left:
        reached[account] = ()
    cursor = [Copy(account, at[0] if at else "") for account, at in reached.items()]
    return VideoPage(
        data=[video for _, video in due],
        first_id=due[0][1].id if due else None,
        last_id=engine.fleet.codec.encode(Kind.PAGE, cursor) if cursor else None,
        has_more=bool(left),
    )


def _created(video: Video) -> float:
    return video.created_at or 0.0
