"""The store in Redis: one script carries out a turn, whole, in one round trip.

It runs on Redis 6.2, 7 and Valkey. All keys bear the namespace as their hash tag, so that a cluster
keeps them together, and the version of their form, so that a later one may change it. What there is
to know of time it asks Redis for. No API key and no prompt gets here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import redis.exceptions

from router.leases import Acquire, Command, Grant, Job, Need, Release, Seen, Settle
from router.observations import HEALTH_BUCKET, SERIES, Batch, Cause, Change, Ejection, Sums
from router.state.sharing import News, Picture, Turn

__all__ = ["RedisStore"]

FORM = "v1"
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

    def turn(self, turn: Turn) -> News:
        written = json.dumps(_written(turn, uuid.uuid4().hex), separators=(",", ":"))
        with _out_of_reach():
            told, names, grants = self._run(written)
            return _news(told, names, grants)

    def picture(self, resources: tuple[str, ...]) -> Picture:
        with _out_of_reach():
            seconds, micros = self._client.time()
            now = int(seconds) + int(micros) / 1e6
            workers = self._client.zrangebyscore(
                f"{self._prefix}workers", now - ALIVE_SECONDS, "+inf", withscores=True
            )
            jobs = [_job(job) for job in self._client.hvals(f"{self._prefix}jobs")]
            changes = self._client.lrange(f"{self._prefix}history", 0, -1)
            counting = self._client.pipeline(transaction=False)
            for resource in resources:
                counting.zcount(f"{self._prefix}{resource}", *_standing(resource, now))
            held = dict(zip(resources, counting.execute(), strict=True))
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
        told = [Change(**json.loads(change)) for change in changes]
        return Picture(now, alive, held, jobs, told, holders)

    def listen(self) -> Generator[str, None, None]:
        """The ids of workers as they have news, and '' once it listens; blocks in between.

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

    def _told(self, heard: Any) -> Iterator[str]:
        asked = False
        while self._heard is heard:
            message = heard.get_message(timeout=SILENT_SECONDS)
            if message is not None:
                asked = False
                if message["type"] != "pong":
                    yield _text(message["data"]) if message["type"] == "message" else ""
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
    except redis.exceptions.RedisError as exc:
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
        "learned": _learned(turn.batch),
        "orders": [_order(command) for command in turn.commands],
        "asks": [_ask(acquire) for acquire in turn.acquires],
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
                # Readers add the two newest epochs.
                int(2 * SERIES[key[0]].epoch),
            ]
            for key, sums in batch.sums.items()
        ],
        "counts": [
            [_name("counts", *key[:4]), key[4], count, _kept(key[0])]
            for key, count in batch.counts.items()
        ],
        "restored": [[_name("restored", name), repr(at)] for name, at in batch.restored.items()],
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
                _name("restored", name),
            ]
            for (name, scope, cause), ejection in batch.ejections.items()
        ],
        "changes": [json.dumps(dataclasses.asdict(change)) for change in batch.changes],
    }


def _kept(kind: str) -> int:
    """Seconds that counts of a kind are kept."""
    return int(2 * SERIES[kind].epoch) if kind in SERIES else int(12 * HEALTH_BUCKET)


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
    assert isinstance(command, Release)
    return {"kind": "release", "holder": command.holder, "resources": command.resources}


def _strings(job: Job) -> dict[str, str]:
    return {name: str(value) for name, value in dataclasses.asdict(job).items()}


def _ask(acquire: Acquire) -> dict[str, Any]:
    return {
        "token": acquire.token,
        "ticket": acquire.ticket or "",
        "choices": [
            [
                [need.resource, need.limit, need.in_window, repr(acquire.lapse(need))]
                for need in choice
            ]
            for choice in acquire.choices
        ],
    }


# What comes back --------------------------------------------------------------------------------


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


def _news(told: Sequence[Any], names: Sequence[Any], grants: Sequence[Any]) -> News:
    seconds, micros, generation, up_to, more, workers = told
    news = News(
        int(seconds) + int(micros) / 1e6,
        _text(generation),
        int(up_to),
        bool(more),
        int(workers),
        grants=tuple(_grant(grant) for grant in grants),
    )
    for raw, flat in zip(names[::2], names[1::2], strict=True):
        kind, *key = json.loads(raw)
        values = [_text(value) for value in flat]
        _take(news, kind, tuple(key), dict(zip(values[::2], values[1::2], strict=True)))
    return news


def _take(news: News, kind: str, key: tuple[Any, ...], fields: Mapping[str, str]) -> None:
    if kind == "sums":
        weight, total, squares = (float(fields[name]) for name in "wtq")
        news.sums[key] = Sums(weight, total, squares, int(fields["n"]))
    elif kind == "counts":
        news.counts.update({(*key, name): int(count) for name, count in fields.items()})
    elif kind == "restored":
        news.restored[key[0]] = float(fields["at"])
    elif kind == "ejections":
        name, scope, cause = key
        news.ejections[name, scope, Cause(cause)] = Ejection(
            scope,
            float(fields["until"]),
            Cause(cause),
            fields["reason"],
            int(fields["step"]),
            fields["credential"],
            float(fields["at"]),
        )


def _grant(raw: Sequence[Any]) -> Grant:
    index, full, jobs = raw
    if int(index) >= 0:
        return Grant(int(index))
    known = [(bool(int(ask)), _job(written)) for ask, written in jobs]
    return Grant(
        None,
        tuple((_text(name), float(opens) if opens else None) for name, opens in full),
        tuple(job for ask, job in known if ask),
        tuple(job.accepted_at for _, job in known),
    )


def _job(raw: bytes | str) -> Job:
    written = json.loads(raw)
    for name in ("accepted_at", "seen_at"):
        written[name] = float(written[name])
    return Job(**written)
