"""The leases of one process: what its calls want, what the board grants, what is given back.

The pool's state counts the leases that are free to use, and its attempts use the others. So
what must be held follows from the state alone, and any lease of a place is as good as another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime

from attrs import define, field

from muxcore.core.entries import Heard
from muxcore.core.folding.leases import LeaseWanted
from muxcore.core.records import Candidate, Health, PoolState
from muxcore.core.sharing.facts import LeasesChanged
from muxcore.plugins.board import Board, SlotLease

RENEW_SECONDS = 5.0
UNUSED_SECONDS = 0.05
"""A lease that is free this long is given back: its call has gone elsewhere."""
PROBE = "probe:"
"""The prefix of the name under which a place's probes are leased, with a cap of one."""


@define(eq=False)
class _Lane:
    """The leases of one endpoint's slots, or of its probe."""

    held: list[SlotLease] = field(factory=list)
    asked: list[SlotLease] = field(factory=list)
    free_since: float = 0.0
    attempts: int = 0
    """How many attempts had begun when the last lease was granted."""


def _is_probing(health: Health, lane: _Lane, now: datetime) -> bool:
    """Whether the lease of a probe is in use.

    If this process hears of a failure while its probe runs, its state no longer counts that
    attempt as a probe. The lease stays in use: a process that has not heard must not probe too.
    """
    is_under_way = any(attempt > lane.attempts for attempt in health.under_way)
    is_disabled = health.active_cooldown(now) is not None
    return health.probed(now) or (bool(lane.held) and is_disabled and is_under_way)


class Leasing:
    """The leases of a pool on one board, from its opening to its end. One thread uses it."""

    def __init__(self, board: Board, record: Callable[[Heard], None]) -> None:
        self._board = board
        self._record = record
        self._slots: dict[str, _Lane] = {}
        self._probes: dict[str, _Lane] = {}
        self._renewed_at = float("-inf")
        self.aliases: frozenset[str] = frozenset()
        """The endpoints of which leases are held: the end of an attempt there is urgent."""

    @property
    def is_waiting(self) -> bool:
        """Whether a lease is asked for that the board has not granted."""
        lanes = (*self._slots.values(), *self._probes.values())
        return any(lane.asked for lane in lanes)

    def step(
        self,
        state: PoolState,
        places: dict[str, str],
        wanted: Iterable[LeaseWanted],
        now: datetime,
        elapsed: float,
    ) -> None:
        """Ask for what is wanted, use what is granted, and give back what is not needed."""
        slots: Counter[str] = Counter()
        probes: Counter[str] = Counter()
        for one in wanted:
            slots[one.alias] += one.slot
            probes[one.alias] += one.probe
        for candidate in state.candidates:
            alias = candidate.endpoint.alias
            place = places.get(alias)
            if place is None:
                continue
            if candidate.leases is None:
                self._share(candidate, place)
                continue
            cap = candidate.endpoint.max_concurrent
            in_flight, free = candidate.health.in_flight, candidate.leases
            lane = self._slots.setdefault(alias, _Lane())
            if cap is not None or lane.held:
                held = free.slots + (in_flight if cap is not None else 0)
                want = min(slots[alias], (cap or 0) - held)
                granted = self._serve(lane, place, cap or 0, held, want)
                unused = self._unused(lane, free.slots, slots[alias], elapsed)
                self._change(alias, slots=granted - unused)
            lane = self._probes.setdefault(alias, _Lane())
            held = free.probes + _is_probing(candidate.health, lane, now)
            want = min(probes[alias], 1 - held)
            granted = self._serve(lane, PROBE + place, 1, held, want)
            if granted:
                lane.attempts = state.attempts
            unused = self._unused(lane, free.probes, probes[alias], elapsed)
            self._change(alias, probes=granted - unused)
        self.aliases = frozenset(
            alias
            for lanes in (self._slots, self._probes)
            for alias, lane in lanes.items()
            if lane.held
        )
        if (
            self.aliases or self.is_waiting
        ) and elapsed - self._renewed_at >= RENEW_SECONDS:
            self._board.renew()
            self._renewed_at = elapsed

    def _share(self, candidate: Candidate, place: str) -> None:
        """Begin to share this place. Attempts under way take leases, over the cap if need be."""
        alias, cap = candidate.endpoint.alias, candidate.endpoint.max_concurrent
        self._record(Heard(alias, LeasesChanged()))
        if cap is not None:
            lane = self._slots.setdefault(alias, _Lane())
            for _ in range(candidate.health.in_flight):
                lane.held.append(self._board.take(place, cap))

    def _serve(self, lane: _Lane, place: str, cap: int, needed: int, want: int) -> int:
        """Give back, ask, and ask again; return how many leases were granted."""
        board = self._board
        while len(lane.held) > needed:
            board.give_back(lane.held[0])
            del lane.held[0]
        while len(lane.asked) > max(0, want):
            board.give_back(lane.asked[-1])
            del lane.asked[-1]
        while len(lane.asked) < want:
            lane.asked.append(board.take(place, cap))
        granted = 0
        for lease in tuple(lane.asked):
            now = lease if lease.granted else board.take(place, cap, lease.ticket)
            if now.granted:
                # A busy board may raise at the next one: nothing is counted twice then.
                lane.asked.remove(lease)
                lane.held.append(now)
                granted += 1
        return granted

    def _unused(self, lane: _Lane, free: int, demand: int, elapsed: float) -> int:
        """Return how many free leases no call has used for a while."""
        if not free or demand:
            lane.free_since = elapsed
            return 0
        return free if elapsed - lane.free_since > UNUSED_SECONDS else 0

    def _change(self, alias: str, *, slots: int = 0, probes: int = 0) -> None:
        if slots or probes:
            self._record(Heard(alias, LeasesChanged(slots, probes)))
