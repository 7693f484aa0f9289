"""Which of what is known outlives a change of the config. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import evolve

from muxcore.core.records import Candidate, Endpoint, Health, Policy, PoolState


def migrate(
    state: PoolState,
    endpoints: Sequence[Endpoint],
    policy: Policy,
    *,
    new_keys: Collection[str] = (),
    same_mode: bool = True,
) -> PoolState:
    """Return the state with which a pool goes on after its config has changed.

    An endpoint that is still the same place keeps all that is known of it, though its
    weight, cap or prices may differ now; a new key (`new_keys` are aliases) ends its spells,
    since they may have been the old one's. Attempts under way are kept, so caps hold through
    the change. The mode's memory is kept if neither the mode nor what it weighs has changed.
    """
    known = {c.endpoint.alias: c for c in state.candidates}
    candidates = tuple(
        _migrated(known.get(endpoint.alias), endpoint, new_key=endpoint.alias in new_keys)
        for endpoint in endpoints
    )
    aliases = {endpoint.alias for endpoint in endpoints}
    before = [_weight_terms(candidate.endpoint) for candidate in state.candidates]
    unchanged = same_mode and before == [_weight_terms(endpoint) for endpoint in endpoints]
    return PoolState(
        candidates,
        policy,
        state.memory if unchanged else None,
        # Never from the start again: order is told by these numbers.
        state.attempts,
        tuple(pin for pin in state.pins if pin.alias in aliases),
        state.last_used if state.last_used in aliases else None,
    )


def is_same_place(one: Endpoint, other: Endpoint) -> bool:
    """Whether both are the same model at the same address, asked in the same name."""
    return _place(one) == _place(other)


def _migrated(known: Candidate | None, endpoint: Endpoint, *, new_key: bool) -> Candidate:
    if known is None or not is_same_place(known.endpoint, endpoint):
        return Candidate(endpoint)
    health = Health(under_way=known.health.under_way) if new_key else known.health
    return evolve(known, endpoint=endpoint, health=health)


def _place(endpoint: Endpoint) -> tuple[object, ...]:
    wire = endpoint.wire
    address = (wire.api_base, wire.key_variable, wire.extra_headers)
    return (endpoint.alias, endpoint.model, endpoint.dialect, *address)


def _weight_terms(endpoint: Endpoint) -> tuple[object, ...]:
    return (
        endpoint.weight,
        endpoint.is_fallback,
        endpoint.input_price,
        endpoint.output_price,
        endpoint.cached_input_price,
        *_place(endpoint),
    )
