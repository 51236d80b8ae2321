"""Who owns what a call names, and how native ids become ours.

A video or character exists in one account, or in the few that hold a copy of it. Before anything
is picked, each id of a call is read: ours say their accounts, LiteLLM's name a deployment, and a
native id is good where only one account can be meant. The accounts that hold all of what the call
names are its owners; nobody else is asked.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.errors import InvalidIdError, OwnershipError
from router.fleet import Fleet
from router.ids import Asset, Copy, Kind, checked_native, decode_litellm
from router.operations import Call
from router.selection import Route
from router.types import Operation

__all__ = ["Owned", "kind_of", "owned_by", "route_of"]


@dataclass(frozen=True, slots=True)
class Owned:
    """What a call names, by account.

    `accounts` is `None` for a call that any account may serve. `natives` are the native ids in each
    of them, in the caller's order. `given` maps each copy of one of our ids to that id, so that the
    answer about it bears the id that the caller knows. `settled`: an id named the owner.
    """

    accounts: tuple[str, ...] | None = None
    natives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    given: Mapping[Copy, str] = field(default_factory=dict)
    settled: bool = False

    def natives_in(self, account: str) -> tuple[str, ...]:
        return self.natives.get(account, ())


_ANYBODY = Owned()


def kind_of(operation: Operation) -> Kind:
    """What the ids of an operation's arguments name."""
    named = (Operation.GENERATION, Operation.GET_CHARACTER, Operation.CREATE_CHARACTER)
    return Kind.CHARACTER if operation in named else Kind.VIDEO


def owned_by(call: Call[Any], fleet: Fleet) -> Owned:
    """The owners of a call. Raises `InvalidIdError` or `OwnershipError`; sends nothing."""
    if call.account is not None and call.account not in fleet.accounts:
        raise OwnershipError(
            f"no account {call.account!r} is configured; there are {', '.join(fleet.accounts)}"
        )
    if call.tenant is not None and call.reference is not None and "file_id" in call.reference:
        _check_native(call, fleet)
    if not call.ids:
        return _unnamed(call, fleet)
    kind = kind_of(call.operation)
    codec = fleet.codec_of(call.tenant)
    ours = [codec.decode(text, kind) for text in call.ids]
    assets = [
        asset or _foreign(text, kind, call, fleet)
        for text, asset in zip(call.ids, ours, strict=True)
    ]
    holders = _holders(call, assets)
    if call.reference is not None and "file_id" in call.reference and len(holders) > 1:
        raise InvalidIdError(
            f"the file id may live in any of {', '.join(holders)}: name the owner with `account=`"
        )
    natives = {a: tuple(asset.native_in(a) for asset in assets) for a in holders}
    given = {
        copy: text
        for text, asset in zip(call.ids, ours, strict=True)
        if asset is not None
        for copy in asset.copies
    }
    settled = any(asset or decode_litellm(id_) for id_, asset in zip(call.ids, ours, strict=True))
    return Owned(holders, natives, given, settled)


def route_of(call: Call[Any], fleet: Fleet, owned: Owned) -> Route:
    """What the call asks of whoever serves it; raises `UnknownModelError`."""
    everywhere = call.operation is Operation.LIST and call.account is not None
    owns = bool(call.ids) or everywhere
    names = fleet.names_for(call.models, owned=owns, tenant=call.tenant)
    return Route(
        call.operation,
        names,
        None if owned.settled else call.custom_llm_provider,
        owned.accounts,
        follow_up=bool(call.ids) or not call.operation.is_submit,
        fallbacks=fleet.fallbacks_for(names, call.tenant) if _may_fall_back(call) else (),
        unable=fleet.unable(call),
    )


def _may_fall_back(call: Call[Any]) -> bool:
    return call.operation is Operation.GENERATION and call.fallbacks


def _unnamed(call: Call[Any], fleet: Fleet) -> Owned:
    if call.operation is Operation.LIST:
        owners = None if call.account is None else (call.account,)
        return Owned(owners, _positions(call, fleet))
    if call.account is not None:
        return Owned((call.account,))
    if call.reference is not None and "file_id" in call.reference:
        return Owned((_only_account(call, fleet, "the file id"),))
    return _ANYBODY


def _foreign(text: str, kind: Kind, call: Call[Any], fleet: Fleet) -> Asset:
    """The asset of an id that is not ours: LiteLLM's, or native."""
    _check_native(call, fleet)
    foreign = decode_litellm(text)
    if foreign is not None:
        return _from_litellm(foreign.kind, foreign.model_id, foreign.native_id, kind, fleet)
    native = checked_native(text)
    account = call.account or _only_account(call, fleet, f"the native id {native!r}")
    return Asset(kind, (Copy(account, native),))


def _from_litellm(kind: Kind, model_id: str, native: str, wanted: Kind, fleet: Fleet) -> Asset:
    member = fleet.members.get(model_id)
    if kind is not wanted:
        raise InvalidIdError(f"a {wanted} id is needed here; this one is a {kind}'s")
    if member is None:
        raise InvalidIdError(
            f"an id made by LiteLLM is understood where its model_id is a deployment's id; "
            f"{model_id!r} is none (`locate` finds the owner of the native id {native!r})"
        )
    return Asset(kind, (Copy(member.deployment.account, checked_native(native)),))


def _holders(call: Call[Any], assets: Sequence[Asset]) -> tuple[str, ...]:
    """The accounts that have all that a call names: of these the one that it wants, if it says."""
    shared = functools.reduce(lambda a, b: a & b, (set(asset.accounts) for asset in assets))
    if not shared:
        lists = "; ".join(f"{', '.join(asset.accounts)}" for asset in assets)
        raise OwnershipError(
            f"no account holds all that this call names (they live in: {lists})",
            operation=str(call.operation),
        )
    if call.account is None:
        return tuple(sorted(shared))
    if call.account not in shared:
        raise OwnershipError(
            f"what this call names lives in {', '.join(sorted(shared))}, not in {call.account}: "
            "leave out `account=`",
            operation=str(call.operation),
        )
    return (call.account,)


def _only_account(call: Call[Any], fleet: Fleet, what: str) -> str:
    names = fleet.names_for(call.models, owned=True, tenant=call.tenant)
    # Who cannot take such a thing does not own it either.
    unable = fleet.unable(call)
    route = Route(call.operation, names, call.custom_llm_provider, follow_up=True, unable=unable)
    accounts = sorted({m.deployment.account for m in fleet.candidates(route)})
    if len(accounts) != 1:
        raise InvalidIdError(
            f"{what} may live in any of {', '.join(accounts)}: name the owner with `account=`, "
            f"or find it with `locate`"
        )
    return accounts[0]


def _positions(call: Call[Any], fleet: Fleet) -> dict[str, tuple[str, ...]]:
    """Where a listing goes on in each account; an empty position means that it has ended there."""
    if call.after is None:
        return {}
    codec = fleet.codec_of(call.tenant)
    if not call.after.startswith(Kind.VIDEO.prefix):
        cursor = codec.decode(call.after, Kind.PAGE)
        if cursor is not None:
            return {account: (native,) if native else () for account, native in cursor.copies}
    # A video's id says where the listing stands in its own account, and nothing of others.
    account = call.account or _only_account(call, fleet, "the video that a listing goes on after")
    video = codec.decode(call.after, Kind.VIDEO) or _foreign(call.after, Kind.VIDEO, call, fleet)
    if video.accounts != (account,):
        raise InvalidIdError("`after` is a page's `last_id`")
    return {account: (video.native_in(account),)}


def _check_native(call: Call[Any], fleet: Fleet) -> None:
    """Raises `InvalidIdError` where an id that is not ours is not good enough."""
    if fleet.codec_of(call.tenant).only_signed:
        raise InvalidIdError("only signed ids are accepted, and this one is not ours")
