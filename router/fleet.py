"""The fleet: one configuration's deployments, with what is known of each.

A fleet never changes. A reload makes a new one and swaps it; calls under way keep theirs. What was
learned of a deployment is carried over by its id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from router.balancing import STRATEGIES, Load
from router.config import LAST_DAY_SECONDS, Config, Deployment, Limits
from router.errors import (
    BadRequestError,
    InvalidIdError,
    OwnershipError,
    UnknownModelError,
    UnsupportedOperationError,
)
from router.health import Health
from router.ids import Asset, IdCodec, Kind
from router.leases import Need
from router.limits import job_cap, job_ttl, needs, trial
from router.operations import Call, Demand
from router.providers import PROVIDERS, Lack, Provider, abilities, without
from router.selection import Candidate, Obstacle, Route, Tier, Unable, obstacle, tiers
from router.tenants import Tenant
from router.types import Operation

__all__ = ["DOLLAR", "Fleet", "Member"]

CallT = TypeVar("CallT", bound=Call[Any])

DOLLAR = 1_000_000
"""Micro-dollars in one. Whole ones, so that sums over all workers are exact."""
# Routes are few; names come from callers, so the memory of them must have an end.
_REMEMBERED_ROUTES = 1024


@dataclass(slots=True, eq=False, repr=False)
class Member(Candidate):
    """A candidate with its provider; `health` and `load` outlive the fleet."""

    health: Health
    load: Load
    provider: Provider
    headers: dict[str, str]
    credential: str
    needs: Mapping[Operation, tuple[Need, ...]]
    trial: Need
    job_ttl: float
    cost_per_day: float | None

    def needs_of(self, demand: Demand) -> tuple[Need, ...]:
        """What a call needs room in, here."""
        needs, budget = self.needs[demand.operation], self.budget(demand)
        return needs if budget is None else (*needs, budget)

    def budget(self, demand: Demand) -> Need | None:
        """The money that a job needs of what its account may spend in a day, if that is limited.

        In micro-dollars; where the length or the size has no price, what it costs at most.
        """
        if self.cost_per_day is None or not demand.operation.starts_job:
            return None
        cost = self.deployment.cost_at_most(demand.size, demand.seconds) or 0.0
        limit, amount = round(self.cost_per_day * DOLLAR), round(cost * DOLLAR)
        return Need(f"cost:account:{self.deployment.account}", limit, amount)

    def dropped(self, call: Call[Any]) -> tuple[Lack, ...]:
        """What of this call is dropped where it is sent here, by `drop_params`."""
        if not self.deployment.drop_params or not call.is_particular:
            return ()
        lacks = self.provider.lacks(call, self.deployment)
        return tuple(lack for lack in lacks if lack.can_be_dropped)

    def sent(self, call: CallT) -> CallT:
        """The call as it is sent here."""
        return without(call, [lack.parameter for lack in self.dropped(call)])

    def __repr__(self) -> str:
        return f"<Member {self.deployment.id}>"


class Fleet:
    """All deployments of a configuration, and who of them may serve a route."""

    def __init__(self, config: Config, before: Fleet | None = None) -> None:
        self.config = config
        known = before.members if before is not None else {}
        self.members: dict[str, Member] = {
            d.id: _member(d, config.accounts[d.account].limits, known.get(d.id))
            for d in config.deployments
        }
        self._limited = {
            operation: any(m.needs_of(Demand(operation)) for m in self.members.values())
            for operation in Operation
        }
        self.codec = _codec(config)
        self._codecs: dict[str, IdCodec] = {}
        self.strategy = STRATEGIES[config.settings.strategy]
        self.groups = tuple(config.groups)
        self.accounts = tuple(dict.fromkeys(d.account for d in config.deployments))
        self._tiers: dict[Route, tuple[Tier[Member], ...]] = {}
        # Of each kind one: what can be taken is asked at every call that carries something.
        self._kinds = {_kind(d): self.members[d.id] for d in config.deployments}

    def unable(self, call: Call[Any]) -> tuple[Unable, ...]:
        """Who cannot take what the call carries, by kind. Who drops it can."""
        if not call.is_particular:
            return ()
        found: list[Unable] = []
        for kind, member in self._kinds.items():
            lacks = member.provider.lacks(call, member.deployment)
            if kind[2]:
                lacks = tuple(lack for lack in lacks if not lack.can_be_dropped)
            if lacks:
                advice = "; ".join(lack.advice for lack in lacks)
                found.append(Unable(*kind, advice, any(lack.whole for lack in lacks)))
        return tuple(found)

    def tiers(self, route: Route) -> tuple[Tier[Member], ...]:
        """The candidates of a route by tier; raises where the configuration has none."""
        found = self._tiers.get(route)
        if found is None:
            found = tiers(self.members.values(), route)
            if not found:
                raise self._nobody(route)
            if len(self._tiers) >= _REMEMBERED_ROUTES:
                self._tiers.clear()
            self._tiers[route] = found
        return found

    def candidates(self, route: Route) -> list[Member]:
        """The candidates of a route, whatever their tier."""
        return [member for tier in self.tiers(route) for member in tier.candidates]

    def is_limited(self, operation: Operation) -> bool:
        """Whether anybody needs room for this operation."""
        return self._limited[operation]

    def job_resources(self, account: str) -> tuple[str, ...]:
        """Where a job of this account may hold a slot: in the limits that there are on jobs."""
        needed = [m.needs[Operation.GENERATION] for m in self.of_account(account)]
        found = (need.resource for needs in needed for need in needs if need.for_job)
        return tuple(dict.fromkeys(found))

    def of_account(self, account: str) -> list[Member]:
        return [m for m in self.members.values() if m.deployment.account == account]

    def codec_of(self, tenant: Tenant | None) -> IdCodec:
        """How the ids of a call are written and read: where ids are signed, for its tenant."""
        if tenant is None or not self.codec.signs:
            return self.codec
        found = self._codecs.get(tenant.name)
        if found is None:
            if len(self._codecs) >= _REMEMBERED_ROUTES:
                self._codecs.clear()
            found = self._codecs[tenant.name] = self.codec.of_tenant(tenant.name)
        return found

    def read(self, text: str, kind: Kind) -> Asset | None:
        """What an id of ours says, whichever tenant of the proxy's it is; for operators."""
        refused: InvalidIdError | None = None
        for codec in (self.codec, *(self.codec_of(key.tenant) for key in self.config.proxy.keys)):
            try:
                return codec.decode(text, kind)
            except InvalidIdError as error:
                refused = refused or error
        assert refused is not None
        raise refused

    def names_for(
        self, named: tuple[str, ...] | None, *, owned: bool, tenant: Tenant | None = None
    ) -> tuple[str, ...] | None:
        """The groups a call may go to; raises `UnknownModelError`, listing the known.

        A tenant that may use some groups only knows of no others.
        """
        known = self.groups_of(tenant)
        for name in named or ():
            if name not in known:
                raise UnknownModelError(f"no model group {name!r}; there are {', '.join(known)}")
        if named is not None:
            return named
        if owned:
            return None if known == self.groups else known
        default = self.config.settings.default_model
        if default in known:
            return (default,)
        if len(known) == 1:
            return known
        raise UnknownModelError(f"name a model, or set default_model; there are {', '.join(known)}")

    def groups_of(self, tenant: Tenant | None) -> tuple[str, ...]:
        """The groups that a tenant may use."""
        if tenant is None or tenant.models is None:
            return self.groups
        return tuple(name for name in self.groups if name in tenant.models)

    def fallbacks_for(
        self, names: tuple[str, ...] | None, tenant: Tenant | None = None
    ) -> tuple[str, ...]:
        """The groups to go to when nobody is left in these."""
        known = self.config.settings.fallbacks
        if not known:
            return ()
        found = (other for name in names or () for other in known.get(name, ()))
        allowed = self.groups_of(tenant)
        return tuple(n for n in dict.fromkeys(found) if n in allowed and n not in (names or ()))

    def _nobody(self, route: Route) -> Exception:
        members = self.members.values()
        against = [obstacle(m, route) for m in members]
        verdicts = {o.verdict for o in against if isinstance(o, Obstacle)}
        if unable := _in_the_way(members, route):
            advice = "; ".join(dict.fromkeys(one.advice for one in unable))
            whole = all(one.whole for one in unable)
            kind = UnsupportedOperationError if whole else BadRequestError
            return kind(
                f"no deployment that this call may go to can take it: {advice}",
                operation=route.operation,
            )
        if "unsupported" in verdicts:
            return UnsupportedOperationError(
                f"{route.operation} is not supported by any deployment that this call may go to: "
                f"{_abilities(members, route)}",
                operation=route.operation,
            )
        if route.owners is not None:
            return OwnershipError(
                f"what this call names lives in {_listed(route.owners)}, and no deployment of "
                f"{'that account' if len(route.owners) == 1 else 'those accounts'} is "
                f"{'in ' + _listed(route.names) if route.names else 'configured'}",
                operation=route.operation,
            )
        if "drained" in verdicts:
            return UnsupportedOperationError(
                "every deployment that this call may go to has weight 0: follow-ups only",
                operation=route.operation,
            )
        return UnsupportedOperationError(
            f"no deployment of the provider {route.provider!r} is among the candidates",
            operation=route.operation,
        )


def _kind(deployment: Deployment) -> tuple[str, str, bool]:
    """What tells apart whom a call is to be asked of."""
    return deployment.provider, deployment.model, deployment.drop_params


def _in_the_way(members: Iterable[Member], route: Route) -> list[Unable]:
    """Who would serve the route but for what the call carries."""
    able = dataclasses.replace(route, unable=())
    left = [m.deployment for m in members if obstacle(m, able) is None]
    return [one for one in route.unable if any(map(one.is_true_of, left))]


def _abilities(members: Iterable[Member], route: Route) -> str:
    """What those can do who would serve the route, were it another operation."""
    found: dict[str, set[Operation]] = {}
    for member in members:
        against, deployment = obstacle(member, route), member.deployment
        if against is not None and against.verdict == "unsupported":
            able = abilities(member.provider, deployment)
            found.setdefault(deployment.provider, set()).update(able)
    told = (f"{name} can do {', '.join(sorted(what)) or 'nothing'}" for name, what in found.items())
    return "; ".join(told)


def _codec(config: Config) -> IdCodec:
    secrets = [secret.get_secret_value() for secret in config.settings.id_secrets]
    return IdCodec(secrets, accept_unsigned=config.settings.accept_unsigned_ids)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _member(deployment: Deployment, shared: Limits, before: Member | None) -> Member:
    provider = PROVIDERS[deployment.provider]
    secrets = {name: value.get_secret_value() for name, value in deployment.headers.items()}
    headers = {**provider.headers(deployment), **secrets}
    credential = _credential(deployment, headers)
    health, load = Health(credential), Load()
    if before is not None:
        health, load = before.health, before.load
        health.hold(credential)
    retires = deployment.retires_at
    health.retires = math.inf if retires is None else retires - LAST_DAY_SECONDS
    health.retires_why = f"its retires_on is {deployment.retires_on}"
    own, account = deployment.limits, deployment.account
    return Member(
        deployment,
        provider.dialect,
        health,
        load,
        job_cap(own, shared),
        provider,
        headers,
        credential,
        {op: needs(deployment.id, account, own, shared, op) for op in Operation},
        trial(deployment.id),
        job_ttl(own, shared),
        shared.cost_per_day,
    )


def _credential(deployment: Deployment, headers: Mapping[str, str]) -> str:
    """A digest of whom requests go out as. Short: it tells keys apart, and tells no key."""
    written = repr((deployment.base_url, sorted(headers.items())))
    return hashlib.blake2b(written.encode(), digest_size=8).hexdigest()
