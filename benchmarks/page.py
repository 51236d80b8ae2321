"""benchmarks/README.md, written from the JSON files of the last runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalogue import BENCHMARKS

__all__ = ["page", "runs"]

Run = Mapping[str, Any]

HEAD = """\
# Benchmarks

Written by `python -m benchmarks --page` from the last runs; not by hand.

```console
pip install 'video-router[bench]'
python -m benchmarks --quick          # the short ones, in under two minutes
python -m benchmarks                  # all, which takes hours: routing_quality and shared_state
python -m benchmarks overhead growth  # some
python -m benchmarks --page           # write this page anew
```

Contenders take turns in at least five rounds, figures are medians, and comparisons are ratios
within one run: absolute figures are worth what the machine was worth in that minute. Each benchmark
runs in a process of its own. How noise is kept out stands in `measure.py`, and what exactly is
measured, and what is not, at the top of each module. Traffic stays on loopback; the upstream
answers at once, so that what is left is the client's own.
"""

REDIS_SHARE = 0.5
"""Of a core, that Redis is to be busy at most: above it waiting times begin to grow."""


def runs(folder: Path) -> dict[str, Run]:
    """What was measured, by benchmark."""
    found = {}
    for name in BENCHMARKS:
        file = folder / f"{name}.json"
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def page(found: Mapping[str, Run], folder: Path, beside: Path) -> str:
    """The text; pictures are named as they are found from the folder that it stands `beside`."""
    parts = [HEAD, _machine(found), _goals(found)]
    for name, run in found.items():
        parts.append(_section(name, run, folder, beside))
        if name == "growth" and (paragraph := _one_redis(run)):
            parts.append(paragraph)
    return "\n".join(parts)


def _machine(found: Mapping[str, Run]) -> str:
    versions: dict[str, str] = {}
    for run in found.values():
        versions.update(run["versions"])
    places = dict.fromkeys(
        f"{run['processor']}, {run['cores']} cores, {run['system']}, {run['python']}"
        for run in found.values()
    )
    told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    loads = [run["load_before"] for run in found.values() if run.get("load_before") is not None]
    busy = f" Load before the runs: {min(loads)} to {max(loads)}." if loads else ""
    return f"## The machine\n\n{'; '.join(places)}.{busy}\n\n{told}.\n"


def _goals(found: Mapping[str, Run]) -> str:
    rows = []
    for name, run in found.items():
        judged = [one for one in run["figures"] if one["target"] is not None]
        met = sum(one["verdict"] == "met" for one in judged)
        how = "quick" if run.get("quick") else ""
        told = f"{met} of {len(judged)}" if judged else "none set"
        rows.append([f"[{name}](#{name})", BENCHMARKS[name].what, told, how])
    head = ("benchmark", "what it measures", "goals met", "run")
    return "## Goals\n\n" + _table(head, rows)


def _section(name: str, run: Run, folder: Path, beside: Path) -> str:
    parts = [f"## {name}\n\n{BENCHMARKS[name].means}\n"]
    judged = [one for one in run["figures"] if one["target"] is not None]
    plain = [] if judged else [one for one in run["figures"] if not one["curve"]]
    if judged or plain:
        rows = [[o["name"], _value(o), _bound(o), o["verdict"] or ""] for o in judged or plain]
        parts.append(_table(("figure", "value", "goal", ""), rows))
    parts += _curves(run)
    picture = folder / f"{name}.png"
    if picture.exists():
        parts.append(f"![{name}]({Path(os.path.relpath(picture, beside)).as_posix()})\n")
    return "\n".join(parts)


def _curves(run: Run) -> Iterator[str]:
    """Curves that have their points in the same places share a table."""
    curves: dict[str, dict[float, Mapping[str, Any]]] = {}
    for one in run["figures"]:
        if one.get("curve"):
            curves.setdefault(one["curve"], {})[one["at"]] = one
    by_places: dict[tuple[float, ...], list[str]] = {}
    for curve, points in curves.items():
        by_places.setdefault(tuple(sorted(points)), []).append(curve)
    for places, names in by_places.items():
        rows = [[name, *(_value(curves[name][at]) for at in places)] for name in names]
        yield _table(("", *(f"{at:,.0f}" for at in places)), rows)


def _one_redis(run: Run) -> str:
    """What one Redis carries, by the seconds of its one core that each takes of it."""
    known = {one["name"]: one["value"] for one in run["figures"]}
    idle = known.get("an exchange, 0 calls since the last: Redis's time")
    busy = known.get("an exchange, 100 calls since the last: Redis's time")
    lease = known.get("a lease: Redis's time")
    if idle is None or busy is None or lease is None:
        return ""
    room = REDIS_SHARE * 1000  # milliseconds of its core in a second
    return f"""\
### What one Redis carries

A Redis does one thing at a time, so what it carries is the time of one core over what each worker
takes of it in a second. Kept half idle, it has {room:.0f} ms of a second to give. A worker turns
once a second; a turn with nothing to tell takes {idle:.2f} ms, one that tells of a hundred calls on
thirty deployments {busy:.2f} ms, and not much more for a thousand, since what is told is sums. A
submit to a capped deployment takes {lease:.2f} ms more, for the lease and for giving it back.

- idle workers: {room:.0f} / {idle:.2f} = **{room / idle:,.0f}**
- workers with a hundred calls a second or more: {room:.0f} / {busy:.2f} = **{room / busy:,.0f}**
- capped submits a second, besides: {room:.0f} / {lease:.2f} = **{room / lease:,.0f}** in all

Three to thirty deployments with caps of two to ten jobs that take minutes make some submits a
second, so one Redis is enough for most. All keys of a namespace live in one slot: a cluster gives
failover, not scale. Where the sums above are exceeded, give each application, or each region, a
`namespace` of its own (in a cluster they fall to different nodes), and split there, where no
account is shared: limits and what was learned hold within a namespace only.
"""


def _value(one: Mapping[str, Any]) -> str:
    value = one["value"]
    told = f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.3g}"
    return f"{told} {one['unit']}".strip()


def _bound(one: Mapping[str, Any]) -> str:
    if one["target"] is None:
        return ""
    return f"{'≥' if one.get('at_least') else '≤'} {one['target']:g}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
