"""`video-router stand-in`: a video provider for tests, as a server process."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from router.cli import look, servers
from router.testing import StandIn
from router.testing.faults import KINDS
from router.testing.server import serve

__all__ = ["stand_in"]

# What the annotations of a fault's details take; `object` takes anything.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "str | None": (str,),
}

_ADVICE = {
    errno.EADDRINUSE: "name another --port (0 takes a free one), or end what listens there",
    errno.EACCES: "name a --port above 1023 (0 takes a free one)",
}

# Those of deployments.yaml as it stands, so that the two work together without a word.
SAMPLE_ACCOUNTS = {"sk-east": "east", "sk-west": "west"}


def stand_in(
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes a free one.")
    ] = 4010,
    account: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=NAME", help="An API key, and whose it is. Can be repeated."),
    ] = None,
    job_seconds: Annotated[
        float, typer.Option(metavar="S", min=0, help="How long a job takes.")
    ] = 0.0,
    latency: Annotated[
        float, typer.Option(metavar="S", min=0, help="Seconds before each answer.")
    ] = 0.0,
    rpm: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Submits of an account in a minute.")
    ] = None,
    max_running_jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Jobs of an account at a time.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="FAULT", help="What shall go wrong, see above. Can be repeated."),
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End with stdin too: never outlive who starts it.")
    ] = False,
) -> None:
    """Serve a video provider that costs nothing, until Ctrl-C: for tests of apps and routers.

    It speaks the dialects of all providers, hands out a real MP4 clip, and fails on demand.
    A fault is KIND or KIND=VALUE, and what else there is to say of it:

    - `status=503,operation=generation,times=3,header.Retry-After=2`

    - `delay=2.5,account=east`

    - `reset,after=true,times=forever`

    Its kinds are @KINDS@; all take `operation`, `account` and `times`.
    """
    accounts = _accounts(account or ())
    faults = [_fault(text, accounts) for text in fault or ()]
    if until_eof:
        servers.ends_at_eof()
    try:
        serve(
            host=host,
            port=port,
            accounts=accounts,
            job_seconds=job_seconds,
            latency=latency,
            rpm=rpm,
            max_running_jobs=max_running_jobs,
            faults=faults,
            ready=lambda provider: _announce(provider, accounts),
        )
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "name another with --host")
        raise look.CommandError(
            f"cannot listen on {host}:{port}: {error.strerror}; {advice}"
        ) from error


assert stand_in.__doc__ is not None
stand_in.__doc__ = stand_in.__doc__.replace("@KINDS@", ", ".join(KINDS))


def _announce(provider: StandIn, accounts: Mapping[str, str]) -> None:
    out = look.stdout()
    named = ", ".join(f"{name} (key {key})" for key, name in accounts.items())
    hint = "; Ctrl-C ends it" if out.is_interactive else ""
    # One line whatever the width: programs wait for it, and read the address from it.
    out.print(f"stand-in ready at {provider.base_url} for {named}{hint}", soft_wrap=True)


def _accounts(written: Sequence[str]) -> dict[str, str]:
    accounts: dict[str, str] = {}
    for text in written:
        key, _, name = text.partition("=")
        if not key or not name:
            raise typer.BadParameter(f"'{text}' is not KEY=NAME", param_hint="--account")
        if accounts.setdefault(key, name) != name:
            raise typer.BadParameter(f"{key} has two accounts", param_hint="--account")
    return accounts or dict(SAMPLE_ACCOUNTS)


def _fault(text: str, accounts: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `StandIn.fault()` in `kind[=value][,key=value…]`.

    The kind's own value is its first detail: the status, the seconds, the location.
    """
    first, *rest = text.split(",")
    kind, _, value = first.partition("=")
    wish: dict[str, Any] = {"kind": kind}
    try:
        if value and kind in KINDS:
            wish[_details(kind)[0].name] = _value(value)
        for item in rest:
            _add(wish, item)
        StandIn(accounts).fault(**wish)  # what could never strike is refused here
        _check_types(wish)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"'{text}': {error}", param_hint="--fault") from None
    return wish


def _add(wish: dict[str, Any], item: str) -> None:
    key, equals, value = item.partition("=")
    if not equals:
        raise ValueError(f"{item!r} is not KEY=VALUE")
    if key.startswith("header."):
        wish.setdefault("headers", {})[key.removeprefix("header.")] = value
    elif key == "times" and value == "forever":
        wish["times"] = None
    else:
        wish[key] = _value(value)


def _value(text: str) -> Any:
    """Numbers, true and false as such, all else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_types(wish: Mapping[str, Any]) -> None:
    times = wish.get("times", 1)
    if times is not None and (not isinstance(times, int) or times < 1):
        raise ValueError("times is a whole number above 0, or forever")
    for detail in _details(wish["kind"]):
        taken = _TYPES.get(str(detail.type))
        if taken and detail.name in wish and not isinstance(wish[detail.name], taken):
            raise ValueError(f"{detail.name} cannot be {wish[detail.name]!r}")


def _details(kind: str) -> tuple[Field[Any], ...]:
    return fields(KINDS[kind])  # type: ignore[arg-type]  # all kinds are dataclasses
