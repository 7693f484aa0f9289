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
from muxcore.errors import ConfigError
from muxcore.setup.model_servers import at_once, list_at, served_model
from muxcore.setup.section_edit import ProposedEntry, Wanted
from muxcore.text import printable

LOAD_BALANCE = "load_balance"
FAILOVER = "failover"

ListAt = Callable[[str], object]


@frozen
class PoolCandidate:
    """A model of the config. `hindrance` is the reason why it cannot serve now, "" if it can.

    `context_window`, in tokens, is the config's or what a server on this machine says;
    `advice` is what to change in the config about images, "" for nothing.
    """

    alias: str
    host: str = ""
    api_base: str = ""
    hindrance: str = ""
    model: str = ""
    context_window: int | None = None
    supports_images: bool = False
    advice: str = ""

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
    document: Document, environment: Mapping[str, str], list_of: ListAt | None = None
) -> tuple[PoolCandidate, ...]:
    """Judge every model of the config, the active one first."""
    aliases = _aliases(document, environment)
    found = [_judged(alias, document, environment) for alias in aliases]
    return _probed(found, list_of or list_at)


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


def with_windows(
    wanted: Wanted, now: Wanted | None, found: Sequence[PoolCandidate]
) -> Wanted:
    """Write in each entry the window that it has now, else what a server on this machine says."""
    windows = {c.alias: c.context_window for c in found if c.is_local}
    windows |= {
        e.alias: e.context_window for e in (now.pool if now else ()) if e.context_window
    }
    pool = (evolve(e, context_window=windows.get(e.alias)) for e in wanted.pool)
    return evolve(wanted, pool=tuple(pool))


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
    return PoolCandidate(
        endpoint.alias,
        urlsplit(api_base).netloc,
        api_base,
        model=endpoint.model,
        context_window=endpoint.context_window,
        supports_images=endpoint.wire.supports_images,
    )


def _probed(found: Sequence[PoolCandidate], list_of: ListAt) -> tuple[PoolCandidate, ...]:
    """Find out which servers on this machine respond and what they say, all at once."""
    hosts = dict.fromkeys(c.api_base for c in found if c.is_ready and c.is_local)
    lists = at_once(list_of, hosts)
    return tuple(
        _compared(c, lists[c.api_base]) if c.api_base in lists else c for c in _once(found)
    )


def _compared(candidate: PoolCandidate, listed: object) -> PoolCandidate:
    """Return the candidate with what the server that it is on says."""
    if listed is None:
        return evolve(candidate, hindrance="no server answers there")
    served = served_model(listed, candidate.model)
    advice = ""
    if served.takes_images and not candidate.supports_images:
        advice = (
            "its server takes images; write supports_images = true in its model's table"
        )
    elif served.takes_images is False and candidate.supports_images:
        advice = "its server takes no images; remove supports_images from its model's table"
    window = candidate.context_window or served.context_window
    return evolve(candidate, context_window=window, advice=advice)


def _once(found: Sequence[PoolCandidate]) -> list[PoolCandidate]:
    """Return each model once: an alias that vibe renamed means its new name."""
    first: dict[str, PoolCandidate] = {}
    for candidate in found:
        first.setdefault(candidate.alias, candidate)
    return list(first.values())
