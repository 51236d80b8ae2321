"""A website in Debian's chromium, and a proxy without keys on this machine: it starts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser, lacking
from proxy_parts import routed, served
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from router.proxy import application
from router.proxy.gate import Gate
from router.testing import StandIn

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(lacking() is not None, reason=lacking() or ""),
]

BOARD = "!document.getElementById('board').hidden"
# All that a page may send without being asked by the browser whether the other side agrees.
FETCHES = """
const [address] = arguments;
const kinds = ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data;boundary=B"];
const sent = kinds.map((kind) => fetch(`${address}/v1/videos`, {
  method: "POST", mode: "no-cors", credentials: "include", headers: {"content-type": kind},
  body: kind.startsWith("multipart")
    ? '--B\\r\\ncontent-disposition: form-data; name="prompt"\\r\\n\\r\\nx\\r\\n--B--\\r\\n'
    : "prompt=x",
}));
sent.push(fetch(`${address}/v1/videos`, {mode: "no-cors"}));
sent.push(fetch(`${address}/v1/videos`, {
  method: "POST", headers: {"content-type": "application/json"}, body: '{"prompt": "x"}',
}));
window.ended = 0;
sent.forEach((one) => one.catch(() => null).then(() => { window.ended += 1; }));
navigator.sendBeacon(`${address}/v1/videos`, new URLSearchParams({prompt: "x"}));
new Image().src = `${address}/v1/videos`;
"""
FORM = """
const form = document.createElement("form");
form.action = `${arguments[0]}/v1/videos`; form.method = "POST";
form.innerHTML = '<input name="prompt" value="x">';
document.body.append(form); form.submit();
"""


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as window:
        yield window


@pytest.fixture
def address(provider: StandIn) -> Iterator[str]:
    """A proxy without keys, behind what `serve` puts in front of it."""
    with routed(provider) as router:
        app = application(router, router.config.proxy)
        gate = Gate(app.state.access, app.state.readiness)
        app.user_middleware.append(Middleware(gate.before))
        with served(app) as address:
            yield address


@pytest.fixture
def website() -> Iterator[str]:
    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>elsewhere</title><body>")

    with served(Starlette(routes=[Route("/", page)])) as address:
        yield address.replace("127.0.0.1", "elsewhere.localhost")


def test_a_website_starts_no_job_and_asks_no_provider(
    provider: StandIn, address: str, website: str, window: Browser
) -> None:
    window.go(website)
    window.run(FETCHES, address)
    window.until("window.ended === 5")
    window.run(FORM, address)
    window.until("document.body.innerText.includes('not_from_here')")

    assert provider.requests == []


def test_a_name_that_leads_here_is_no_name_of_ours(
    provider: StandIn, address: str, window: Browser
) -> None:
    window.go(address.replace("127.0.0.1", "elsewhere.localhost"))

    assert "not_from_here" in window.text("body")
    assert provider.requests == []


def test_our_own_page_is_served_also_where_a_website_links_to_it(
    address: str, website: str, window: Browser
) -> None:
    window.go(address)
    window.until(BOARD)
    window.go(website)
    window.run("location.href = arguments[0]", f"{address}/")
    window.until(f"document.getElementById('board') && {BOARD}")
