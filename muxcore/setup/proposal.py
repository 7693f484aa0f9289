"""Which models can be in a pool now: their keys are found and their servers respond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from attrs import evolve, frozen

from muxcore.config import keys
from muxcore.config.addresses import is_loopback
from muxcore.config.definitions import Definitions, active_model
from muxcore.config.read import Document
from muxcore.config.resolve import resolve
from muxcore.core.phases import SINGLE
from muxcore.core.text import printable
from muxcore.errors import ConfigError
from muxcore.setup.model_servers import at_once, models_at
from muxcore.setup.section_edit import ProposedEntry, Wanted

LOAD_BALANCE = "load_balance"
FAILOVER = "failover"

Answers = Callable[[str], bool]


@frozen
class PoolCandidate:
    """A model of the config. `hindrance` is the reason why it cannot serve now, "" if it can."""

    alias: str
    host: str = ""
    api_base: str = ""
    hindrance: str = ""

    @property
    def is_ready(self) -> bool:
        return not self.hindrance

    @property
    def is_local(self) -> bool:
        return bool(self.api_base) and is_loopback(self.api_base)

    def __str__(self) -> str:
        where = f" at {printable(self.host)}" if self.host else ""
        return f"{printable(self.alias)}{where}: {printable(self.hindrance) or 'ready'}"


def candidates(
    document: Document, environment: Mapping[str, str], answers: Answers | None = None
) -> tuple[PoolCandidate, ...]:
    """Judge every model of the config, the active one first."""
    aliases = _aliases(document, environment)
    found = [_judged(alias, document, environment) for alias in aliases]
    return _probed(found, answers or server_answers)


def pool_of(aliases: Sequence[str], mode: str) -> tuple[ProposedEntry, ...]:
    """Make a pool in order of preference. Where the load is shared, all are primaries."""
    shared = mode == LOAD_BALANCE
    return tuple(
        ProposedEntry(alias, is_fallback=place > 0 and not shared)
        for place, alias in enumerate(aliases)
    )


def wanted_of(
    now: Wanted | None,
    found: Sequence[PoolCandidate],
    *,
    mode: str | None,
    models: Sequence[str],
    fallbacks: Sequence[str],
) -> Wanted:
    """Combine the options of the command, the present section, and the models that are ready."""
    kept = now.mode if now is not None and now.mode not in {"", SINGLE} else FAILOVER
    chosen = mode or kept
    ready = [candidate.alias for candidate in found if candidate.is_ready]
    proposed = now.pool if now is not None else pool_of(ready, chosen)
    if not models and not fallbacks:
        return Wanted(chosen, proposed)
    primaries = list(models) or [e.alias for e in proposed if not e.is_fallback]
    return Wanted(
        chosen,
        (
            *(ProposedEntry(alias) for alias in primaries if alias not in fallbacks),
            *(ProposedEntry(alias, is_fallback=True) for alias in fallbacks),
        ),
    )


def server_answers(api_base: str) -> bool:
    """Whether a server on this machine responds at all."""
    return models_at(api_base) is not None


def _aliases(document: Document, environment: Mapping[str, str]) -> list[str]:
    """Return the models to choose from, the active one first."""
    definitions = Definitions.of(document.data)
    variables = keys.variables(environment, document.directory)
    active = active_model(document.data, variables).name
    return list(dict.fromkeys([active, *definitions.offered(), "local"]))


def _judged(
    alias: str, document: Document, environment: Mapping[str, str]
) -> PoolCandidate:
    """Apply the rules of the config to a pool of this model alone."""
    pool = {"enabled": True, "mode": FAILOVER, "pool": [{"model": alias}]}
    # Without its text, which has no line for this pool.
    alone = evolve(document, data={**document.data, "multiplexer": pool}, text="")
    try:
        endpoint = resolve(alone, environment).endpoints[0]
    except ConfigError as error:
        return PoolCandidate(
            alias, hindrance=error.problems[0].removeprefix(f"{alone.label}: ")
        )
    api_base = endpoint.wire.api_base
    return PoolCandidate(endpoint.alias, urlsplit(api_base).netloc, api_base)


def _probed(found: Sequence[PoolCandidate], answers: Answers) -> tuple[PoolCandidate, ...]:
    """Find out which servers on this machine respond, all at once."""
    hosts = dict.fromkeys(c.api_base for c in found if c.is_ready and c.is_local)
    up = at_once(answers, hosts)
    return tuple(
        evolve(c, hindrance="no server answers there")
        if not up.get(c.api_base, True)
        else c
        for c in _once(found)
    )


def _once(found: Sequence[PoolCandidate]) -> list[PoolCandidate]:
    """Return each model once: an alias that vibe renamed means its new name."""
    first: dict[str, PoolCandidate] = {}
    for candidate in found:
        first.setdefault(candidate.alias, candidate)
    return list(first.values())
