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
"""Where all models are down at once, nobody knows when one is back: the pool asks each at
moments of its own, and bare vibe at others. This is vibe's own longest pause."""


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
    over = [one for one in late if one[0] > LATER]
    unexplained = [one for one in late if one[1] > LATER]
    latest = ", ".join(f"{by / SECOND:.2f} s (seed {seed})" for by, _, seed in late[:3])
    broke = f"{len(unexplained)} {[seed for *_, seed in unexplained[:9]]}"
    broke = f"of these not for answers that broke off after their first content: {broke}"
    dark = sum(r.blackout and r.late - r.pool.lost > LATER for r in results)
    lines += [
        f"more than {LATER / SECOND:.0f} s later than on its best model: {len(over)}",
        f"the latest: {latest}",
        broke,
        f"of these with every model down at some moment: {dark}",
        f"requests through the pool: {sum(_requests(r.pool) for r in results):,}",
        *(
            f"requests of bare vibe on m{number}:"
            f" {sum(_requests(r.bare[number]) for r in results):,}"
            for number in range(MODELS)
        ),
    ]
    return "\n".join(lines)


def is_finished(results: Sequence[SessionResult]) -> bool:
    """Whether as many sessions finished as is promised."""
    done = sum(result.pool.finished is not None for result in results)
    return done >= LEAST_FINISHED * len(results)


def is_kept(results: Sequence[SessionResult]) -> bool:
    """Whether the sessions kept all that is promised, also when they finish."""
    in_time = all(
        result.late - result.pool.lost <= (LATEST if result.blackout else LATER)
        for result in results
    )
    return is_finished(results) and in_time


def describe_storms(storms: Sequence[Storm]) -> str:
    lines = ["all models down, requests in five minutes: what each provider sees, and bare"]
    for one in storms:
        hint = "" if one.hint is None else f", Retry-After {one.hint // SECOND}"
        lines.append(
            f"{one.callers:2} vibes, {one.models} models, {one.kind}{hint}: "
            f"{list(one.each)}, bare {one.bare}" + ("" if one.is_within else "  TOO MANY")
        )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "none"


def _requests(session: Session) -> int:
    return session.requests.total()
