"""Debian's chromium, without a window, driven through its chromedriver: WebDriver over httpx."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

__all__ = ["Browser", "browser", "lacking"]

COMMANDS = ("chromium", "chromedriver")
# Nothing of the browser's own may reach for the network, or what it finds on this machine.
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-proxy-server",
    "--window-size=1400,1000",
]
PATIENCE_SECONDS = 30.0


def lacking() -> str | None:
    """Which of the commands this machine has not; `None` where it has them."""
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    return f"no {' and no '.join(missing)} on this machine" if missing else None


class Browser:
    """One window of a browser. What a page did is read from its logs."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._session = f"/session/{session}"

    def go(self, url: str) -> None:
        self._post("url", url=url)

    def run(self, script: str, *args: object) -> Any:
        """The value of a function body in the page."""
        return self._post("execute/sync", script=script, args=list(args))

    def until(self, script: str, *args: object) -> Any:
        """The value of an expression, once it is true."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not (found := self.run(f"return {script}", *args)):
            assert time.monotonic() < until, f"{script} never came true; {self.text('body')[:1500]}"
            time.sleep(0.1)
        return found

    def text(self, css: str) -> str:
        """What a reader sees of the first element that matches; nothing where none does."""
        found = self.run(
            "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", css
        )
        return str(found)

    def type(self, css: str, text: str) -> None:
        element = self._element(css)
        self._post(f"element/{element}/clear")
        self._post(f"element/{element}/value", text=text)

    def click(self, css: str) -> None:
        self._post(f"element/{self._element(css)}/click")

    def messages(self) -> list[dict[str, Any]]:
        """What came on the console since it was asked last, violations of the policy included."""
        return list(self._post("se/log", type="browser"))

    def hosts(self) -> set[str]:
        """The hosts that were asked for anything since it was asked last."""
        told = (json.loads(line["message"]) for line in self._post("se/log", type="performance"))
        urls = (
            one["message"]["params"]["request"]["url"]
            for one in told
            if one["message"]["method"] == "Network.requestWillBeSent"
        )
        asked = map(urlsplit, urls)
        # What the browser takes from itself, such as its first empty page, is on no network.
        return {url.netloc for url in asked if url.scheme in ("http", "https", "ws", "wss")}

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show pages at this size, and in this mode."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        mode = "dark" if dark else "light"
        # Else a picture of the whole page lacks what stands beside the bar.
        self._devtools("Emulation.setScrollbarsHidden", hidden=True)
        feature = {"name": "prefers-color-scheme", "value": mode}
        self._devtools("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, path: Path) -> None:
        """A picture of the whole page, as a PNG."""
        taken = self._devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def offline(self, off: bool) -> None:
        """Take the network away from the page, or give it back."""
        self._devtools("Network.enable")
        self._devtools(
            "Network.emulateNetworkConditions",
            offline=off,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def _element(self, css: str) -> str:
        found: dict[str, str] = self._post("element", using="css selector", value=css)
        return next(iter(found.values()))

    def _devtools(self, command: str, **params: object) -> Any:
        return self._post("goog/cdp/execute", cmd=command, params=params)

    def _post(self, path: str, **body: object) -> Any:
        answer = self._client.post(f"{self._session}/{path}", json=body).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `folder`; it ends with the context."""
    with _driver(folder) as client:
        options = {"args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()
        assert "sessionId" in made["value"], made
        session = made["value"]["sessionId"]
        try:
            yield Browser(client, session)
        finally:
            client.delete(f"/session/{session}")


@contextlib.contextmanager
def _driver(folder: Path) -> Iterator[httpx.Client]:
    process, address = _started(folder / "chromedriver.log")
    with process:
        try:
            with httpx.Client(base_url=address, timeout=60.0, trust_env=False) as client:
                yield client
        finally:
            process.terminate()
            process.wait(20)


def _started(log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A driver that listens. It asks IPv4 for the port that IPv6 gave it, which may be taken."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        with log.open("wb") as out:
            process = subprocess.Popen(["chromedriver", "--port=0"], stdout=out, stderr=out)
        while process.poll() is None and time.monotonic() < until:
            said = log.read_text(errors="replace")
            found = re.search(r"started successfully on port (\d+)", said)
            if found:
                return process, f"http://127.0.0.1:{found[1]}"
            time.sleep(0.05)
        process.kill()
        process.wait(20)
        assert time.monotonic() < until, log.read_text(errors="replace")
