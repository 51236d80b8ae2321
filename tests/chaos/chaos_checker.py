"""What must hold in every run: the simulation's invariants, by what processes wrote down.

Each is a function from a story to what is wrong with it; `INVARIANTS` lists them all. They compare
what callers were told with the provider's books, and use none of the router's own judgement.

**What may run.** An account has `L` slots. Redis grants one only where it counts fewer than `L`,
and it counts each job that it granted from then until somebody has seen its end, or for `job_ttl`,
which is longer than any of them lasts. So of the jobs that Redis granted, at most `L` run at any
moment, as long as it forgot nothing; each time it is flushed or restarted it may grant `L` more
beside those that run then, until the workers have registered what they hold: with `E` such times
since the first of the calls whose jobs run, at most `L (1 + E)`.

A worker that Redis does not answer in time (it is frozen, gone, cut off; or one of the two had no
processor) goes by its share: it gives itself a slot only where all that it holds is below
`max(1, L // n)`, with the `n` workers it knows of. All together they give themselves `max(L, N)` at
most, `N` being those who were there meanwhile; and that again after each time that Redis forgot,
since for a moment it then knows of few workers. The journals tell which slot was whose, so the two
are bounded apart. Together they are section 6's bound: `L` while Redis answers and forgets
nothing, `L + max(L, N)` with a Redis that is away.
"""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from chaos_journal import Line
from chaos_plan import DEADLINE, JOB_TTL, LANES, SURVIVORS, Plan
from chaos_story import Call, Job, Span, Story, overlap

__all__ = ["INVARIANTS", "Figures", "Run", "Wrong", "check", "told"]

MARGIN = 2.5
"""Seconds that a call may take beyond its deadline: two processors are shared by ten processes."""
LAST_LOOK = 1.1
"""Seconds that a wait may take longer, since its last look is at its very end."""
A_MOMENT = 0.05
HEALED_SECONDS = 3.0
"""After a blow to Redis all is shared again within so long."""
MOST_ALONE, FEW = 0.1, 5
"""The part of the calls, or how many of few, that may do without a Redis with which all is well."""
WARM = 0.25
"""The part of a run before which memory is not compared."""
LONG_RUN = 300.0
FLAT, SANE = 1.05, 1.35
"""By how much memory may have grown at the end: of a long run, and of a short one."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong, and whose story tells of it: calls, marks, natives or workers."""

    text: str
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A plan, and what became of it."""

    plan: Plan
    story: Story


def check(run: Run) -> dict[str, list[Wrong]]:
    """All that is wrong, by invariant; an empty dictionary is well."""
    found = {name: list(holds(run)) for name, holds in INVARIANTS.items()}
    return {name: wrong for name, wrong in found.items() if wrong}


def told(run: Run, found: dict[str, list[Wrong]]) -> str:
    """What is wrong, in sentences; the first of each kind with its story."""
    lines = []
    for name, wrong in found.items():
        lines += [f"{name}: {one.text}" for one in wrong]
        lines.append(run.story.of(wrong[0].about))
    return "\n".join(lines)


# Paying once --------------------------------------------------------------------------------------


def paid_once(run: Run) -> Iterator[Wrong]:
    """A call is accepted at most once."""
    for call, made in run.story.made_by_call.items():
        if len(made) > 1:
            where = [line["account"] for line in made]
            yield Wrong(f"call {call} was accepted {len(made)} times, in {where}", (call,))


def one_job_per_key(run: Run) -> Iterator[Wrong]:
    """A key is one job, whoever uses it and how often, unless Redis forgot it between the two."""
    story = run.story
    for call in story.calls.values():
        made = story.made_by_mark.get(call.mark, [])
        if not call.begins["key"] or [call.name] != [one["call"] for one in made[1:2]]:
            continue  # it is the call that was accepted second which ought not to have been
        first = story.calls.get(made[0]["call"])
        since = first.began if first is not None else made[0]["at"]
        if not _forgot(story, (since, made[1]["at"])):
            about = (call.name, made[0]["call"], call.mark)
            yield Wrong(f"call {call.name} made a second job under {call.mark}", about)


def _forgot(story: Story, span: Span) -> int:
    """How often Redis forgot all within this time."""
    return sum(begins <= span[1] and ends >= span[0] for begins, ends in story.voids)


def true_accepted(run: Run) -> Iterator[Wrong]:
    """What an error says of acceptance is true."""
    for call in run.story.calls.values():
        if call.how != "error" or call.ended is None:
            continue
        happened = bool(run.story.made_by_call.get(call.name))
        said, error = call.ended["accepted"], call.ended["error"]
        if said not in ("maybe", "yes") and happened:
            yield Wrong(f"call {call.name}: {error} says that nothing was accepted", (call.name,))
        known = happened or bool(run.story.made_by_mark.get(call.mark))
        if said == "yes" and _is_submit(call) and not known:
            yield Wrong(f"call {call.name}: {error} says that a job runs: none", (call.name,))


def nothing_lost(run: Run) -> Iterator[Wrong]:
    """Whatever was accepted its caller knows of, was warned of, or was killed over."""
    story = run.story
    for made in story.accepted:
        call = story.calls.get(made["call"])
        if call is None:
            yield Wrong(f"nobody asked for {made['native']}", (made["native"], made["mark"]))
        elif call.ended is None:
            if call.worker not in story.killed:
                yield Wrong(f"call {call.name} never heard of its job", (call.name,))
        elif call.how == "answer" and not _brought(call, made):
            yield Wrong(f"call {call.name} was answered with another's job", (call.name,))
        elif call.how == "cancelled":
            told = {attempt["accepted"] for attempt in call.attempts}
            if not told & {"maybe", "yes"}:
                yield Wrong(f"call {call.name} was cancelled, and no event says more", (call.name,))


def _brought(call: Call, made: Line) -> bool:
    assert call.ended is not None
    return [made["account"], made["native"]] in call.ended.get("copies", ())


def answers_are_true(run: Run) -> Iterator[Wrong]:
    """A submit's answer names what it made; ids stay the same; ends and downloads are real."""
    story = run.story
    for call in story.calls.values():
        ended = call.ended
        if ended is None:
            continue
        if call.how == "answer" and _is_submit(call):
            made = [[m["account"], m["native"]] for m in story.made_by_mark.get(call.mark, ())]
            if not all(copy in made for copy in ended["copies"]):
                yield Wrong(
                    f"call {call.name} was answered with what it did not make", (call.name,)
                )
        named = call.begins.get("video_id")
        if call.how == "answer" and call.begins["do"] in ("video_wait", "video_status"):
            if ended["id"] != named:
                yield Wrong(f"call {call.name} asked for {named}, got {ended['id']}", (call.name,))
            job = story.made[ended["copies"][0][1]]
            over = job["ends"] <= ended["at"] + A_MOMENT
            if ended["status"] == "completed" and (not over or job["fails"]):
                yield Wrong(f"call {call.name} says completed of a job that is not", (call.name,))
            if call.begins["do"] == "video_wait" and ended["status"] != "completed":
                yield Wrong(f"call {call.name} waited until {ended['status']}", (call.name,))
        if call.how == "answer" and ended.get("whole") is False:
            yield Wrong(f"call {call.name} brought another video", (call.name,))


def errors_of_the_tree(run: Run) -> Iterator[Wrong]:
    """Whatever is raised is a `RouterError`."""
    for call in run.story.calls.values():
        if call.how == "error" and call.ended is not None and not call.ended["ours"]:
            yield Wrong(f"call {call.name} raised {call.ended['error']}", (call.name,))


def keys_conflict_where_they_do(run: Run) -> Iterator[Wrong]:
    """A key is refused for other parameters only where it was used with others."""
    asked: dict[str, set[str]] = defaultdict(set)
    for call in run.story.calls.values():
        if call.begins["key"]:
            asked[call.mark].add(_asked(call))
    for call in run.story.calls.values():
        ended = call.ended
        if ended is None or call.error != "ConflictError" or not call.begins["key"]:
            continue
        if ended["status"] is None and len(asked[call.mark]) == 1:
            yield Wrong(f"call {call.name} is said to ask for something else", (call.mark,))


def _asked(call: Call) -> str:
    serving = ("at", "what", "call", "max_wait")
    return repr(sorted((k, str(v)) for k, v in call.begins.items() if k not in serving))


def keys_are_doubted_for_a_reason(run: Run) -> Iterator[Wrong]:
    """Of a key nobody knows what became only where a call under it was lost, or its worker."""
    by_mark: dict[str, list[Call]] = defaultdict(list)
    for call in run.story.calls.values():
        if call.begins["key"]:
            by_mark[call.mark].append(call)
    for mark, calls in by_mark.items():
        doubted = [call for call in calls if call.error == "AmbiguousSubmitError"]
        if doubted and not any(map(_lost, calls)):
            about = (doubted[0].name, mark)
            yield Wrong(f"call {doubted[0].name} is told that nobody knows of {mark}", about)


def _lost(call: Call) -> bool:
    """Whether a call ended, or did not, so that nobody can say what came of it."""
    return call.ended is None or any(one["accepted"] == "maybe" for one in call.attempts)


# Whom to ask --------------------------------------------------------------------------------------


def asks_the_owner(run: Run) -> Iterator[Wrong]:
    """What names something goes to the account that made it, and is known there."""
    owners = run.story.owners
    for request in run.story.requests:
        if request["account"] is None:
            yield Wrong(f"a request under nobody's key, of call {request['call']}")
        for native in request["named"]:
            about = (native, str(request["call"]))
            if owners.get(native) != request["account"]:
                yield Wrong(
                    f"{request['account']} was asked for {native} of {owners.get(native)}", about
                )
            elif request["status"] == 404 and _may_be_asked(run.story.made[native], request):
                yield Wrong(f"{native} is not found in {request['account']}", about)


def _may_be_asked(made: Line, request: Line) -> bool:
    """Whether it is there: of a job that goes on, or has failed, there is nothing to download."""
    there = made.get("ends", 0.0) < request["at"] and not made.get("fails")
    return request["operation"] != "content" or there


# Endings ------------------------------------------------------------------------------------------


def ends_in_time(run: Run) -> Iterator[Wrong]:
    """A call ends by its deadline, a wait by its time; while its worker was stopped none passes."""
    for call in run.story.calls.values():
        if call.ended is None:
            continue
        bound = DEADLINE
        if call.begins["do"] == "video_wait":
            bound = call.begins["wait_timeout"] + LAST_LOOK
        still = sum(overlap((call.began, call.ends), stop) for stop in run.story.stops[call.worker])
        took = call.ended["took"] - still
        if took > bound + MARGIN:
            yield Wrong(f"call {call.name} took {took:.1f} s of {bound:g} s", (call.name,))


def each_call_ends(run: Run) -> Iterator[Wrong]:
    """But those of a worker that was killed."""
    for call in run.story.calls.values():
        if call.ended is None and call.worker not in run.story.killed:
            yield Wrong(f"call {call.name} never ended", (call.name,))


def workers_end(run: Run) -> Iterator[Wrong]:
    """Who is told to comes to its end by itself."""
    for line in run.story.fleet:
        if line["what"] == "ended" and line["code"] != 0:
            yield Wrong(f"{line['worker']} ended with {line['code']}", (line["worker"],))


def leaves_nothing(run: Run) -> Iterator[Wrong]:
    """A closed router has no thread, no task, no file and nothing in flight."""
    for worker, lines in run.story.workers.items():
        for line in lines:
            if line["what"] == "loop ends" and line["tasks"]:
                yield Wrong(f"{worker} leaves the tasks {line['tasks']}", (worker,))
            if line["what"] != "closed":
                continue
            if line["left"]:
                yield Wrong(f"{worker} leaves the threads {line['left']}", (worker,))
            if line["descriptors"] > line["baseline"]:
                more = line["descriptors"] - line["baseline"]
                yield Wrong(f"{worker} leaves {more} files open", (worker,))
            if any(line["in_flight"].values()):
                yield Wrong(f"{worker} counts {line['in_flight']} in flight", (worker,))


def nothing_grows(run: Run) -> Iterator[Wrong]:
    """The memory and the open files of those who were there all the time."""
    for worker in (f"w{number}.1" for number in range(SURVIVORS)):
        lines = [one for one in run.story.workers.get(worker, ()) if one["what"] == "vitals"]
        lines = lines[int(len(lines) * WARM) :]
        third = len(lines) // 3
        if not third:
            continue
        allowed = FLAT if run.plan.seconds >= LONG_RUN else SANE
        before, after = (_usual(part, "resident") for part in (lines[:third], lines[-third:]))
        if after > before * allowed:
            yield Wrong(f"{worker} grew from {before / 1e6:.1f} to {after / 1e6:.1f} MB", (worker,))
        before, after = (_usual(part, "descriptors") for part in (lines[:third], lines[-third:]))
        if after > before + 2 * sum(LANES.values()):
            yield Wrong(f"{worker} has {after:g} files open, and had {before:g}", (worker,))


def _usual(lines: Iterable[Line], what: str) -> float:
    return float(statistics.median(line[what] for line in lines))


# Limits -------------------------------------------------------------------------------------------


def caps_hold(run: Run) -> Iterator[Wrong]:
    """No more run than may, by the reckoning at the top of this file."""
    for account, cap in run.plan.caps.items():
        for at, running in _moments(run.story.jobs(account)):
            forgotten = _forgot(run.story, (min(map(_since, running)), at))
            granted = [job for job in running if not job.local]
            about = tuple(str(job.made["call"]) for job in running)
            if len(granted) > cap * (1 + forgotten):
                yield Wrong(
                    f"{len(granted)} jobs that Redis granted ran in {account} where {cap} may, "
                    f"and it forgot all {forgotten} times",
                    about,
                )
                break
            there = sum(
                overlap(life, (min(map(_since, running)), at + A_MOMENT)) > 0
                for life in run.story.lives().values()
            )
            own = len(running) - len(granted)
            if own > max(cap, there) * (1 + forgotten):
                yield Wrong(f"workers gave themselves {own} slots of {cap} in {account}", about)
                break


def _moments(jobs: Iterable[Job]) -> Iterator[tuple[float, list[Job]]]:
    """Each beginning of a job, with those that run then."""
    running: list[Job] = []
    for job in jobs:
        running = [one for one in running if _slot_ends(one) > job.started]
        running.append(job)
        yield job.started, running


def _slot_ends(job: Job) -> float:
    """The end of a job, or of its slot, should its worker have stood still for that long."""
    return min(float(job.made["ends"]), job.granted + JOB_TTL)


def _since(job: Job) -> float:
    return job.started if job.call is None else job.call.began


def shares_are_kept(run: Run) -> Iterator[Wrong]:
    """A worker without Redis gives itself a slot only below its share of the limit."""
    for account, cap in run.plan.caps.items():
        by_worker: dict[str, list[Job]] = defaultdict(list)
        for job in run.story.jobs(account):
            if job.call is not None and job.grant is not None:
                by_worker[job.call.worker].append(job)
        for worker, jobs in by_worker.items():
            jobs.sort(key=lambda job: job.granted)
            known = 1
            for place, job in enumerate(jobs):
                assert job.grant is not None
                # It may have heard of another one between its decision and its note.
                least, known = min(known, job.grant["workers"]), job.grant["workers"]
                share = max(1, cap // max(least, 1))
                held = 1 + sum(job.granted < _slot_ends(other) for other in jobs[:place])
                if job.local and held > share:
                    about = (str(job.made["call"]), worker)
                    yield Wrong(f"{worker} holds {held} in {account}, a share of {share}", about)


def asks_redis_where_it_is_there(run: Run) -> Iterator[Wrong]:
    """Where nothing is wrong with Redis it is Redis that grants, and keys are served."""
    alone, grants = without_redis(run.story)
    if alone > max(MOST_ALONE * grants, FEW):
        yield Wrong(f"{alone} of {grants} slots were taken without a Redis that was there")
    refused, keyed = refused_for_redis(run.story)
    if refused > max(MOST_ALONE * keyed, FEW):
        yield Wrong(f"{refused} of {keyed} keys were refused for want of a Redis that was there")


def without_redis(story: Story) -> tuple[int, int]:
    """How many slots workers gave themselves while Redis and they were well, and of how many."""
    grants = [
        grant
        for call in story.calls.values()
        for grant in call.grants
        if not _shaken(story, call, (grant["at"], grant["at"]))
    ]
    return sum(grant["local"] for grant in grants), len(grants)


def refused_for_redis(story: Story) -> tuple[int, int]:
    """The same of calls that bear a key, and were told that nobody could look after it."""
    keyed = [
        call
        for call in story.calls.values()
        if call.begins["key"] and call.ended and not _shaken(story, call, (call.began, call.ends))
    ]
    return sum(call.error == "StateUnavailableError" for call in keyed), len(keyed)


def _shaken(story: Story, call: Call, span: Span) -> bool:
    """Whether Redis, or the call's worker, had a blow then or shortly before."""
    return any(
        begins <= span[1] and span[0] <= ends + HEALED_SECONDS
        for begins, ends in [*story.redis_blows, *story.stops[call.worker]]
    )


INVARIANTS: dict[str, Callable[[Run], Iterable[Wrong]]] = {
    "paid once": paid_once,
    "one job per key": one_job_per_key,
    "true accepted": true_accepted,
    "nothing lost": nothing_lost,
    "answers are true": answers_are_true,
    "errors of the tree": errors_of_the_tree,
    "keys conflict where they do": keys_conflict_where_they_do,
    "keys are doubted for a reason": keys_are_doubted_for_a_reason,
    "asks the owner": asks_the_owner,
    "ends in time": ends_in_time,
    "each call ends": each_call_ends,
    "workers end": workers_end,
    "leaves nothing": leaves_nothing,
    "nothing grows": nothing_grows,
    "caps hold": caps_hold,
    "shares are kept": shares_are_kept,
    "asks Redis where it is there": asks_redis_where_it_is_there,
}


def _is_submit(call: Call) -> bool:
    kinds = ("create_character", "generation", "edit", "extension", "remix")
    return call.begins["do"].removeprefix("video_") in kinds


# Figures ------------------------------------------------------------------------------------------


class Figures:
    """What a run came to, for people."""

    def __init__(self, story: Story) -> None:
        self.calls = len(story.calls)
        self.answered = sum(call.how == "answer" for call in story.calls.values())
        self.jobs = len(story.accepted)
        self.errors = _counted(
            call.ended["error"]
            for call in story.calls.values()
            if call.ended and call.how == "error"
        )
        self.cancelled = sum(call.how == "cancelled" for call in story.calls.values())
        self.unended = sum(call.ended is None for call in story.calls.values())
        keyed = [call for call in story.calls.values() if call.begins["key"]]
        self.keys = len({call.mark for call in keyed})
        self.keyed = len(keyed)
        self.twice_since_redis_forgot = sum(
            len(made) > 1 for mark, made in story.made_by_mark.items() if mark.startswith("key-")
        )
        self.blows = _counted(
            line["what"]
            for line in story.fleet
            if line["what"] in ("killed", "stopped", "cut")
            or line["what"] in ("redis frozen", "redis flushed", "redis killed")
        )
        self.faults = sum(line["what"] == "fault" for line in story.books)
        self.requests = len(story.requests)
        grants = [grant for call in story.calls.values() for grant in call.grants]
        self.slots = f"{len(grants)}, {sum(grant['local'] for grant in grants)} without Redis"
        self.apart_from_blows = "{} of {} slots without Redis; {} of {} keys refused".format(
            *without_redis(story), *refused_for_redis(story)
        )
        self.repeats_that_found_their_job = sum(map(functools.partial(_found, story), keyed))
        self.most = {
            account: max((len(running) for _, running in _moments(story.jobs(account))), default=0)
            for account in sorted(set(story.owners.values()))
        }
        self.memory = _memory(story)
        self.slowest = max((c.ended["took"] for c in story.calls.values() if c.ended), default=0.0)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in vars(self).items())


def _found(story: Story, call: Call) -> bool:
    """Whether a call under a key was answered with what another one had made."""
    made = story.made_by_mark.get(call.mark, ())
    return call.how == "answer" and call.name not in [one["call"] for one in made]


def _counted(items: Iterable[Any]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for item in items:
        found[str(item)] += 1
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _memory(story: Story) -> dict[str, str]:
    found = {}
    for worker in (f"w{number}.1" for number in range(SURVIVORS)):
        lines = [line for line in story.workers.get(worker, ()) if line["what"] == "vitals"]
        lines = lines[int(len(lines) * WARM) :]
        third = len(lines) // 3
        if third:
            before, after = (_usual(part, "resident") for part in (lines[:third], lines[-third:]))
            grew = 100 * (after / before - 1)
            found[worker] = f"{before / 1e6:.1f} to {after / 1e6:.1f} MB ({grew:+.1f} %)"
    return found
