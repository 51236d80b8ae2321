"""The providers: what each can do, and how it is said on its wire.

Adding one is a file with a class of four methods, and a line here. A preset is a line only: the
same dialect with another address or header.
"""

from router.providers.base import Bound, Provider
from router.providers.openai import OpenAIDialect
from router.providers.runwayml import RunwayML

__all__ = ["PROVIDERS", "Bound", "Provider"]

PROVIDERS: dict[str, Provider] = {
    "openai": OpenAIDialect(),
    "azure": OpenAIDialect(key_header="api-key", root="/openai/v1"),
    "runwayml": RunwayML(),
}
