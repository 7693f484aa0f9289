"""Connects a multiplexer's pool to a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from muxcore.board.link import PoolSide
from muxcore.board.places import place_of
from muxcore.board.thread import BoardThread
from muxcore.core.folding.leases import LeaseWanted, lease_wanted
from muxcore.core.records import Call
from muxcore.shell import clock
from muxcore.shell.call.member import Runtime
from muxcore.shell.factory import BoardSource
from muxcore.shell.pool.parker import Parker

MOST_ASKED_FOR = 64
"""The most waiting calls for which leases are asked at once."""


def share(runtime: Runtime, source: BoardSource) -> BoardThread:
    """Start the thread that shares what this pool learns."""
    pool, members = runtime.pool, runtime.members

    def places(salt: bytes) -> Mapping[str, str]:
        return {
            candidate.endpoint.alias: place_of(
                candidate.endpoint, members[candidate.endpoint.alias].account, salt
            )
            for candidate in pool.state.candidates
        }

    def lacks(call: Call) -> LeaseWanted | None:
        return lease_wanted(pool.state, pool.strategy, clock.now(), call)

    def wanted() -> Sequence[LeaseWanted]:
        calls = pool.waiting_calls()[:MOST_ASKED_FOR]
        return [found for call in calls if (found := lacks(call)) is not None]

    side = PoolSide(
        state=lambda: pool.state,
        checkpoint=pool.checkpoint,
        record=pool.record,
        follow=pool.journal.follow,
        places=places,
        now=clock.now,
        elapsed=clock.elapsed,
        lacks=lacks,
        wanted=wanted,
    )
    thread = BoardThread(source.open, side, Parker, source.timeout)
    pool.acquire = thread.acquire
    return thread
