"""`video-router doctor`: what is wrong with the fleet, and what to do about it.

It looks at what others look at one by one: the configuration, Redis, each deployment, what the
workers share. It starts and pays nothing, and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import redis.exceptions
import typer
from rich.console import Console, RenderableType
from rich.text import Text

from router.cli import look
from router.cli import redis as examined
from router.cli.check import refuse
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, connected, loaded, where
from router.cli.status import ejections, out_words
from router.config import LAST_DAY_SECONDS, Config, Deployment, retirement
from router.errors import ConfigError, StateUnavailableError
from router.inspection import Overview, Probe
from router.observations import Change
from router.router import Router

__all__ = ["Finding", "doctor"]

SHOWN_CHANGES = 10
SLOW_SECONDS = 0.05
CLOCK_SECONDS = 2.0
NEARLY_FULL = 0.9
LARGE_BYTES = 10_000_000
OLDEST = (6, 2)


@dataclass(frozen=True)
class Finding:
    """What is wrong, or, as a note, what one may want to know; and what to do."""

    where: str
    what: str
    advice: str
    note: bool = False


@dataclass
class Report:
    """All that was looked at."""

    config: Config
    where: str | None = None
    server: examined.Server | None = None
    keys: examined.Keys | None = None
    seen: Overview | None = None
    probes: list[Probe] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def wrong(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.note]


def doctor(config: File = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Look for what is wrong: in the configuration, Redis, the deployments, the fleet.

    Each deployment is asked by a free read. Nothing is started, paid or changed. Each finding comes
    with what to do about it; the exit code is 1 if something is wrong.
    """
    try:
        report = Report(loaded(config))
    except ConfigError as error:
        refuse(config, error.problems, as_json)
        raise typer.Exit(1) from None
    for warning in report.config.warnings:
        _note(report, "config", warning, "see `video-router check`")
    for one in report.config.deployments:
        if told := retirement(one, time.time()):
            _note(
                report, one.id, f"it {told}", "have another in its groups by then; see retires_on"
            )
    if report.config.settings.redis_url is None:
        said = "no redis_url: each worker process knows only what it saw itself"
        _note(report, "redis", said, "set settings.redis_url where there are several workers")
        with Router.from_yaml(config, onlooker=True) as router:
            report.probes = router.probe()
    else:
        with connected(report.config) as client:
            _examine(report, client)
            with Router.from_yaml(config, redis=client, onlooker=True) as router:
                report.probes = router.probe()
                if report.server is not None:
                    _look(report, router)
    report.findings += _of_probes(report)
    report.findings += _of_groups(report.config, time.time())
    if as_json:
        look.show_json(_data(config, report))
    else:
        _show(config, report)
    if report.wrong:
        raise typer.Exit(1)


def _note(report: Report, where: str, what: str, advice: str) -> None:
    report.findings.append(Finding(where, what, advice, note=True))


# Redis ------------------------------------------------------------------------------------------


def _examine(report: Report, client: Any) -> None:
    namespace = report.config.settings.namespace
    report.where = where(report.config)
    try:
        report.server = examined.server(client, namespace)
        report.findings += _of_server(report.server)
        report.keys = examined.keys(client, namespace)
        report.findings += _of_keys(report.keys, namespace)
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        report.findings.append(Finding("redis", f"it does not serve us: {said}", _advice(said)))


def _look(report: Report, router: Router) -> None:
    try:
        report.seen = router.overview()
    except StateUnavailableError as error:
        said = str(error)
        if not any(finding.where == "redis" and not finding.note for finding in report.findings):
            report.findings.append(Finding("redis", said, _advice(said)))
        return
    report.findings += _of_fleet(report.seen)


# By what stands in an error of Redis's.
_ADVICE = {
    "WRONGTYPE": "another application uses our names: give each its own settings.namespace",
    "not ours": "another application uses our names: give each its own settings.namespace",
    "READONLY": "this is a replica: let redis_url point to the master, or use redis+sentinel://",
    "OOM": "Redis is full: raise maxmemory, or remove what is not needed",
    "LOADING": "Redis is still reading its data: wait, then look again",
    "BUSY": "a script of somebody's runs for long: see SLOWLOG, and SCRIPT KILL",
    "MISCONF": "Redis cannot save to its disk, and so takes no writes: see its log",
    "NOAUTH": "Redis wants a password: write it into redis_url",
    "WRONGPASS": "user or password in redis_url are wrong",
    "AUTH": "user or password in redis_url are wrong",
    "NOPERM": "the user in redis_url lacks rights: see RIGHTS in router.state.connecting",
    "permission": "the user in redis_url lacks rights: see RIGHTS in router.state.connecting",
    "refused": "nothing listens there: is Redis up, and the port right?",
    "Name or service": "the host's name is unknown here: check redis_url",
    "imeout": "Redis does not answer: is it overloaded, frozen, or behind a firewall?",
    "imed out": "Redis does not answer: is it overloaded, frozen, or behind a firewall?",
    "CLUSTERDOWN": "the cluster is not whole: see CLUSTER INFO",
    "master": "the sentinels name no master: see their logs, and the service's name in redis_url",
}


def _advice(said: str) -> str:
    found = (advice for word, advice in _ADVICE.items() if word in said)
    return next(found, "look at redis_url, and at the log of Redis")


def _of_server(server: examined.Server) -> Iterator[Finding]:
    if server.version is None:
        said = "the user that we are may not ask for INFO, so version and memory are unknown"
        yield Finding("redis", said, "all the rest works; +info would tell", note=True)
    elif _numbers(server.version) < OLDEST and server.name == "Redis":
        yield Finding("redis", f"it is Redis {server.version}", "upgrade it to 6.2 or later")
    if server.role == "slave":
        yield Finding("redis", "it is a replica, which takes no writes", _ADVICE["READONLY"])
    yield from _of_memory(server)
    if server.round_trip > SLOW_SECONDS:
        said = f"a round trip takes {look.seconds(server.round_trip)}"
        advice = "a call waits 100 ms at most for a slot: put Redis nearer to the workers"
        yield Finding("redis", said, advice, note=True)
    if abs(server.clock_offset) > CLOCK_SECONDS:
        said = f"its clock is {look.lasting(abs(server.clock_offset))} {_side(server.clock_offset)}"
        advice = "the workers go by Redis's time; let NTP set both clocks"
        yield Finding("redis", said, advice, note=True)


def _of_memory(server: examined.Server) -> Iterator[Finding]:
    used, limit = server.used_memory or 0, server.max_memory or 0
    if not limit:
        return
    if server.memory_policy != "noeviction":
        said = f"when memory is short, it forgets keys ({server.memory_policy})"
        advice = "set maxmemory-policy noeviction, lest slots and ejections are forgotten"
        yield Finding("redis", said, advice)
    if used > NEARLY_FULL * limit:
        said = f"its memory is nearly full: {_size(used)} of {_size(limit)}"
        yield Finding("redis", said, _ADVICE["OOM"])


def _of_keys(keys: examined.Keys | None, namespace: str) -> Iterator[Finding]:
    if keys is None:
        said = "the user that we are may not SCAN, so the key space is unknown"
        yield Finding("keys", said, "all the rest works; +scan +type +memory would tell", note=True)
        return
    for name, kind in keys.wrong_types[:3]:
        said = f"{_short(name)} is a {kind}, which we never write"
        advice = "somebody else's: delete it, or give each application its own settings.namespace"
        yield Finding("keys", said, advice)
    if len(keys.wrong_types) > 3:
        more = len(keys.wrong_types) - 3
        yield Finding("keys", f"{more} more keys of types that we never write", "as above")
    if keys.strange:
        count = look.plural(len(keys.strange), "key")
        said = f"{count} in our namespace that we do not know, as {_short(keys.strange[0])}"
        advice = f"another release's or application's? {namespace} is meant for one"
        yield Finding("keys", said, advice, note=True)
    if keys.largest is not None and keys.largest[1] > LARGE_BYTES:
        name, size = keys.largest
        said = f"{_short(name)} takes {_size(size)}"
        yield Finding("keys", said, "ours are small: whose is it? Delete it if nobody knows")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _side(offset: float) -> str:
    return "ahead of this machine's" if offset > 0 else "behind this machine's"


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


# Deployments and the fleet ----------------------------------------------------------------------


def _of_probes(report: Report) -> Iterator[Finding]:
    by_name = {one.id: one for one in report.config.deployments}
    for probe in report.probes:
        if probe.operation is None:
            said = "it may be asked for nothing that is free, so it was not asked"
            yield Finding(probe.deployment, said, "allow it `status`", note=True)
        elif probe.trouble is not None:
            advice = _cure(probe, by_name[probe.deployment].base_url)
            passing = probe.status == 429
            yield Finding(probe.deployment, probe.trouble, advice, note=passing)


def _cure(probe: Probe, base_url: str) -> str:
    match probe.status:
        case 401:
            return "its key is not taken: check api_key, then `reload` or restart the workers"
        case 403:
            return "its key lacks a right: check the project and its rights at the provider"
        case 404 | 405 | 501:
            return f"is {base_url} right, up to what comes before /videos?"
        case 429:
            return "it is asked too often, or its quota is spent: see rpm and the account's bill"
        case None:
            return f"is {base_url} right, and can this machine reach it?"
        case status if 300 <= status < 400:
            return f"it sends us elsewhere: is {base_url} right, https and all?"
        case status if status >= 500:
            return "the provider is in trouble: see its status page; the workers go elsewhere"
        case _:
            return f"something else answers there: is {base_url} right?"


def _of_groups(config: Config, now: float) -> Iterator[Finding]:
    """The groups in which nobody takes new work, whatever happens."""
    for group, deployments in config.groups.items():
        if all(not one.weight or _retires(one, now) for one in deployments):
            why = (
                f"{one.id} {f'retires on {one.retires_on}' if one.weight else 'has weight 0'}"
                for one in deployments
            )
            said = f"nobody takes new work of this group: {', '.join(why)}"
            yield Finding(group, said, "give it a deployment that does, or let nobody ask for it")


def _retires(one: Deployment, now: float) -> bool:
    return one.retires_at is not None and now >= one.retires_at - LAST_DAY_SECONDS


def _of_fleet(seen: Overview) -> Iterator[Finding]:
    if not seen.workers:
        said = "no worker is alive: none has been heard of for 10 s"
        advice = "fine if none runs; else look at their logs for `shared state`"
        yield Finding("workers", said, advice, note=True)
    for names, out in ejections(seen):
        if out.cause == "retired":
            continue  # told, with the date
        note = out.cause in ("throttled", "drained")
        yield Finding(", ".join(names), out_words(out), _CURES[out.cause], note=note)
    limited = {one.id: one.rooms for one in seen.accounts if one.rooms}
    of_deployments = {one.id: one.rooms for one in seen.deployments if one.rooms}
    for name, rooms in (*limited.items(), *of_deployments.items()):
        for room in rooms:
            if room.taken >= room.limit:
                said = f"its limit is reached: {room.taken} of {room.limit} ({_LIMITS[room.kind]})"
                advice = "calls go elsewhere or end in a CapacityError until there is room"
                yield Finding(name, said, advice, note=True)
    loose = [hold for hold in seen.holds if hold.job is None]
    if loose:
        said = f"{look.plural(len(loose), 'slot')} held by no known job"
        advice = "see `video-router jobs`; `release` gives back what nobody will"
        yield Finding("slots", said, advice, note=True)


_LIMITS = {
    "jobs": "max_parallel_jobs",
    "requests": "max_parallel_requests",
    "rpm": "rpm",
    "read_rpm": "read_rpm",
}


_CURES = {
    "denied": "check its key and its bill; then `reload` with the new key, or `restore` it",
    "failures": "look at the provider; it comes back by itself, or by `restore`",
    "missing": "check `model` and `operations` in the configuration",
    "throttled": "it comes back by itself; a lower rpm would keep it from happening",
    "drained": "an operator did that; `restore` ends it",
}


# Showing ----------------------------------------------------------------------------------------


def _show(file: str, report: Report) -> None:
    out = look.stdout()
    for topic, line in _lines(file, report):
        out.print(Text.assemble((f"{topic:<9}", "bold"), line), soft_wrap=True)
    out.print()
    out.print(_probes(out, report.probes), soft_wrap=True)
    if report.seen is not None and report.seen.changes:
        out.print()
        out.print(_changes(out, report.seen), soft_wrap=True)
    out.print()
    for finding in sorted(report.findings, key=lambda finding: finding.note):
        level = ("note   ", "bold yellow") if finding.note else ("wrong  ", "bold red")
        out.print(
            Text.assemble(level, (finding.where, "bold"), f": {finding.what}"), soft_wrap=True
        )
        out.print(Text(f"       {finding.advice}", "dim"), soft_wrap=True)
    if report.wrong:
        count = look.plural(len(report.wrong), "problem")
        out.print(Text(f"{count} found.", "bold red"))
    else:
        out.print(Text("Nothing is wrong.", "bold green"))


def _lines(file: str, report: Report) -> Iterator[tuple[str, str]]:
    config = report.config
    deployments = look.plural(len(config.deployments), "deployment")
    accounts = look.plural(len({one.account for one in config.deployments}), "account")
    yield "config", f"{file}: {deployments} in {accounts}"
    if report.where is None:
        yield "redis", "none"
        return
    yield "redis", report.where
    server, keys, seen = report.server, report.keys, report.seen
    if server is not None:
        yield "", "; ".join(_server_facts(server))
    if keys is not None:
        most = sorted(keys.kinds.items(), key=lambda item: -item[1])
        kinds = ", ".join(f"{count} {kind}" for kind, count in most)
        size = f", {_size(keys.size)}" if keys.size else ""
        yield "keys", f"{keys.count}{size}{': ' if kinds else ''}{kinds}"
    if seen is not None:
        running = sum(one.running for one in seen.accounts)
        workers = look.plural(len(seen.workers), "worker")
        yield "fleet", f"{workers} alive, {look.plural(running, 'job')} running"


def _server_facts(server: examined.Server) -> Iterator[str]:
    if server.version is not None:
        role = {"slave": "replica"}.get(server.role or "", server.role)
        yield f"{server.name} {server.version}, {role}"
        limit = f"of {_size(server.max_memory)}" if server.max_memory else "without a limit"
        yield f"{_size(server.used_memory or 0)} {limit}, {server.memory_policy}"
    yield f"round trip {server.round_trip * 1000:.1f} ms"
    yield f"clock {round(server.clock_offset * 1000):+d} ms"


def _probes(out: Console, probes: Sequence[Probe]) -> RenderableType:
    columns = (
        look.Column("deployment", [Text(probe.deployment, "bold") for probe in probes]),
        look.Column("asked for", [probe.operation or "nothing" for probe in probes]),
        look.Column("answer", [_answer(probe) for probe in probes]),
        look.Column(
            "after", [look.seconds(p.seconds) if p.operation else "" for p in probes], right=True
        ),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    lines = [Text.assemble((p.deployment, "bold"), ": ", _answer(p)) for p in probes]
    return Text("\n").join(lines)


def _answer(probe: Probe) -> Text:
    if probe.operation is None:
        return Text("")
    if probe.trouble is None:
        return Text(f"{probe.status}, fine" if probe.status != 200 else "200", "green")
    colour = "yellow" if probe.status == 429 else "red"
    return Text(str(probe.status or "none"), colour)


def _changes(out: Console, seen: Overview) -> RenderableType:
    last = sorted(seen.changes, key=lambda change: -change.at)[:SHOWN_CHANGES]
    columns = (
        look.Column("change", [f"{look.lasting(seen.at - c.at)} ago" for c in last], right=True),
        look.Column("deployment", [Text(change.deployment, "bold") for change in last]),
        look.Column("what", [change.what for change in last]),
        look.Column("why", [change.reason for change in last]),
        look.Column("worker", [change.worker[:8] for change in last], spare=1),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    return Text("\n").join([_change(seen, change) for change in last])


def _change(seen: Overview, change: Change) -> Text:
    ago = look.lasting(seen.at - change.at)
    return Text.assemble(
        f"{ago} ago  ", (change.deployment, "bold"), f" {change.what}: {change.reason}"
    )


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _data(file: str, report: Report) -> dict[str, Any]:
    seen = report.seen
    return {
        "file": file,
        "ok": not report.wrong,
        "where": report.where,
        "redis": report.server and asdict(report.server),
        "keys": report.keys and asdict(report.keys),
        "workers": None if seen is None else len(seen.workers),
        "deployments": [asdict(probe) for probe in report.probes],
        "changes": [] if seen is None else [asdict(change) for change in seen.changes],
        "findings": [asdict(finding) for finding in report.findings],
    }
