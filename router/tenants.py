"""On whose behalf a call is made, where one application serves several who must not meet.

With `id_secrets`, ids are signed for the tenant: by a key that is derived from the secret and the
tenant's name, so nothing has to be stored, and what another tenant holds is no id here. Whatever
is shared by name otherwise is told apart by it too: idempotency keys, and what a listing shows.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tenant"]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of those whom an application serves.

    Its `name` is what tells it from others for good: ids are signed by it. `models` are the model
    groups that it may use, follow-ups and fallbacks included; `None` for all.
    """

    name: str
    models: tuple[str, ...] | None = None

    def scoped(self, word: str) -> str:
        """A word of the tenant's own, such as an idempotency key; another's is another word."""
        return f"tenant\0{len(self.name)}\0{self.name}\0{word}"
