"""Uploading a large clip: `python -m benchmarks.uploads`.

`avideo_edit` and `video_edit` of a clip of 200 MB from a file, against httpx posting the same form
(`files=`, an open file) to the same upstream, which reads and forgets. In turns: seconds of each,
and with that the throughput. The async bare side opens its file as one must, for httpx reads it on
the event loop; ours reads in a thread, so that the loop goes on meanwhile.

**Memory.** In a process of its own each: how far the peak of what is resident (`VmHWM`) grows when,
after a clip of a tenth, the whole one is sent. What is held in memory is sent from there; what is
read piece by piece leaves it where it was.

A quick run sends 60 MB.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(ROOT)

import httpx  # noqa: E402

from benchmarks.costing.fleet import GROUP, PROMPT, fleet  # noqa: E402
from benchmarks.measure import Figure, Report, ratio, rounds  # noqa: E402
from benchmarks.run import play, told  # noqa: E402
from benchmarks.upstream import upstream  # noqa: E402

MEGABYTES, QUICK_MEGABYTES = 200, 60
THROUGHPUT = 0.9
GROWTH_MEGABYTES = 8.0
CHUNK = 1 << 20
TIMEOUT = httpx.Timeout(120)

WHO = ("router, async", "httpx, async", "router, blocking", "httpx, blocking")


def clip(folder: Path, megabytes: int) -> Path:
    """A file that begins as MP4 does; nobody looks further."""
    path = folder / f"clip-{megabytes}.mp4"
    with path.open("wb") as file:
        file.write(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2")
        file.write(bytes(CHUNK - file.tell()))
        for _ in range(megabytes - 1):
            file.write(bytes(CHUNK))
    return path


def sender(who: str, base_url: str) -> Callable[[Path], float]:
    """Sends a clip and tells the seconds that it took."""
    runner = asyncio.Runner()
    router = fleet(base_url, 1)
    url = f"{base_url}/videos/edits"

    async def arouted(path: Path) -> None:
        await router.avideo_edit(video=path, prompt=PROMPT, model=GROUP)

    async def abare(path: Path) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            with path.open("rb") as file:
                files = {"video": (path.name, file, "video/mp4")}
                answer = await client.post(url, data={"prompt": PROMPT}, files=files)
                answer.raise_for_status()

    def routed(path: Path) -> None:
        router.video_edit(video=path, prompt=PROMPT, model=GROUP)

    def bare(path: Path) -> None:
        with httpx.Client(timeout=TIMEOUT) as client, path.open("rb") as file:
            files = {"video": (path.name, file, "video/mp4")}
            client.post(url, data={"prompt": PROMPT}, files=files).raise_for_status()

    def awaited(send: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
        async def on_loop(path: Path) -> None:
            await send(path)

        return lambda path: runner.run(on_loop(path))

    plain: dict[str, Callable[[Path], None]] = {
        "router, async": awaited(arouted),
        "httpx, async": awaited(abare),
        "router, blocking": routed,
        "httpx, blocking": bare,
    }

    def timed(path: Path) -> float:
        started = time.perf_counter()
        plain[who](path)
        return time.perf_counter() - started

    return timed


def peak() -> int:
    """The most that was resident so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("the kernel does not tell the peak of what is resident")


def grown(who: str, base_url: str, small: Path, large: Path) -> int:
    send = sender(who, base_url)
    send(small)
    before = peak()
    send(large)
    return peak() - before


def grown_in_child(who: str, base_url: str, small: Path, large: Path) -> float:
    """Megabytes."""
    command = [sys.executable, "-m", "benchmarks.uploads", "--one", who, base_url]
    done = subprocess.run(
        [*command, str(small), str(large)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=120,
    )
    return float(json.loads(done.stdout.splitlines()[-1])) / 1e6


def measure(report: Report, *, quick: bool) -> None:
    megabytes = QUICK_MEGABYTES if quick else MEGABYTES
    with (
        tempfile.TemporaryDirectory(prefix="uploads-") as folder,
        upstream() as server,
    ):
        small, large = (clip(Path(folder), size) for size in (megabytes // 10, megabytes))
        senders = {who: sender(who, server.base_url) for who in WHO}
        seen: dict[str, list[float]] = {who: [] for who in WHO}
        for send in senders.values():
            send(small)
        for _ in rounds(9, 8.0 if quick else 30.0):
            for who, send in senders.items():
                seen[who].append(megabytes / send(large))
        held = {who: grown_in_child(who, server.base_url, small, large) for who in WHO}
    name = f"upload of {megabytes} MB"
    figures = [Figure.median(f"{name}: {who}", rates, "MB/s") for who, rates in seen.items()]
    for door in ("async", "blocking"):
        base, ours = seen[f"httpx, {door}"], seen[f"router, {door}"]
        label = f"{name}: throughput over httpx, {door}"
        figures.append(ratio(label, base, ours, THROUGHPUT, at_least=True))
    for who, more in held.items():
        target = GROWTH_MEGABYTES if who.startswith("router") else None
        figures.append(Figure(f"{name}: growth of the peak, {who}", more, "MB", target))
    told(report, f"An upload of {megabytes} MB", figures)


def main(given: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if given is None else given)
    if words[:1] == ["--one"]:
        who, base_url, small, large = words[1:]
        print(json.dumps(grown(who, base_url, Path(small), Path(large))))
        return
    play(
        measure,
        doc=__doc__,
        name="uploads",
        versions=("httpx", "httpcore", "h11"),
        seconds=(100, 240),
        given=words,
    )


if __name__ == "__main__":
    main()
