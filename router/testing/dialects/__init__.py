"""The vendors' languages the stand-in speaks, all on one server.

To add one: write its file, and its line here.
"""

from __future__ import annotations

from router.testing.dialects import fal, gemini, openai, openrouter, runwayml, self_hosted, xai
from router.testing.dialects.dialect import Dialect

__all__ = ["DIALECTS"]

DIALECTS: tuple[Dialect, ...] = (
    openai.DIALECT,
    runwayml.DIALECT,
    self_hosted.VLLM_OMNI,
    self_hosted.SGLANG,
    openrouter.DIALECT,
    gemini.DIALECT,
    fal.DIALECT,
    xai.DIALECT,
)
"""The first one also answers for addresses that belong to none."""
