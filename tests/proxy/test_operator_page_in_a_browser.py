"""The operators' page in Debian's chromium: what an operator sees, live, and whom the page asks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser, browser, lacking
from proxy_parts import served
from shared_parts import fleet

from router import Router
from router.proxy import application
from router.proxy.console import Console
from router.testing import StandIn

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(lacking() is not None, reason=lacking() or ""),
]

SECRET = "a-secret-for-signing-ids"
KEYS = [{"name": "web", "key": "pk-web"}, {"name": "ops", "key": "pk-ops", "operator": True}]
ACCOUNTS = {"sk-east": "east", "sk-west": "west"}
BOARD = "!document.getElementById('board').hidden"


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn(accounts=ACCOUNTS, seed=7) as stand_in:
        yield stand_in


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as window:
        yield window


@contextlib.contextmanager
def serving(stand_in: StandIn, **more: Any) -> Iterator[tuple[str, Router]]:
    """The proxy over two deployments of the stand-in; its address, and the router."""
    data = fleet(
        stand_in.base_url, max_parallel_jobs=2, rpm=50, cost_per_second=0.1, **more.pop("each", {})
    )
    console = Console(sample_seconds=0.5)
    with Router.from_dict({**data, **more}, environ={}, on_event=console) as router:
        app = application(router, router.config.proxy, console)
        with served(app) as address:
            yield address, router


def with_keys() -> dict[str, Any]:
    return {"settings": {"id_secrets": [SECRET]}, "proxy": {"keys": KEYS}}


def make(address: str, key: str | None = None, **body: Any) -> str:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    said = {"prompt": "A heron lands", "model": "sora-2", "seconds": "4", **body}
    with httpx.Client(trust_env=False, headers=headers) as client:
        answer = client.post(f"{address}/v1/videos", json=said)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["id"]
    return found


def sign_in(window: Browser, address: str, key: str) -> None:
    window.go(address)
    window.until("!document.getElementById('sign-in').hidden")
    window.type("#key", key)
    window.click("button[type=submit]")


def complaints(window: Browser) -> list[str]:
    """What stands on the console, but for answers 401 and 403, which the browser notes there."""
    said = [one["message"] for one in window.messages()]
    return [one for one in said if "status of 401" not in one and "status of 403" not in one]


def test_the_fleet_is_shown_to_who_signs_in_with_an_operators_key_and_to_nobody_else(
    stand_in: StandIn, window: Browser
) -> None:
    with serving(stand_in, **with_keys()) as (address, _):
        sign_in(window, address, "pk-wrong")
        window.until("document.getElementById('refusal').textContent.includes('not known')")
        assert "east" not in window.run("return document.documentElement.outerHTML")
        window.type("#key", "pk-web")
        window.click("button[type=submit]")
        window.until("document.getElementById('refusal').textContent.includes('operator')")
        window.type("#key", "pk-ops")
        window.click("button[type=submit]")
        window.until(BOARD)
        assert window.run("return location.href") == f"{address}/"
        assert "pk-ops" not in window.run("return document.documentElement.outerHTML")
        assert window.run("return [document.cookie, localStorage.length]") == ["", 0]
        rows = window.run(
            "return [...document.querySelectorAll('tr[data-id]')].map(e => e.dataset.id)"
        )
        assert rows == ["east-1", "west-1"]
        # A tab that is loaded again is still signed in; one that was signed out is not.
        window.go(address)
        window.until(BOARD)
        window.click("#sign-out")
        window.until("!document.getElementById('sign-in').hidden")
        assert window.run("return sessionStorage.length") == 0
        assert "east-1" not in window.run("return document.documentElement.outerHTML")
        assert complaints(window) == []
        assert window.hosts() == {address.removeprefix("http://")}


def test_what_happens_is_seen_without_loading_the_page_again(
    stand_in: StandIn, window: Browser
) -> None:
    with serving(stand_in, **with_keys()) as (address, router):
        router.drain("west-1", 600)
        sign_in(window, address, "pk-ops")
        window.until(BOARD)
        window.run("window.unloaded = 'no'")
        assert "No call has come yet" in window.text("#no-picks")
        assert "nothing yet" in window.text("tr[data-id=east-1]")

        # Running jobs against their cap, and the pick with why the other was none.
        stand_in.fault("never_ends", times=None)
        make(address, "pk-web")
        window.until("document.querySelector('tr[data-id=east-1]').innerText.includes('1 of 2')")
        make(address, "pk-web")
        window.until("document.querySelector('tr[data-id=east-1] [data-full=true]')")
        window.until("document.querySelectorAll('#picks > li').length === 2")
        assert "→ east-1" in window.text("#picks > li")
        assert "accepted in" in window.text("#picks > li")
        window.click("#picks summary")
        candidates = window.text("#picks .candidates")
        assert "picked" in candidates
        assert "west-1\tdrained\tdrained by an operator" in candidates
        assert window.text("#tile-jobs") == "2 of 4"
        assert window.text("#tile-money") == "$0.80"

        # An ejection, with its reason and its deadline.
        router.restore("west-1")
        window.until("document.querySelector('tr[data-id=west-1] .badge').innerText === 'up'")
        body = {"error": {"message": "Slow <b>down</b>", "type": "requests", "code": None}}
        stand_in.fault(
            "status", account="west", status=429, body=body, headers={"retry-after": "90"}
        )
        with contextlib.suppress(AssertionError):
            make(address, "pk-web")
        window.until("document.querySelector('tr[data-id=west-1] .badge').innerText !== 'up'")
        row = window.text("tr[data-id=west-1]")
        assert "no submits until" in row
        assert "429" in row
        assert "Slow <b>down</b>" in row
        assert "out for submits" in window.text("#changes")
        assert window.run("return document.querySelectorAll('#content b').length") == 0
        # What was opened stays open while the list grows.
        window.until("document.querySelectorAll('#picks > li').length === 3")
        assert "drained by an operator" in window.text("#picks details[open]")
        assert window.run("return document.querySelectorAll('#picks details[open]').length") == 1

        window.until("document.querySelector('tr[data-id=east-1] svg path.stroke')")
        assert window.run("return window.unloaded") == "no"
        assert complaints(window) == []
        assert window.hosts() == {address.removeprefix("http://")}


def test_a_lost_connection_is_told_and_found_again(stand_in: StandIn, window: Browser) -> None:
    with serving(stand_in) as (address, _):
        window.go(address)
        window.until(BOARD)
        assert window.text("#live") == "live"
        window.offline(True)
        window.until("document.getElementById('live').dataset.tone === 'out'")
        assert "connection is lost" in window.text("#trouble")
        assert "east-1" in window.text("#deployments")
        window.offline(False)
        window.until("document.getElementById('live').dataset.tone === 'up'")
        assert window.run("return document.getElementById('trouble').hidden")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_thirty_deployments_can_be_read_at_any_width_by_day_and_by_night(
    window: Browser, width: int, dark: bool
) -> None:
    names = [f"account-with-a-long-name-{number}" for number in range(30)]
    accounts = {f"sk-{name}": name for name in names}
    with StandIn(accounts=accounts, seed=7) as stand_in:
        data = fleet(stand_in.base_url, *names, max_parallel_jobs=2)
        console = Console()
        with Router.from_dict(data, environ={}, on_event=console) as router:
            router.drain(f"{names[3]}-1")
            with served(application(router, router.config.proxy, console)) as address:
                make(address)
                window.look(width, 900, dark=dark)
                window.go(address)
                window.until("document.querySelectorAll('tr[data-id]').length === 30")
                # Nothing sticks out to the side.
                assert window.run("return document.documentElement.scrollWidth") == width
                page = window.run("return getComputedStyle(document.body).backgroundColor")
                brightness = sum(int(part) for part in page[4:-1].split(", ")) / 3
                assert (brightness < 60) if dark else (brightness > 200)
                window.click("#only-out")
                window.until("document.querySelectorAll('tr[data-id]').length === 1")
                assert "drained by an operator" in window.text("#deployments")
                window.click("#only-out")
                window.type("#filter", "name-2")
                window.until("document.querySelectorAll('tr[data-id]').length === 11")
                assert complaints(window) == []
