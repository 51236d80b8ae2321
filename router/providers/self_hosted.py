"""Servers of one's own that speak a part of OpenAI's dialect: vLLM-Omni and SGLang.

Both make a video with one model at a time, keep what they made themselves, and have five of the ten
routes: create, get, list, content and delete. They count seconds in whole ones, and know neither
characters nor edits.

vLLM-Omni (its package 0.30.0, `entrypoints/openai/api_server.py` and `protocol/videos.py`; its
page "Videos API"): forms only. An image by URL is a field of its own, `image_reference`, which
holds JSON; file ids are accepted and not implemented. To ask after a job that failed is answered
with the status of its failure, and with the job. Deleting a running job stops it.
`/v1/videos/sync` answers with the video in place of a job, which could be lost on the way with all
that was computed: it is not used.

SGLang (its package 0.5.23, `multimodal_gen/runtime/entrypoints/openai/video_api.py`; its page
"OpenAI API"): JSON, and forms for a file; older versions refuse a form without one. An image by URL
is `reference_url`. Deleting a running job forgets it, and does not stop it.
"""

from __future__ import annotations

import json

from router.providers.openai import OpenAIDialect, Subset
from router.types import Operation

__all__ = ["SGLANG", "VLLM_OMNI"]

_FIVE = frozenset(
    {
        Operation.GENERATION,
        Operation.STATUS,
        Operation.CONTENT,
        Operation.LIST,
        Operation.DELETE,
    }
)

VLLM_OMNI = OpenAIDialect(
    subset=Subset(
        "vllm-omni",
        _FIVE,
        image=lambda url: {"image_reference": json.dumps({"image_url": url})},
        form=True,
        tells_failures=True,
        user=True,
    )
)

SGLANG = OpenAIDialect(
    subset=Subset("sglang", _FIVE, image=lambda url: {"reference_url": url}),
)
