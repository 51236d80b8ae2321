"""Who is calling, and whether it may.

A key is compared by its digest, and with all keys, whichever is the right one: the time that an
answer takes tells nothing of any of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.requests import Request

from router.proxy.answers import Refusal
from router.proxy_settings import ProxyKey, ProxySettings
from router.router import Router
from router.tenants import Tenant

__all__ = ["Access", "Caller"]


class Caller:
    """Who calls: the holder of a key, or anybody where there are no keys."""

    def __init__(self, key: ProxyKey | None) -> None:
        self.key = key
        self.name = None if key is None else key.name
        self.tenant: Tenant | None = None if key is None else key.tenant

    def may_use(self, group: str) -> bool:
        return self.key is None or self.key.models is None or group in self.key.models


class Access:
    """Lets callers in. `renew` takes other keys into force, for the calls that come then."""

    def __init__(self, router: Router, settings: ProxySettings) -> None:
        self._router = router
        self.renew(settings)

    def renew(self, settings: ProxySettings) -> None:
        self._keys = [(key, bytes.fromhex(key.sha256.get_secret_value())) for key in settings.keys]
        self.settings = settings

    async def admit(self, request: Request) -> Caller:
        """Who makes this request; raises `Refusal`, 401 or 429."""
        caller = self.recognise(request)
        key = caller.key
        if key is not None and key.rpm is not None:
            await self._router.aadmit(key.name, key.rpm)
        return caller

    def recognise(self, request: Request) -> Caller:
        """Who makes this request, without counting it; raises `Refusal`, 401."""
        if not self._keys:
            return Caller(None)
        shown = _shown(request)
        found = _matching(self._keys, hashlib.sha256(shown).digest()) if shown else None
        if found is None:
            missing = not shown
            raise Refusal(
                401,
                "no key was sent: Authorization: Bearer KEY" if missing else "the key is not known",
                code="missing_api_key" if missing else "invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return Caller(found)

    def operator(self, request: Request) -> Caller:
        """The same for who looks at the whole fleet; raises `Refusal`, 401 or 403.

        Where keys are tenants, that is who has a key with `operator: true`.
        """
        caller = self.recognise(request)
        tenants = bool(self._router.config.settings.id_secrets)
        if caller.key is not None and tenants and not caller.key.operator:
            raise Refusal(403, "this key is no operator's", code="not_an_operator")
        return caller


def _shown(request: Request) -> bytes:
    """The key that was sent: as OpenAI's clients do, or as Azure's do."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    shown = token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "")
    return shown.encode("latin-1")


def _matching(keys: Iterable[tuple[ProxyKey, bytes]], shown: bytes) -> ProxyKey | None:
    found = None
    for key, digest in keys:
        if hmac.compare_digest(digest, shown):
            found = key
    return found
