"""What a deployment can do: what its provider can, less what its model has not.

Few providers have the same for all models, so it is asked of the provider, by calls that carry one
argument each. Nothing is sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from router.config import Deployment
from router.operations import Call
from router.providers.base import OPTIONAL, Provider
from router.types import Operation

__all__ = ["abilities"]

_CLIP = ("clip.mp4", b"")
_NEEDED: Mapping[Operation, Mapping[str, Any]] = MappingProxyType(
    {
        Operation.CREATE_CHARACTER: {"upload": _CLIP},
        Operation.REMIX: {"ids": ("a",)},
    }
)
# A value of each argument that most can take; what is lacked as a whole is lacked with any.
_CARRIED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "seconds": {"seconds": "8"},
        "size": {"size": "1280x720"},
        "input_reference": {"reference": {"image_url": "https://a.example/a.png"}},
        "characters": {"ids": ("a",)},
        "video": {"upload": _CLIP},
        "variant": {"variant": "thumbnail"},
    }
)


def abilities(provider: Provider, deployment: Deployment) -> dict[Operation, frozenset[str]]:
    """The operations of a deployment, each with what it takes of `OPTIONAL`."""

    def lacks(operation: Operation, carried: Mapping[str, Any]) -> bool:
        call: Call[Any] = Call(operation=operation, **_NEEDED.get(operation, {}))
        carrying = dataclasses.replace(call, **carried)
        return any(lack.whole for lack in provider.lacks(carrying, deployment))

    return {
        operation: frozenset(
            argument
            for argument in provider.parameters[operation]
            if not lacks(operation, _CARRIED.get(argument, {}))
        )
        for operation in OPTIONAL
        if operation in deployment.operations and not lacks(operation, {})
    }
