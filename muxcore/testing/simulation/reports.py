"""Describe the figures of many sessions and storms as text."""

from __future__ import annotations

from collections.abc import Sequence

from muxcore.testing.simulation.sessions import (
    CALLS,
    LATER,
    MODELS,
    Session,
    SessionResult,
    Storm,
)
from muxcore.testing.simulation.worlds import SECOND

LEAST_FINISHED = 0.999
LATEST = 30 * SECOND
"""While all models are down, the pool tries them at other moments than bare vibe does. This is
vibe's longest pause between two retries."""


def describe_sessions(results: Sequence[SessionResult]) -> str:
    count = len(results)
    done = sum(r.pool.finished is not None for r in results)
    lines = [
        f"{count} sessions of {CALLS} calls on {MODELS} models",
        f"finished through the pool: {_share(done, count)}",
    ]
    for number in range(MODELS):
        alone = sum(r.bare[number].finished is not None for r in results)
        lines.append(f"finished by bare vibe on m{number}: {_share(alone, count)}")
    best = sum(r.best is not None for r in results)
    lines.append(f"finished by bare vibe on its best model: {_share(best, count)}")
    late = sorted(((r.late, r.late - r.pool.lost, r.seed) for r in results), reverse=True)
    over = [by for by, _, _ in late if by > LATER]
    unexplained = [seed for _, by, seed in late if by > LATER]
    latest = ", ".join(f"{by / SECOND:.2f} s (seed {seed})" for by, _, seed in late[:3])
    broke = f"{len(unexplained)} {unexplained[:9]}"
    broke = f"of these without an answer cut after its first content: {broke}"
    dark = sum(r.blackout and r.late - r.pool.lost > LATER for r in results)
    lines += [
        f"more than {LATER / SECOND:.0f} s later than on its best model: {len(over)}",
        f"the latest: {latest}",
        broke,
        f"of those with every model down at some moment: {dark}",
        f"requests through the pool: {sum(_requests(r.pool) for r in results):,}",
        *(
            f"requests of bare vibe on m{number}:"
            f" {sum(_requests(r.bare[number]) for r in results):,}"
            for number in range(MODELS)
        ),
    ]
    return "\n".join(lines)


def is_finished(results: Sequence[SessionResult]) -> bool:
    """Whether as many sessions finished as the project promises."""
    done = sum(result.pool.finished is not None for result in results)
    return done >= LEAST_FINISHED * len(results)


def is_kept(results: Sequence[SessionResult]) -> bool:
    """Whether the sessions also finished in the promised time."""
    in_time = all(
        result.late - result.pool.lost <= (LATEST if result.blackout else LATER)
        for result in results
    )
    return is_finished(results) and in_time


def describe_storms(storms: Sequence[Storm]) -> str:
    lines = ["all models down: requests in five minutes to each provider, and by bare vibe"]
    for storm in storms:
        hint = "" if storm.hint is None else f", Retry-After {storm.hint // SECOND}"
        lines.append(
            f"{storm.callers:2} vibes, {storm.models} models, {storm.kind}{hint}: "
            f"{list(storm.each)}, bare {storm.bare}"
            + ("" if storm.is_within else "  TOO MANY")
        )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "none"


def _requests(session: Session) -> int:
    return session.requests.total()
