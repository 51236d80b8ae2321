"""What the proxy is told by the configuration: who may call it, and how much it takes in.

Of a key only the digest is kept: whoever reads this process's memory, or a repr, cannot call.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pydantic import SecretStr

from router.tenants import Tenant

__all__ = ["BODY_TIMEOUT", "MAX_BODY", "ProxyKey", "ProxySettings", "digest_of_key"]

MAX_BODY = 1 << 30
BODY_TIMEOUT = 60.0


def digest_of_key(key: str) -> str:
    """What stands in the configuration for a key: its SHA-256, in hexadecimal digits.

    Keys are long and random, so that no slow digest is needed to keep them from being guessed.
    """
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ProxyKey:
    """Who may call. `name` is the tenant's: rotate the key under it, and ids stay good.

    `models` are the model groups it may use, `None` for all; `rpm` is how many requests of any
    kind it may make in any 60 seconds, `None` for any number. An `operator` may see the page and
    the figures of the whole fleet where keys are tenants.
    """

    name: str
    sha256: SecretStr
    models: tuple[str, ...] | None = None
    rpm: int | None = None
    operator: bool = False

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.name, self.models)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The section `proxy`. Without keys, whoever reaches the port may call.

    `max_body` is in bytes, of a whole request. `body_timeout` is in seconds: how long a client may
    be silent while it sends or takes a body. `open_metrics` says that `/metrics` needs no key.
    `extra_fields` are those of a body that no method knows and that tenants may send on all the
    same: any other might name what is another's, in the account that they share.
    """

    keys: tuple[ProxyKey, ...] = field(default=())
    max_body: int = MAX_BODY
    body_timeout: float = BODY_TIMEOUT
    open_metrics: bool = False
    extra_fields: tuple[str, ...] = ()
