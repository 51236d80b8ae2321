"""Listings: all accounts in one order, page by page behind an opaque cursor."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from routing_parts import (
    THREE,
    Doors,
    FakeClock,
    account_of,
    deployment,
    picks,
    serving,
)

from router import InternalServerError, InvalidIdError, Router, RouterError
from router.testing import StandIn


def filled(
    call: Doors, clock: FakeClock, counts: dict[str, int], **parts: Any
) -> tuple[StandIn, Router, list[str]]:
    """Accounts with so many videos each, one second apart, taking turns; newest id last."""
    provider = StandIn(accounts={f"sk-{a}": a for a in THREE}, clock=clock, seed=7)
    told = [deployment(f"{account}-1") for account in THREE]
    router = serving(provider, *told, clock=clock, **parts)
    turns = itertools.zip_longest(*([account] * count for account, count in counts.items()))
    made = []
    for account in itertools.chain.from_iterable(turns):
        if account is not None:
            clock.advance(1)
            made.append(call(router, "video_generation", prompt="x", account=account).id)
    return provider, router, made


def pages(call: Doors, router: Router, **arguments: Any) -> list[Any]:
    """All pages, by following the cursor."""
    found = [call(router, "video_list", **arguments)]
    while found[-1].has_more:
        assert len(found) < 50
        found.append(call(router, "video_list", after=found[-1].last_id, **arguments))
    return found


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize(
    "counts",
    [
        {"east": 4, "west": 4, "north": 4},
        {"east": 9, "west": 1, "north": 0},
        {"east": 0, "west": 6, "north": 3},
        {"east": 0, "west": 0, "north": 0},
    ],
    ids=lambda counts: "-".join(map(str, counts.values())),
)
def test_paging_meets_every_video_once_and_in_order(
    call: Doors, clock: FakeClock, counts: dict[str, int], limit: int, order: str
) -> None:
    _, router, made = filled(call, clock, counts)
    expected = made if order == "asc" else made[::-1]
    found = pages(call, router, limit=limit, order=order)
    assert [video.id for page in found for video in page.data] == expected
    assert all(len(page.data) == limit for page in found[:-1])
    assert all(page.data for page in found) or not made
    assert found[-1].has_more is False


def test_the_newest_come_first_and_twenty_at_a_time_unless_asked(
    call: Doors, clock: FakeClock
) -> None:
    _, router, made = filled(call, clock, {"east": 15, "west": 15})
    page = call(router, "video_list")
    assert [video.id for video in page.data] == made[:-21:-1]
    assert page.first_id == made[-1]
    assert page.has_more
    assert page.object == "list"


def test_each_account_is_asked_once_and_not_after_its_end(call: Doors, clock: FakeClock) -> None:
    provider, router, _ = filled(call, clock, {"east": 6, "west": 1, "north": 0})
    sent = len(provider.requests)
    first = call(router, "video_list", limit=3)
    assert sorted(picks(provider.requests[sent:])) == sorted(THREE)
    sent = len(provider.requests)
    call(router, "video_list", limit=3, after=first.last_id)
    asked = picks(provider.requests[sent:])
    assert "north" not in asked  # it had ended
    assert len(asked) == len(set(asked))


def test_videos_made_meanwhile_do_not_disturb_a_listing(call: Doors, clock: FakeClock) -> None:
    _, router, made = filled(call, clock, {"east": 3, "west": 3})
    first = call(router, "video_list", limit=2)
    clock.advance(1)
    call(router, "video_generation", prompt="late", account="east")
    rest = call(router, "video_list", limit=100, after=first.last_id)
    listed = [video.id for page in (first, rest) for video in page.data]
    assert listed == made[::-1]


def test_the_cursor_is_opaque_and_not_a_video(call: Doors, clock: FakeClock) -> None:
    provider, router, made = filled(call, clock, {"east": 3, "west": 3})
    cursor = call(router, "video_list", limit=2).last_id
    assert cursor not in made
    sent = len(provider.requests)
    for wrong in (cursor[:-1], cursor + "A", made[0], "video_1", "page_vr1", ""):
        with pytest.raises(RouterError):
            call(router, "video_list", after=wrong)
    with pytest.raises(InvalidIdError):
        call(router, "video_list", after=cursor.swapcase())
    assert len(provider.requests) == sent


def test_a_listing_names_the_accounts_that_did_not_answer(call: Doors, clock: FakeClock) -> None:
    provider, router, made = filled(call, clock, {"east": 3, "west": 3}, settings={"retries": 0})
    provider.fault("status", status=500, account="west", times=1, operation="list")
    page = call(router, "video_list")
    assert set(page.routing.failures) == {"west"}
    assert [video.id for video in page.data] == [
        one for one in made[::-1] if account_of(router, one) == "east"
    ]


def test_an_account_that_failed_goes_on_where_it_stood(call: Doors, clock: FakeClock) -> None:
    """Nothing is lost: what its failure kept back comes with a later page."""
    provider, router, made = filled(call, clock, {"east": 4, "west": 4}, settings={"retries": 0})
    first = call(router, "video_list", limit=2)
    provider.fault("status", status=500, account="west", times=1, operation="list")
    second = call(router, "video_list", limit=2, after=first.last_id)
    assert second.routing.failures
    third = call(router, "video_list", limit=100, after=second.last_id)
    listed = [video.id for page in (first, second, third) for video in page.data]
    assert sorted(listed) == sorted(made)


def test_an_account_that_failed_is_still_to_be_listed(call: Doors, clock: FakeClock) -> None:
    provider, router, made = filled(call, clock, {"east": 1, "west": 2}, settings={"retries": 0})
    provider.fault("status", status=500, account="west", times=1, operation="list")
    first = call(router, "video_list", limit=20)
    assert first.routing.failures
    assert first.has_more  # a caller who stops here would miss the videos of west
    second = call(router, "video_list", limit=20, after=first.last_id)
    assert sorted(v.id for page in (first, second) for v in page.data) == sorted(made)


def test_a_listing_that_nobody_answers_raises(call: Doors, clock: FakeClock) -> None:
    provider, router, _ = filled(call, clock, {"east": 1}, settings={"retries": 0})
    provider.fault("status", status=500, times=None, operation="list")
    with pytest.raises(InternalServerError):
        call(router, "video_list")


def test_a_listing_keeps_to_what_was_named(call: Doors, clock: FakeClock) -> None:
    provider = StandIn(accounts={f"sk-{a}": a for a in THREE}, clock=clock, seed=7)
    router = serving(
        provider,
        deployment("east-1", model_name="fast"),
        deployment("west-1", model_name="good"),
        deployment("north-1", model_name="good", provider="azure"),
    )
    for named, accounts in (
        ({"model": "fast"}, {"east"}),
        ({"model": "good"}, {"west", "north"}),
        ({"target_model_names": "fast,good"}, set(THREE)),
        ({"account": "north"}, {"north"}),
        ({"model": "good", "custom_llm_provider": "azure"}, {"north"}),
    ):
        sent = len(provider.requests)
        call(router, "video_list", **named)
        assert set(picks(provider.requests[sent:])) == accounts


def test_the_limit_and_order_go_over_the_wire(call: Doors, clock: FakeClock) -> None:
    provider, router, made = filled(call, clock, {"east": 4})
    page = call(router, "video_list", limit=2, order="asc", account="east")
    assert provider.requests[-1].query == {"limit": "2", "order": "asc"}
    call(router, "video_list", limit=2, order="asc", account="east", after=page.last_id)
    query = dict(provider.requests[-1].query)
    assert query.pop("after") == router.describe_id(made[1]).copies[0].native_id
    assert query == {"limit": "2", "order": "asc"}


def test_the_routing_of_a_page_tells_all_exchanges(call: Doors, clock: FakeClock) -> None:
    _, router, _ = filled(call, clock, {"east": 1})
    routing = call(router, "video_list").routing
    assert {attempt.account for attempt in routing.attempts} == set(THREE)
    assert routing.failures == {}
