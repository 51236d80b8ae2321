"""The providers: what each can do, and how it is said on its wire.

Adding one is a file with a class of five methods, and a line here. A preset is a line only: the
same dialect with another address or header, or the part of it that a server speaks.
"""

from router.providers.abilities import abilities
from router.providers.base import OPTIONAL, Bound, Lack, Provider, without
from router.providers.fal import Fal
from router.providers.gemini import Gemini
from router.providers.openai import OpenAIDialect
from router.providers.openrouter import OpenRouter
from router.providers.runwayml import RunwayML
from router.providers.self_hosted import SGLANG, VLLM_OMNI
from router.providers.xai import XAI

__all__ = ["OPTIONAL", "PROVIDERS", "Bound", "Lack", "Provider", "abilities", "without"]

PROVIDERS: dict[str, Provider] = {
    "openai": OpenAIDialect(),
    "azure": OpenAIDialect(key_header="api-key", root="/openai/v1"),
    "vllm-omni": VLLM_OMNI,
    "sglang": SGLANG,
    "openrouter": OpenRouter(),
    "runwayml": RunwayML(),
    "gemini": Gemini(),
    "fal": Fal(),
    "xai": XAI(),
}
