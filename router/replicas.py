"""One character in several accounts.

The clip is opened once and read by all uploads at the same time; each copy is a call of its own,
bound to its account, under the same outcome table. The one id returned holds all copies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from router.engine import Engine
from router.errors import RouterError
from router.ids import Kind
from router.operations import MOST_COPIES, Call, Upload, opened
from router.trip import Side, Trip
from router.types import Character, Routing

__all__ = ["create_character"]


async def create_character(
    engine: Engine, call: Call[Character], side: Side, upload: Upload | None
) -> Character:
    """Create a character in the best `call.replicate` accounts. `upload`: its clip, where open.

    Returns it when one copy was made, with the failures in `.routing`. When none was, raises the
    last error, of those after which a copy may exist if there are such.
    """
    if call.replicate == 1:
        return await engine.run(call, side, upload=upload)
    trip = engine.trip(call, side)
    accounts = _best_accounts(engine, trip)
    if upload is not None:
        results = await _copies(engine, trip, accounts, upload)
    else:
        async with opened(call.upload, side.door, lambda: engine.left(trip)) as clip:
            results = await _copies(engine, trip, accounts, clip)
    made = [result for result in results if isinstance(result, Character)]
    failed = {a: r for a, r in zip(accounts, results, strict=True) if isinstance(r, RouterError)}
    if not made:
        raise max(reversed(failed.values()), key=lambda error: error.accepted == "maybe")
    return _joined(engine, trip, made, failed)


def _best_accounts(engine: Engine, trip: Trip) -> list[str]:
    accounts: list[str] = []
    wanted = trip.call.replicate or MOST_COPIES
    while len(accounts) < wanted:
        member = engine.choosing.choose(trip)
        if member is None:
            break
        accounts.append(member.deployment.account)
        trip.tried += trip.fleet.of_account(member.deployment.account)
    if not accounts:
        raise engine.choosing.nobody(trip)
    return accounts


async def _copies(
    engine: Engine, trip: Trip, accounts: Sequence[str], upload: Upload | None
) -> list[Character | RouterError]:
    # Once for all copies, whose own calls come from threads that are no caller's.
    trip.upload = upload
    await engine.advising.on(trip)
    copies = [_copy(engine, trip, account, upload) for account in accounts]
    return await trip.side.door.together(copies)


async def _copy(
    engine: Engine, trip: Trip, account: str, upload: Upload | None
) -> Character | RouterError:
    try:
        own = dataclasses.replace(
            trip.call, account=account, replicate=1, deadline=engine.left(trip)
        )
        return await engine.run(own, trip.side, upload=upload, part_of=trip)
    except RouterError as error:
        return error


def _joined(
    engine: Engine, trip: Trip, made: list[Character], failed: dict[str, RouterError]
) -> Character:
    assets = [trip.codec.decode(one.id, Kind.CHARACTER) for one in made]
    copies = [copy for asset in assets if asset is not None for copy in asset.copies]
    routings = [one.routing for one in made if one.routing is not None]
    tried = [attempt for routing in routings for attempt in routing.attempts]
    tried += [attempt for error in failed.values() for attempt in error.attempts]
    asked = len(made) + len(failed)
    fewer = asked < (trip.call.replicate or 0)
    note = f"only {asked} accounts could be asked for {trip.call.replicate} copies"
    character = made[0]
    character.id = trip.codec.encode(Kind.CHARACTER, copies)
    return character.with_routing(
        Routing(
            deployment=routings[0].deployment,
            account=routings[0].account,
            attempts=tuple(tried),
            seconds=engine.clock.monotonic() - trip.started,
            warnings=(*(trip.advice or ()), *((note,) if fewer else ())),
            copies=tuple(copy.account for copy in copies),
            failures={account: str(error) for account, error in failed.items()},
            metadata=trip.call.metadata,
        )
    )
