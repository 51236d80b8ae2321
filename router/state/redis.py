"""The store in Redis: one script carries out a turn, whole, in one round trip.

It runs on Redis 6.2, 7 and Valkey. All keys bear the namespace as their hash tag, so that a cluster
keeps them together, and the version of their form, so that a later one may change it. What there is
to know of time it asks Redis for. No API key and no prompt gets here, and of an idempotency key and
what was asked for under it only digests do. Of the caller's words only the names of characters do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import redis.exceptions

from router import _logs
from router.characters import CHARACTER_SECONDS, MOST_CHARACTERS, CharacterFacts
from router.claims import ACCEPTED, SENDING, UNKNOWN, Claim, Claimed, Conclude, Record, Renew
from router.ids import Copy
from router.leases import (
    Acquire,
    Command,
    Grant,
    Job,
    Leave,
    Need,
    Release,
    Seen,
    Settle,
    Spend,
)
from router.observations import (
    Batch,
    Cause,
    Change,
    Ejection,
    Sums,
    day_of,
    kept_for,
)
from router.state.sharing import MOST_RUNNING, News, Picture, Running, Told, Turn

__all__ = ["RedisStore"]

log = logging.getLogger("router")

FORM = "v1"
TOTAL = "="
"""Of a day's money: what was spent in all. The other fields are tokens."""
MOST_MICROS = 10**15
"""A billion dollars: the sums of less stay exact in a script, whose numbers are floats."""
MOST_NAMES = 2000
"""Changed names that one turn gives out at most."""
ALIVE_SECONDS = 10.0
SILENT_SECONDS = 5.0
"""After so long without news the listener asks whether it is still connected."""


class RedisStore:
    """State in Redis, through a client of redis-py's: a server's, a sentinel's or a cluster's."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self._prefix = f"{{{namespace}}}:{FORM}:"
        self._source = files("router.state").joinpath("lua/turn.lua").read_text("utf-8")
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()
        self._heard: Any = None
        self._reading = _Reading()

    def turn(self, turn: Turn) -> News:
        written = json.dumps(_written(turn, uuid.uuid4().hex), separators=(",", ":"))
        with _out_of_reach():
            told, names, grants, ended, claimed = self._run(written)
            news = self._reading.news(told, names, grants, ended)
            return dataclasses.replace(news, claimed=tuple(_claimed(one) for one in claimed))

    def picture(self, resources: tuple[str, ...]) -> Picture:
        with _out_of_reach():
            seconds, micros = self._client.time()
            now = int(seconds) + int(micros) / 1e6
            workers = self._client.zrangebyscore(
                f"{self._prefix}workers", now - ALIVE_SECONDS, "+inf", withscores=True
            )
            jobs = self._reading.jobs(self._client.hvals(f"{self._prefix}jobs"))
            changes = self._client.lrange(f"{self._prefix}history", 0, -1)
            counting = self._client.pipeline(transaction=False)
            for resource in resources:
                if Need(resource, 0).in_day:
                    counting.hget(f"{self._prefix}{resource}:{day_of(now)}", TOTAL)
                else:
                    counting.zcount(f"{self._prefix}{resource}", *_standing(resource, now))
            counted = [int(count or 0) for count in counting.execute()]
            held = dict(zip(resources, counted, strict=True))
            of_jobs = [resource for resource in resources if Need(resource, 0).for_job]
            for resource in of_jobs:
                key = f"{self._prefix}{resource}"
                counting.zrangebyscore(key, now, "+inf", withscores=True)
            found = zip(of_jobs, counting.execute(), strict=True)
        holders = {
            name: {_text(h): float(at) - now for h, at in held_by} for name, held_by in found
        }
        jobs.sort(key=lambda job: -job.accepted_at)
        alive = {_text(worker): float(at) for worker, at in workers}
        return Picture(now, alive, held, jobs, self._reading.changes(changes), holders)

    def listen(self) -> Generator[Told, None, None]:
        """What workers tell, as they have news, and nothing once it listens; blocks in between.

        Raises `OSError` when it is cut off, and ends when it is told to `hush`.
        """
        self.hush()  # in a forked child, the parent's
        with _out_of_reach():
            heard = self._heard = self._client.pubsub()
            try:
                heard.subscribe(f"{self._prefix}news")
                yield from self._told(heard)
            finally:
                heard.close()

    def _told(self, heard: Any) -> Iterator[Told]:
        asked = False
        while self._heard is heard:
            message = heard.get_message(timeout=SILENT_SECONDS)
            if message is not None:
                asked = False
                if message["type"] != "pong":
                    is_news = message["type"] == "message"
                    yield self._reading.told(message["data"]) if is_news else Told()
            elif asked:
                raise redis.exceptions.TimeoutError("nothing is heard any more")
            else:  # Where nothing is said for long, is there still somebody?
                heard.ping()
                asked = True

    def hush(self) -> None:
        """End the listening, from another thread."""
        heard, self._heard = self._heard, None
        if heard is not None and heard.connection is not None:
            heard.connection.disconnect()

    def close(self) -> None:
        self._client.close()

    def _run(self, written: str) -> Any:
        key = f"{self._prefix}version"
        try:
            return self._client.evalsha(self._sha, 1, key, self._prefix, written)
        except redis.exceptions.NoScriptError:
            # New to it, or it was restarted, failed over or flushed, and scripts go with that.
            return self._client.eval(self._source, 1, key, self._prefix, written)
        except redis.exceptions.ReadOnlyError:
            # A master that became a replica: its name may lead to another one by now.
            pool = getattr(self._client, "connection_pool", None)
            if pool is not None:
                pool.disconnect()
            raise


def _standing(resource: str, now: float) -> tuple[float, str]:
    in_window = resource.startswith(("rpm:", "read_rpm:"))
    return (now - 60.0 if in_window else now), "+inf"


@contextlib.contextmanager
def _out_of_reach() -> Iterator[None]:
    """Whatever Redis answers in place of what it is to do, in the words of the protocol."""
    try:
        yield
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as exc:
        raise ConnectionError(_reason(exc)) from exc
    except (TypeError, ValueError, KeyError, IndexError) as exc:
        raise ConnectionError(
            f"Redis holds what is not ours under our names: {_reason(exc)}"
        ) from exc


def _reason(exc: Exception) -> str:
    said = str(exc).strip() or type(exc).__name__
    return said.splitlines()[0][:200]


# What goes out ----------------------------------------------------------------------------------


def _written(turn: Turn, proposed: str) -> dict[str, Any]:
    """A turn as JSON; numbers that must be exact as strings, since Lua's JSON cuts them."""
    return {
        "worker": turn.worker,
        "onlooker": turn.onlooker,
        "sequence": turn.sequence,
        "since": str(turn.since),
        "known": turn.generation,
        "proposed": proposed,
        "most": MOST_NAMES,
        "jobs": MOST_RUNNING,
        "characters": MOST_CHARACTERS,
        "learned": _learned(turn.batch),
        "orders": [_order(command) for command in turn.commands],
        "asks": [_ask(acquire) for acquire in turn.acquires],
        "running": turn.running,
        "claims": [_claim(claim) for claim in turn.claims],
    }


def _name(*parts: object) -> str:
    return json.dumps(parts, separators=(",", ":"))


def _learned(batch: Batch) -> dict[str, Any]:
    return {
        "sums": [
            [
                _name("sums", *key),
                repr(sums.weight),
                repr(sums.total),
                repr(sums.squares),
                sums.count,
                int(kept_for(key[0])),
            ]
            for key, sums in batch.sums.items()
        ],
        "counts": [
            [_name("counts", *key[:4]), key[4], count, int(kept_for(key[0])), key[4] == "f"]
            for key, count in batch.counts.items()
        ],
        "restored": [[_name("restored", name), repr(at)] for name, at in batch.restored.items()],
        "returned": [[_name("returned", *key), repr(at)] for key, at in batch.returned.items()],
        "ejections": [
            [
                _name("ejections", name, scope, cause.value),
                {
                    "until": repr(ejection.until),
                    "at": repr(ejection.at),
                    "credential": ejection.credential,
                    "step": str(ejection.step),
                    "reason": ejection.reason,
                },
                _undone_by(name, ejection),
            ]
            for (name, scope, cause), ejection in batch.ejections.items()
        ],
        "characters": [
            [_name("characters", *copy), _facts(facts), CHARACTER_SECONDS]
            for copy, facts in batch.characters.items()
        ],
        "changes": [json.dumps(dataclasses.asdict(change)) for change in batch.changes],
    }


def _facts(facts: CharacterFacts) -> dict[str, str]:
    return {"name": facts.name, "width": str(facts.width), "height": str(facts.height)}


def _undone_by(name: str, ejection: Ejection) -> list[str]:
    """The names of what makes an ejection void: a restoration, or all that has returned."""
    sides = ejection.sides if ejection.cause is Cause.FAILURES else ()
    return [_name("restored", name), *(_name("returned", name, side) for side in sides)]


def _order(command: Command) -> dict[str, Any]:
    if isinstance(command, Settle):
        job = command.job
        return {
            "kind": "settle",
            "token": command.token,
            "release": command.release,
            "hold": command.hold,
            "seconds": repr(command.seconds),
            "holder": job.holder if job else "",
            "job": json.dumps(_strings(job)) if job else "",
            "running": _name("running", job.deployment) if job else "",
        }
    if isinstance(command, Seen):
        return {
            "kind": "seen",
            "holder": command.holder,
            "resources": command.resources,
            "status": command.status,
            "ended": command.ended,
            "seconds": repr(command.seconds),
        }
    if isinstance(command, Leave):
        return {"kind": "leave", "ticket": command.ticket, "queues": command.resources}
    if isinstance(command, Spend):
        return {
            "kind": "spend",
            "token": command.token,
            "resource": command.resource,
            "amount": _micros(command.amount),
            "at": repr(command.at),
            "of": command.of,
        }
    if isinstance(command, Renew):
        return {
            "kind": "renew",
            "key": command.key,
            "seconds": repr(command.seconds),
            **_written_record(command.record),
        }
    if isinstance(command, Conclude):
        return {"kind": "conclude", "key": command.key, **_written_record(command.record)}
    assert isinstance(command, Release)
    return {"kind": "release", "holder": command.holder, "resources": command.resources}


_OF_A_JOB = tuple(field.name for field in dataclasses.fields(Job))
_TIMES = {"accepted_at", "seen_at", "length", "waited"}
# In the order in which the script tells of them.
_OF_A_RECORD = tuple(field.name for field in dataclasses.fields(Record))
_STATES = frozenset({SENDING, ACCEPTED, UNKNOWN})


def _strings(job: Job) -> dict[str, str]:
    # One for each submit: `asdict` would take most of the time of a turn that tells of many.
    return {name: str(getattr(job, name)) for name in _OF_A_JOB}


def _written_record(record: Record) -> dict[str, str]:
    return {name: str(getattr(record, name)) for name in _OF_A_RECORD}


def _claim(claim: Claim) -> dict[str, str]:
    return {
        "key": claim.key,
        "token": claim.token,
        "fingerprint": claim.fingerprint,
        "seconds": repr(claim.seconds),
    }


def _micros(amount: int) -> str:
    return str(min(amount, MOST_MICROS))


def _ask(acquire: Acquire) -> dict[str, Any]:
    return {
        "token": acquire.token,
        "ticket": acquire.ticket or "",
        "last": acquire.last,
        "choices": [
            [
                [
                    need.resource,
                    need.limit,
                    need.in_window,
                    repr(acquire.lapse(need)),
                    need.in_day and _micros(need.amount),
                ]
                for need in choice
            ]
            for choice in acquire.choices
        ],
    }


# What comes back --------------------------------------------------------------------------------


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


class _Reading:
    """Reads what comes back, and what another release keeps there, as far as it is understood.

    A release before or after this one may meet us in one namespace, while a fleet is renewed. What
    it has more of is passed by, with one line in the log; it keeps nobody from all the rest.
    """

    def __init__(self) -> None:
        self._puzzled = False

    def news(
        self,
        told: Sequence[Any],
        names: Sequence[Any],
        grants: Sequence[Any],
        ended: Sequence[Any],
    ) -> News:
        seconds, micros, generation, up_to, more, workers = told
        news = News(
            int(seconds) + int(micros) / 1e6,
            _text(generation),
            int(up_to),
            bool(more),
            int(workers),
            grants=tuple(self._grant(grant) for grant in grants),
            ended=tuple(_text(holder) for holder in ended),
        )
        for raw, flat in zip(names[::2], names[1::2], strict=True):
            with self._unless_odd(raw):
                values = [_text(value) for value in flat]
                self._take(news, raw, dict(zip(values[::2], values[1::2], strict=True)))
        return news

    def told(self, raw: bytes | str) -> Told:
        """What a sibling says at once; where that is not understood, that there is news."""
        try:
            said = json.loads(raw)
            news = News(0.0, "", 0)
            for name, at in [*said["restored"], *said["returned"]]:
                self._take(news, name, {"at": at})
            for name, verdict, count in said["failures"]:
                self._take(news, name, {verdict: count})
            for name, fields, _ in said["ejections"]:
                self._take(news, name, fields)
            return Told(_word(said["worker"]), news)
        except (TypeError, ValueError, KeyError, AttributeError):
            return Told(_shown(raw))

    @staticmethod
    def _take(news: News, name: bytes | str, fields: Mapping[str, str]) -> None:
        kind, *key = json.loads(name)
        _TAKEN_IN[kind](news, key, fields)

    def jobs(self, written: Sequence[Any]) -> list[Job]:
        found = list[Job]()
        for raw in written:
            with self._unless_odd(raw):
                found.append(_job(raw))
        return found

    def changes(self, written: Sequence[Any]) -> list[Change]:
        found = list[Change]()
        for raw in written:
            with self._unless_odd(raw):
                found.append(_change(raw))
        return found

    def _grant(self, raw: Sequence[Any]) -> Grant:
        index, full, jobs = raw
        if int(index) >= 0:
            return Grant(int(index))
        known = list[tuple[bool, Job]]()
        for ask, written in jobs:
            with self._unless_odd(written):
                known.append((bool(int(ask)), _job(written)))
        return Grant(
            None,
            tuple((_text(name), float(opens) if opens else None) for name, opens in full),
            tuple(job for ask, job in known if ask),
            tuple(job.accepted_at for _, job in known),
        )

    @contextlib.contextmanager
    def _unless_odd(self, raw: bytes | str) -> Iterator[None]:
        try:
            yield
        except (TypeError, ValueError, KeyError, AttributeError) as exc:
            if not self._puzzled:
                self._puzzled = True
                log.warning(
                    "shared state holds what this release does not understand, and passes by; "
                    "another release in the same namespace? first of it: %.200s (%s)",
                    _shown(raw),
                    _reason(exc),
                    extra=_logs.fields("not-understood"),
                )


def _shown(raw: bytes | str) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw


def _sums(news: News, key: Sequence[Any], fields: Mapping[str, str]) -> None:
    series, name, operation, epoch = key
    weight, total, squares = (float(fields[one]) for one in "wtq")
    sums = Sums(weight, total, squares, int(fields["n"]))
    news.sums[_word(series), _word(name), _word(operation), _number(epoch)] = sums


def _counts(news: News, key: Sequence[Any], fields: Mapping[str, str]) -> None:
    kind, name, operation, epoch = key
    named = _word(kind), _word(name), _word(operation), _number(epoch)
    news.counts.update({(*named, field): int(count) for field, count in fields.items()})


def _restored(news: News, key: Sequence[Any], fields: Mapping[str, str]) -> None:
    (name,) = key
    news.restored[_word(name)] = float(fields["at"])


def _returned(news: News, key: Sequence[Any], fields: Mapping[str, str]) -> None:
    name, side = key
    news.returned[_word(name), _word(side)] = float(fields["at"])


def _running(news: News, key: Sequence[Any], fields: Mapping[str, str]) -> None:
    (name,) = key
    jobs = tuple(_job(written) for holder, written in fields.items() if holder != "count")
    news.running[_word(name)] = Running(jobs, int(fields["count"]))


def _ejections(news: News, key: Sequence[Any], fields: Mapping[str, str]) -> None:
    name, scope, cause = key
    news.ejections[_word(name), _word(scope), Cause(cause)] = Ejection(
        scope,
        float(fields["until"]),
        Cause(cause),
        fields["reason"],
        int(fields["step"]),
        fields["credential"],
        float(fields["at"]),
    )


def _characters(news: News, key: Sequence[Any], fields: Mapping[str, str]) -> None:
    account, native_id = key
    facts = CharacterFacts(fields["name"], int(fields["width"]), int(fields["height"]))
    news.characters[Copy(_word(account), _word(native_id))] = facts


_TAKEN_IN: Mapping[str, Callable[[News, Sequence[Any], Mapping[str, str]], None]] = {
    "sums": _sums,
    "counts": _counts,
    "restored": _restored,
    "returned": _returned,
    "running": _running,
    "ejections": _ejections,
    "characters": _characters,
}


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a word was to be")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} where a number was to be")
    return value


def _job(raw: bytes | str) -> Job:
    """A job as it was written; of what another release tells more, nothing is taken."""
    written = json.loads(raw)
    facts = {name: written[name] for name in _OF_A_JOB if name in written}
    for name in _TIMES & facts.keys():
        facts[name] = float(facts[name])
    return Job(**facts)


def _claimed(raw: Sequence[Any]) -> Claimed:
    """Who may send. What another release has noted there, and how, is an end that nobody knows."""
    mine, written = raw
    facts: dict[str, Any] = dict(zip(_OF_A_RECORD, map(_text, written), strict=True))
    try:
        facts["at"] = float(facts["at"])
    except ValueError:
        facts["at"] = 0.0
    if facts["state"] not in _STATES:
        facts["state"] = UNKNOWN
    return Claimed(bool(int(mine)), Record(**facts))


_OF_A_CHANGE = tuple(field.name for field in dataclasses.fields(Change))


def _change(raw: bytes | str) -> Change:
    written = json.loads(raw)
    return Change(**{name: written[name] for name in _OF_A_CHANGE})
