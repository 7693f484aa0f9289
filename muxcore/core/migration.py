"""What of a pool's state survives a config reload. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import evolve

from muxcore.core.records import (
    AnnouncedLimits,
    Candidate,
    Endpoint,
    Health,
    Policy,
    PoolState,
)


def migrate(
    state: PoolState,
    endpoints: Sequence[Endpoint],
    policy: Policy,
    *,
    new_keys: Collection[str] = (),
    same_mode: bool = True,
) -> PoolState:
    """Return the state with which a pool continues under a new config.

    An endpoint at the same place keeps all that is known about it, even if its weight, cap or
    prices differ now. A new key ends its cooldowns, which may have been the old key's
    (`new_keys` holds aliases). Attempts under way are kept, so caps hold through the reload.
    The mode's memory is kept if neither the mode nor anything it weighs has changed.
    """
    known = {c.endpoint.alias: c for c in state.candidates}
    candidates = tuple(
        _migrated(known.get(endpoint.alias), endpoint, new_key=endpoint.alias in new_keys)
        for endpoint in endpoints
    )
    if policy.announced_limits is AnnouncedLimits.IGNORE:
        candidates = tuple(evolve(candidate, headroom=None) for candidate in candidates)
    aliases = {endpoint.alias for endpoint in endpoints}
    before = [_weight_terms(candidate.endpoint) for candidate in state.candidates]
    unchanged = same_mode and before == [_weight_terms(endpoint) for endpoint in endpoints]
    return PoolState(
        candidates,
        policy,
        state.memory if unchanged else None,
        # These never start again: they give attempts their order.
        state.attempts,
        tuple(pin for pin in state.pins if pin.alias in aliases),
        state.last_used if state.last_used in aliases else None,
    )


def is_same_place(one: Endpoint, other: Endpoint) -> bool:
    """Whether both are the same model at the same address, with the same account."""
    return _place(one) == _place(other)


def _migrated(known: Candidate | None, endpoint: Endpoint, *, new_key: bool) -> Candidate:
    if known is None or not is_same_place(known.endpoint, endpoint):
        return Candidate(endpoint)
    if new_key:
        known = forgiven(known)
    if known.endpoint.context_window != endpoint.context_window:
        known = evolve(known, learnt_window=None)
    return evolve(known, endpoint=endpoint)


def forgiven(candidate: Candidate) -> Candidate:
    """Return it without what keeps calls away from it. Its counts stay."""
    return evolve(
        candidate,
        health=Health(under_way=candidate.health.under_way),
        learnt_window=None,
        refutations=(),
        headroom=None,
    )


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
