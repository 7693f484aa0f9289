"""`python -m muxcore.testing.simulate`: thousands of made-up worlds, or one of them.

    python -m muxcore.testing.simulate                  10,000 worlds of 100 calls each
    python -m muxcore.testing.simulate --seed 117       one of them, told line by line
    python -m muxcore.testing.simulate --sessions 1000  whole sessions of vibe, with and without

A world that breaks a rule is made as small as it can be, and told. Exit 0 when all is well.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from multiprocessing import get_context
from typing import Any

from attrs import frozen

from muxcore.shell import clock
from muxcore.testing.simulation.comparison import Comparison, compared
from muxcore.testing.simulation.reports import (
    describe_sessions,
    describe_storms,
    is_finished,
    is_kept,
)
from muxcore.testing.simulation.sessions import session_results, storms
from muxcore.testing.simulation.shrinking import shrunk
from muxcore.testing.simulation.timeline import BrokenWorldError
from muxcore.testing.simulation.world_run import run
from muxcore.testing.simulation.worlds import CALLS, World, world_of

WORLDS = 10_000
BATCH = 25
"""Worlds that a process is handed at a time."""
COMPARED_ONE_IN = 10
"""Worlds whose pool is compared with each of its models alone."""


@frozen
class Batch:
    """What came of some worlds."""

    calls: int
    attempts: int
    steps: int
    compared: int
    endings: Counter[str]
    served: Counter[str]
    digests: tuple[str, ...]
    broken: tuple[tuple[int, str], ...]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    if asked.sessions:
        return _sessions(asked)
    if asked.seed is not None:
        return _one(asked.seed, asked.calls)
    return _many(asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("muxcore.testing.simulate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, help="run this one world and tell of it")
    parser.add_argument("--worlds", type=int, default=WORLDS, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls in each world")
    parser.add_argument("--sessions", type=int, default=0, help="run so many sessions")
    parser.add_argument(
        "--refusals", action="store_true", help="models refuse what others take"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="how many at once"
    )
    return parser


def _many(asked: argparse.Namespace) -> int:
    began = clock.elapsed()
    seeds = range(asked.first, asked.first + asked.worlds)
    starts = range(seeds.start, seeds.stop, BATCH)
    work = [range(s, min(s + BATCH, seeds.stop)) for s in starts]
    totals: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    served: Counter[str] = Counter()
    digest = hashlib.sha256()
    broken: list[tuple[int, str]] = []
    with _mapping(asked.processes) as mapped:
        for batch in mapped(partial(_batch, calls=asked.calls), work):
            totals.update(
                calls=batch.calls,
                attempts=batch.attempts,
                steps=batch.steps,
                compared=batch.compared,
            )
            endings += batch.endings
            served += batch.served
            digest.update("".join(batch.digests).encode())
            broken += batch.broken
    seconds = clock.elapsed() - began
    _print(
        f"{asked.worlds:,} worlds, {totals['calls']:,} calls, {totals['attempts']:,} attempts,"
        f" {totals['steps']:,} steps: {len(broken)} broken"
    )
    _print(
        f"{totals['compared']:,} pools compared with each of their models alone: served"
        f" {served['pool']:,} calls, the best model of each alone {served['best']:,};"
        f" {served['missed']:,} that a model alone happened to serve were missed"
    )
    _print(f"{seconds:.0f} s, {totals['calls'] / seconds:,.0f} calls/s")
    _print(", ".join(f"{how}: {number:,}" for how, number in endings.most_common()))
    _print(f"hash of all that happened: {digest.hexdigest()}")
    for seed, text in broken[:10]:
        _print(f"seed {seed}: {text}")
    for seed, text in broken:
        if not text.startswith("rule 11"):
            # What happened in a comparison is told by `--seed`, if it is asked for.
            _one(seed, asked.calls)
            break
    return 1 if broken else 0


def _batch(seeds: range, calls: int) -> Batch:
    steps = attempts = number = comparisons = 0
    endings: Counter[str] = Counter()
    served: Counter[str] = Counter()
    digests: list[str] = []
    broken: list[tuple[int, str]] = []
    for seed in seeds:
        try:
            done = run(world_of(seed, calls))
            if seed % COMPARED_ONE_IN == 0:
                comparison = compared(seed)
                comparisons += 1
                broken += [(seed, text) for text in comparison.worse]
                served.update(
                    pool=comparison.together,
                    best=max(comparison.alone),
                    missed=comparison.missed,
                )
        except BrokenWorldError as error:
            broken.append((seed, str(error)))
        else:
            number += len(done.endings)
            steps += done.steps
            attempts += done.attempts
            endings.update(done.endings)
            digests.append(done.digest)
    return Batch(
        number,
        attempts,
        steps,
        comparisons,
        endings,
        served,
        tuple(digests),
        tuple(broken),
    )


def _one(seed: int, calls: int) -> int:
    world = world_of(seed, calls)
    smallest = shrunk(world)
    if smallest is not None:
        _print(f"\nseed {seed}, the shortest that was found: {smallest.error}")
        _print_world(smallest.world)
        _print("\n".join(smallest.error.trace))
        return 1
    _print_world(world)
    done = run(world, keep=True)
    _print("\n".join(done.trace))
    _print(f"hash of all that happened: {done.digest}")
    comparison: Comparison = compared(seed)
    _print(str(comparison))
    return 1 if comparison.worse else 0


def _print_world(world: World) -> None:
    _print(f"mode {world.mode}, {world.policy}")
    for model in world.models:
        end = model.endpoint
        _print(
            f"{end.alias}: weight {end.weight}, max_concurrent {end.max_concurrent},"
            f" fallback {end.is_fallback}, window {end.context_window}, {end.dialect};"
            f" {model.usual}"
        )
        for period in model.periods:
            _print(f"    {period}")
    for one in chain(world.arrivals, world.happenings):
        _print(f"  {one}")


def _sessions(asked: argparse.Namespace) -> int:
    began = clock.elapsed()
    seeds = range(asked.first, asked.first + asked.sessions)
    with _mapping(asked.processes) as mapped:
        work = [range(s, min(s + BATCH, seeds.stop)) for s in seeds[::BATCH]]
        go_through = partial(session_results, refusals=asked.refusals)
        results = list(chain.from_iterable(mapped(go_through, work)))
    stormy = storms()
    _print(describe_sessions(results))
    _print(describe_storms(stormy))
    _print(f"{clock.elapsed() - began:.0f} s")
    # Where models refuse, a session may have to wait for a second opinion.
    kept = is_finished(results) if asked.refusals else is_kept(results)
    return 0 if kept and all(one.is_within for one in stormy) else 1


@contextmanager
def _mapping(processes: int) -> Iterator[Any]:
    if processes == 1:
        yield map
        return
    # Never by forking: it works alike everywhere.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield pool.map


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
