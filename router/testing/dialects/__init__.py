"""The vendors' languages the stand-in speaks, all on one server.

To add one: write its file, and its line here.
"""

from __future__ import annotations

from router.testing.dialects import openai, runwayml
from router.testing.dialects.dialect import Dialect

__all__ = ["DIALECTS"]

DIALECTS: tuple[Dialect, ...] = (
    openai.DIALECT,
    runwayml.DIALECT,
)
"""The first one also answers for addresses that belong to none."""
