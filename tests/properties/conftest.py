"""How many examples the properties are asked with, and that every run asks the same ones.

A run of the whole suite takes `quick`: few examples, the same each time, so that a failure is news
about the change and not about the day. Who wants to dig takes `thorough`: twenty times as many,
other ones each time, each failure printed with the line that reproduces it.

    HYPOTHESIS_PROFILE=thorough pytest tests/properties
    pytest tests/properties --hypothesis-profile=thorough
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

QUICK = 60

settings.register_profile(
    "quick",
    max_examples=QUICK,
    derandomize=True,
    database=None,
    # A slow machine is no failure; no test here has a stopwatch.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough",
    parent=settings.get_profile("quick"),
    max_examples=20 * QUICK,
    derandomize=False,
    print_blob=True,
)


def pytest_configure(config: pytest.Config) -> None:
    # What hypothesis reads out of the sources is a cache like pytest's own.
    set_hypothesis_home_dir(config.rootpath / ".pytest_cache" / "hypothesis")
    # Run from the top, this file is read after the option was obeyed, and must not undo it.
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
