"""Runs, described as values, and played in as many processes as there are cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import connection

from benchmarks.peer import is_installed
from benchmarks.quality.contenders import Central
from benchmarks.quality.fleet import Fleet
from benchmarks.quality.peer import PEERS, LiteLLM
from benchmarks.quality.scenarios import SCENARIOS, TRIALS, Scenario
from benchmarks.quality.simulation import Result, Simulation
from router.balancing import STRATEGIES

__all__ = ["JUDGED", "REFERENCE", "Played", "Run", "played", "scenario_of", "the_peers"]

REFERENCE = "reference"
JUDGED = "lowest-completion"
"""The strategy that the figures are asked of."""


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One contender in one scenario. `workers` counts for our strategies alone, and is 0 else."""

    scenario: str
    load: float
    contender: str
    workers: int
    seed: int


@dataclass(frozen=True, slots=True)
class Played:
    """A run and what came of it, and the processor's seconds that it took."""

    run: Run
    result: Result
    seconds: float


def scenario_of(name: str) -> Scenario:
    return {**SCENARIOS, **TRIALS}[name]()


def the_peers() -> tuple[str, ...]:
    """The names of the peer's strategies as contenders; none where it is not installed."""
    return tuple(f"litellm {name}" for name in PEERS) if is_installed() else ()


def played(runs: Iterable[Run]) -> Iterator[Played]:
    """Play all of these; the results come as they are ready."""
    # The long ones first, so that no core has nothing to do at the end.
    planned = sorted(runs, key=lambda run: -run.workers)
    # Not forked: the peer leaves threads, and one process must not draw from another's chance.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_cores(), context, initializer=_end_with_parent) as pool:
        running = [pool.submit(play, run) for run in planned]
        try:
            for future in as_completed(running):
                yield future.result()
        finally:
            for future in running:
                future.cancel()


def _end_with_parent() -> None:
    """A run that is stopped by force leaves nobody behind who waits for work."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2


def play(run: Run) -> Played:
    # Ejections are logged, and there are thousands of them.
    logging.disable(logging.ERROR)
    began = time.process_time()
    world = Simulation(scenario_of(run.scenario).at(run.load), run.seed)
    if run.contender == REFERENCE:
        result = world.run(Central(world))
    elif run.contender in STRATEGIES:
        result = world.run(Fleet(world, run.contender, run.workers, run.seed))
    else:
        peer = LiteLLM(world, run.contender.partition(" ")[2], run.seed)
        result = world.run(peer)
        peer.close()
    return Played(run, result, time.process_time() - began)
