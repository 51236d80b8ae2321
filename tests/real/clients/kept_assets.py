"""A plugin for pytest: before each test a stand-in has what the test names by a fixed id.

`KEPT_ASSETS` lists the addresses of its control door that put them there, with commas. Loaded by
`-p kept_assets` in the Python of a client's own tests, so it needs nothing but pytest.
"""

from __future__ import annotations

import os
import urllib.request

import pytest


@pytest.fixture(autouse=True)
def kept_assets() -> None:
    for address in os.environ["KEPT_ASSETS"].split(","):
        with urllib.request.urlopen(urllib.request.Request(address, method="PUT")):
            pass
