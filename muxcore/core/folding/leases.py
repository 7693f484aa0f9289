"""Leases: slots and probes of a place which the board grants to this process. Pure.

Across processes, an attempt on an endpoint with a cap takes a lease of a slot, and the probe
after a cooldown takes a lease of the probe. The state counts those that are free to use; the
attempts under way use the others.
"""

from __future__ import annotations

from datetime import datetime

from attrs import evolve, frozen

from muxcore.core.records import Call, Candidate, FreeLeases, Picked, PoolState
from muxcore.core.selection import select
from muxcore.core.sharing.facts import LeasesChanged
from muxcore.core.strategy import Strategy
from muxcore.errors import StrategyError


@frozen
class LeaseWanted:
    """What a call lacks to attempt the endpoint that it would pick."""

    alias: str
    slot: bool
    probe: bool


def after_start(candidate: Candidate) -> FreeLeases | None:
    """Return the leases that are left once an attempt has begun."""
    leases = candidate.leases
    if leases is None:
        return None
    capped = candidate.endpoint.max_concurrent is not None
    slots = leases.slots - (capped and leases.slots > 0)
    probes = leases.probes - (candidate.health.unproven and leases.probes > 0)
    return FreeLeases(slots, probes)


def changed(candidate: Candidate, change: LeasesChanged) -> Candidate:
    """Return the candidate after the board has granted leases, or they were given back."""
    if not change.shared:
        return evolve(candidate, leases=None)
    before = candidate.leases or FreeLeases()
    slots = max(0, before.slots + change.slots)
    probes = max(0, before.probes + change.probes)
    return evolve(candidate, leases=FreeLeases(slots, probes))


def lease_wanted(
    state: PoolState, mode: Strategy, now: datetime, call: Call
) -> LeaseWanted | None:
    """Return what the call needs of the board for what it would pick if it had it."""
    if not any(_lacks(candidate, now) for candidate in state.candidates):
        return None
    # As if no board shared the places.
    unshared = tuple(evolve(candidate, leases=None) for candidate in state.candidates)
    try:
        choice = select(evolve(state, candidates=unshared), mode, now, call)
    except StrategyError:
        # The choice itself will raise it, for the call that it belongs to.
        return None
    if not isinstance(choice, Picked):
        return None
    picked = state[choice.endpoint.alias]
    return _lacks(picked, now)


def _lacks(candidate: Candidate, now: datetime) -> LeaseWanted | None:
    """Return the leases without which this endpoint is closed, though it is not full here."""
    leases, endpoint, health = candidate.leases, candidate.endpoint, candidate.health
    if leases is None:
        return None
    cap = endpoint.max_concurrent
    slot = cap is not None and not leases.slots and health.in_flight < cap
    probe = candidate.needs_probe_lease(now) and not health.probed(now)
    return LeaseWanted(endpoint.alias, slot, probe) if slot or probe else None
