"""`python -m muxcore.testing.simulate`: check the rules in thousands of simulated worlds.

    python -m muxcore.testing.simulate                  10,000 worlds of 100 calls each
    python -m muxcore.testing.simulate --seed 117       one of them, line by line
    python -m muxcore.testing.simulate --sessions 1000  whole sessions of vibe, with and without

A world that breaks a rule is shrunk as far as possible and printed. The exit status is 0 if
every rule holds.
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
from muxcore.testing.simulation.comparison import Comparison, compare
from muxcore.testing.simulation.reports import (
    describe_sessions,
    describe_storms,
    is_finished,
    is_kept,
)
from muxcore.testing.simulation.sessions import session_results, storms
from muxcore.testing.simulation.shrinking import shrink
from muxcore.testing.simulation.timeline import BrokenWorldError
from muxcore.testing.simulation.world_run import run
from muxcore.testing.simulation.worlds import CALLS, World, world_of

WORLDS = 10_000
BATCH = 25
"""The number of worlds that a process gets at a time."""
COMPARED_ONE_IN = 10
"""The pool of every tenth world is compared with each of its models alone."""


@frozen
class Batch:
    """The results of some worlds."""

    calls: int
    attempts: int
    steps: int
    compared: int
    endings: Counter[str]
    served: Counter[str]
    digests: tuple[str, ...]
    broken: tuple[tuple[int, str], ...]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.sessions:
        return _sessions(options)
    if options.seed is not None:
        return _one(options.seed, options.calls)
    return _many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("muxcore.testing.simulate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, help="run this one world and print its trace")
    parser.add_argument("--worlds", type=int, default=WORLDS, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls in each world")
    parser.add_argument("--sessions", type=int, default=0, help="run this many sessions")
    parser.add_argument(
        "--refusals", action="store_true", help="models refuse what others take"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="how many processes to use",
    )
    return parser


def _many(options: argparse.Namespace) -> int:
    began = clock.elapsed()
    seeds = range(options.first, options.first + options.worlds)
    starts = range(seeds.start, seeds.stop, BATCH)
    work = [range(s, min(s + BATCH, seeds.stop)) for s in starts]
    totals: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    served: Counter[str] = Counter()
    digest = hashlib.sha256()
    broken: list[tuple[int, str]] = []
    with _mapping(options.processes) as mapped:
        for batch in mapped(partial(_batch, calls=options.calls), work):
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
        f"{options.worlds:,} worlds, {totals['calls']:,} calls, {totals['attempts']:,} attempts,"
        f" {totals['steps']:,} steps: {len(broken)} broken"
    )
    _print(
        f"{totals['compared']:,} pools compared with each of their models alone: served"
        f" {served['pool']:,} calls, the best model of each alone {served['best']:,};"
        f" the pools missed {served['missed']:,} calls that a model alone happened to serve"
    )
    _print(f"{seconds:.0f} s, {totals['calls'] / seconds:,.0f} calls/s")
    _print(", ".join(f"{how}: {number:,}" for how, number in endings.most_common()))
    _print(f"hash of everything that happened: {digest.hexdigest()}")
    for seed, text in broken[:10]:
        _print(f"seed {seed}: {text}")
    for seed, text in broken:
        if not text.startswith("rule 11"):
            # For a comparison, `--seed` prints more.
            _one(seed, options.calls)
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
            result = run(world_of(seed, calls))
            if seed % COMPARED_ONE_IN == 0:
                comparison = compare(seed)
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
            number += len(result.endings)
            steps += result.steps
            attempts += result.attempts
            endings.update(result.endings)
            digests.append(result.digest)
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
    smallest = shrink(world)
    if smallest is not None:
        _print(f"\nseed {seed}, shrunk as far as possible: {smallest.error}")
        _print_world(smallest.world)
        _print("\n".join(smallest.error.trace))
        return 1
    _print_world(world)
    result = run(world, keep=True)
    _print("\n".join(result.trace))
    _print(f"hash of everything that happened: {result.digest}")
    comparison: Comparison = compare(seed)
    _print(str(comparison))
    return 1 if comparison.worse else 0


def _print_world(world: World) -> None:
    _print(f"mode {world.mode}, {world.policy}")
    for model in world.models:
        endpoint = model.endpoint
        _print(
            f"{endpoint.alias}: weight {endpoint.weight},"
            f" max_concurrent {endpoint.max_concurrent},"
            f" fallback {endpoint.is_fallback}, window {endpoint.context_window},"
            f" {endpoint.dialect};"
            f" {model.usual}"
        )
        for period in model.periods:
            _print(f"    {period}")
    for event in chain(world.arrivals, world.happenings):
        _print(f"  {event}")


def _sessions(options: argparse.Namespace) -> int:
    began = clock.elapsed()
    seeds = range(options.first, options.first + options.sessions)
    with _mapping(options.processes) as mapped:
        work = [range(s, min(s + BATCH, seeds.stop)) for s in seeds[::BATCH]]
        run_sessions = partial(session_results, refusals=options.refusals)
        results = list(chain.from_iterable(mapped(run_sessions, work)))
    storm_results = storms()
    _print(describe_sessions(results))
    _print(describe_storms(storm_results))
    _print(f"{clock.elapsed() - began:.0f} s")
    # Where models refuse, a session may have to wait for a second opinion.
    kept = is_finished(results) if options.refusals else is_kept(results)
    return 0 if kept and all(storm.is_within for storm in storm_results) else 1


@contextmanager
def _mapping(processes: int) -> Iterator[Any]:
    if processes == 1:
        yield map
        return
    # "spawn" works the same on every system.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield pool.map


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
