"""From plain tables to a `Config`: aliases to endpoints, and everything that may be wrong.

Only what is used is judged: a broken model that no pool names is vibe's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, cast

import attrs
from attrs import evolve, field, frozen

from muxcore.config import addresses, defaults, keys
from muxcore.config.keys import Key
from muxcore.config.problems import KeyPath, Problem, listed, nearest, shown, spelled
from muxcore.config.read import Document
from muxcore.config.records import (
    Config,
    ModelConfig,
    MultiplexerConfig,
    PoolEntry,
    ProviderConfig,
    Timeouts,
)
from muxcore.config.structure import structure
from muxcore.core import phases as transition
from muxcore.core.phases import SINGLE, Phase, Section, Use
from muxcore.core.records import Endpoint, Policy, Wire
from muxcore.core.strategy import Strategy, uses_weight
from muxcore.errors import ConfigError
from muxcore.plugins.catalogue import Catalogue, Registration, holding

FAILOVER = "failover"
"""The mode that does a pool of one."""

ACTIVE_MODEL_VARIABLE = "VIBE_ACTIVE_MODEL"
READ_TIMEOUT_MS, LOOPBACK_READ_TIMEOUT_MS = 120_000, 600_000
ATTEMPT_TIMEOUT_MS, LOOPBACK_ATTEMPT_TIMEOUT_MS = 300_000, 900_000

_SECTION: KeyPath = ("multiplexer",)
_POOL: KeyPath = ("multiplexer", "pool")

CatalogueFactory = Callable[..., Catalogue]


@frozen
class Definition:
    """What a file says of one model or provider, and where. An empty path: vibe's own."""

    path: KeyPath
    raw: Mapping[str, Any]


Definitions = Mapping[str, Sequence[Definition]]


@frozen
class PoolRef:
    """A pool entry, or what stands for one: where it is, and where its alias is written.

    `where` names the place of an alias that is not in the file.
    """

    entry: PoolEntry
    path: KeyPath
    alias_path: KeyPath
    where: str = ""

    @property
    def alias(self) -> str:
        return self.entry.model


@frozen
class ResolvedModel:
    """A used model with all that is said of it. Vibe's own have an empty path."""

    named: PoolRef
    model: ModelConfig
    model_path: KeyPath
    provider: ProviderConfig
    provider_path: KeyPath

    def problem(self, option: str, text: str) -> Problem:
        """Make a problem of an option of its provider."""
        if self.provider_path:
            return Problem((*self.provider_path, option), text)
        where = f"providers.{self.provider.name}.{option} (vibe's default)"
        return Problem(self.named.alias_path, text, where)

    @property
    def dialect(self) -> str:
        """The backend that speaks to it; one of its own goes before the style of its API."""
        provider = self.provider
        if provider.backend != "generic" or provider.api_style == "openai":
            return provider.backend
        return provider.api_style


@frozen
class Findings:
    """What has come up so far. The lists grow while a config is resolved."""

    problems: list[Problem] = field(factory=list)
    warnings: list[Problem] = field(factory=list)


def resolve(
    document: Document,
    environment: Mapping[str, str],
    catalogue_for: CatalogueFactory = holding,
    phase: Phase = transition.PRESENT,
) -> Config:
    """Make the config, or raise a `ConfigError` with all that keeps it from being used."""
    findings = Findings()
    table = _table(document, findings)
    said_enabled = _enabled(table, findings)
    enabled = transition.is_on(said_enabled, phase)
    # What is off has no faults: then vibe's own settings alone decide.
    strict = enabled and said_enabled is not False
    lenient = findings if strict else Findings(findings.warnings, findings.warnings)
    models = _definitions(document, "models", ("alias", "name"), findings)
    providers = _definitions(document, "providers", ("name",), findings)
    settings = _settings(table, lenient)
    said = Section("multiplexer" in document.data, said_enabled, settings.mode)
    _warn_of_phase(said, phase, findings)
    pool = _pool(settings, models, lenient)
    active = _active_model(document, environment)
    match transition.use(said, phase):
        case Use.DIRECT:
            used = _used([], active, models, MultiplexerConfig(), findings)
        case Use.ALONE if not strict:
            # Those who have opted out know that the pool is left out.
            settings = evolve(settings, mode=SINGLE)
            used = _used(pool, active, models, settings, Findings(findings.problems))
        case Use.ALONE | Use.POOL:
            used = _used(pool, active, models, settings, findings)
    judged = [_member(named, models, providers, findings) for named in used]
    members = [member for member in judged if member is not None]

    single = not enabled or settings.mode == SINGLE
    strategy_name = FAILOVER if single else settings.mode
    options = {} if single else settings.options
    catalogue = catalogue_for(
        mode=strategy_name, backends=sorted({member.dialect for member in members})
    )
    strategy = _strategy(catalogue, strategy_name, options, findings)
    if strict and strategy is not None and not uses_weight(strategy):
        _warn_of_weights(pool, settings.mode, findings)
    findings.warnings.extend(
        Problem(_SECTION, problem, "plugins") for problem in catalogue.problems
    )
    for member in members:
        findings.problems.extend(_judge_provider(member, catalogue))
        findings.problems.extend(_judge_capabilities(member, catalogue))
    found = _keys(members, keys.places(environment, document.directory), findings)

    if findings.problems:
        raise ConfigError(document.located(findings.problems))
    return Config(
        source=document.source,
        enabled=enabled,
        mode=settings.mode,
        strategy_name=strategy_name,
        strategy=cast("Strategy", strategy),
        options=MappingProxyType(options),
        active_model=str((_known(active, models, Findings()) or active).alias),
        policy=_policy(settings, enabled=enabled),
        endpoints=tuple(_endpoint(member) for member in members),
        timeouts=MappingProxyType({m.model.alias: _timeouts(settings, m) for m in members}),
        call_timeout=_ms(settings.call_timeout_ms),
        keys=MappingProxyType(found),
        catalogue=catalogue,
        warnings=document.located(findings.warnings),
    )


# --- [multiplexer] -------------------------------------------------------------------------


def _table(document: Document, findings: Findings) -> Mapping[str, Any]:
    table = document.data.get("multiplexer", {})
    if isinstance(table, Mapping):
        return table
    findings.problems.append(Problem(_SECTION, f"{shown(table)}, expected a table"))
    return {}


def _enabled(table: Mapping[str, Any], findings: Findings) -> bool | None:
    said = {name: value for name, value in table.items() if name == "enabled"}
    structured = structure(MultiplexerConfig, said, _SECTION)
    findings.problems.extend(structured.problems)
    return None if structured.record is None else structured.record.enabled


def _warn_of_phase(said: Section, phase: Phase, findings: Findings) -> None:
    if text := transition.advice(said, phase):
        path = (*_SECTION, "enabled") if said.enabled is not None else _SECTION
        findings.warnings.append(Problem(path, text))


def _settings(table: Mapping[str, Any], findings: Findings) -> MultiplexerConfig:
    """Read all but `enabled`, which has been judged by itself."""
    rest = {name: value for name, value in table.items() if name != "enabled"}
    structured = structure(MultiplexerConfig, rest, _SECTION, closed=True)
    findings.problems.extend(structured.problems)
    return structured.record or MultiplexerConfig()


def _pool(
    settings: MultiplexerConfig, models: Definitions, findings: Findings
) -> list[PoolRef]:
    """Read the entries, and give those whose models exist."""
    entries: list[PoolRef] = []
    for index, raw in enumerate(settings.pool):
        path = (*_POOL, index)
        structured = structure(PoolEntry, raw, path, closed=True)
        findings.problems.extend(structured.problems)
        if structured.record is not None:
            written = PoolRef(structured.record, path, (*path, "model"))
            if (named := _known(written, models, findings)) is not None:
                entries.append(named)
    _judge_repeats(entries, findings)
    # The file is asked, not the entries: one with a fault may still be a primary.
    if settings.pool and all(_is_fallback(raw) for raw in settings.pool):
        text = (
            "every entry has is_fallback = true, expected at least one non-fallback model;"
            " remove is_fallback from one"
        )
        findings.problems.append(Problem(_POOL, text))
    return entries


def _is_fallback(raw: object) -> bool:
    return isinstance(raw, Mapping) and raw.get("is_fallback") is True


def _judge_repeats(entries: Sequence[PoolRef], findings: Findings) -> None:
    first: dict[str, PoolRef] = {}
    for named in entries:
        earlier = first.setdefault(named.alias, named)
        if earlier is not named:
            text = (
                f"{shown(named.alias)}, named twice in the pool (first in"
                f" {spelled(earlier.path)}), expected each model once; remove one"
            )
            findings.problems.append(Problem(named.alias_path, text))


def _active_model(document: Document, environment: Mapping[str, str]) -> PoolRef:
    """Find what vibe would use without a pool, as it is written. "" means the default."""
    path: KeyPath = ("active_model",)
    if from_environment := environment.get(ACTIVE_MODEL_VARIABLE):
        return PoolRef(PoolEntry(from_environment), (), (), ACTIVE_MODEL_VARIABLE)
    if written := document.data.get("active_model"):
        return PoolRef(PoolEntry(written), path, path)
    entry = PoolEntry(defaults.ACTIVE_MODEL)
    return PoolRef(entry, (), (), "active_model (vibe's default)")


def _used(
    pool: Sequence[PoolRef],
    active: PoolRef,
    models: Definitions,
    settings: MultiplexerConfig,
    findings: Findings,
) -> Sequence[PoolRef]:
    """Choose what the config uses of its models, and warn of what it does not."""
    if settings.mode != SINGLE and settings.pool:
        return pool
    known = _known(active, models, findings)
    if known is None:
        return []
    own = next((named for named in pool if named.alias == known.alias), None)
    if settings.mode == SINGLE:
        _warn_of_left_out(pool, known.alias, findings)
    if own is None:
        return [known]
    return [evolve(own, entry=evolve(own.entry, weight=1, is_fallback=False))]


def _warn_of_weights(pool: Sequence[PoolRef], mode: str, findings: Findings) -> None:
    for named in pool:
        if named.entry.weight != 1:
            text = (
                f"{named.entry.weight}, which mode {shown(mode)} ignores;"
                ' mode = "load_balance" goes by it'
            )
            findings.warnings.append(Problem((*named.path, "weight"), text))


def _warn_of_left_out(pool: Sequence[PoolRef], active: str, findings: Findings) -> None:
    if left_out := [named.alias for named in pool if named.alias != active]:
        text = (
            f'"single" (which is the default) uses active_model {shown(active)} alone and'
            f" leaves out {listed(left_out, 'and')};"
            ' write mode = "failover" in [multiplexer] to use the whole pool'
        )
        findings.warnings.append(Problem((*_SECTION, "mode"), text))
    for named in pool:
        if named.entry.is_fallback:
            text = 'true, but mode "single" never reaches a fallback'
            findings.warnings.append(Problem((*named.path, "is_fallback"), text))


def _strategy(
    catalogue: Catalogue, name: str, options: Mapping[str, Any], findings: Findings
) -> Strategy | None:
    if name not in catalogue.strategies:
        known = list(dict.fromkeys([SINGLE, *catalogue.strategies]))
        text = f"{shown(name)}, expected a mode: {listed(known)}{nearest(name, known)}"
        findings.problems.append(
            Problem((*_SECTION, "mode"), "; ".join([text, *catalogue.problems]))
        )
        return None
    path: KeyPath = (*_SECTION, "options")
    entry = catalogue.strategies[name]
    factory = entry.factory
    if _tells_its_options(factory):
        structured = structure(cast("type[Strategy]", factory), options, path, closed=True)
        findings.problems.extend(structured.problems)
        if structured.record is None:
            return None
        return _fitting(structured.record, entry, findings)
    try:
        made = factory(**options)
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        reason = str(error) or type(error).__name__
        text = f"refused by mode {shown(name)}: {reason}"
        findings.problems.append(Problem(path, text))
        return None
    return _fitting(made, entry, findings)


def _fitting(
    strategy: Strategy, entry: Registration[Strategy], findings: Findings
) -> Strategy | None:
    """Refuse what a stranger's factory made if it cannot pick."""
    if callable(getattr(strategy, "pick", None)):
        return strategy
    text = (
        f"{shown(entry.name)}, a mode without a `pick`: {entry.origin} registers"
        f" {entry.factory!r}"
    )
    findings.problems.append(Problem((*_SECTION, "mode"), text))
    return None


def _tells_its_options(factory: Callable[..., Strategy]) -> bool:
    if not (isinstance(factory, type) and attrs.has(factory)):
        return False
    try:
        attrs.resolve_types(factory)
    except Exception:  # noqa: BLE001 - evaluating a stranger's annotations may raise anything
        # They are for type checkers only; it can still check for itself.
        return False
    return True


# --- models and providers ------------------------------------------------------------------


def _definitions(
    document: Document, section: str, names: Sequence[str], findings: Findings
) -> Definitions:
    """Gather the tables of a section by name, whether it is a list or a table of tables."""
    tables = document.data.get(section, ())
    found: dict[str, list[Definition]] = {}
    if isinstance(tables, Mapping):
        for name, raw in tables.items():
            found[str(name)] = [Definition((section, str(name)), raw)]
    elif isinstance(tables, list | tuple):
        for index, raw in enumerate(tables):
            if (own := _name(raw, names)) is not None:
                found.setdefault(own, []).append(Definition((section, index), raw))
    else:
        text = f"{shown(tables)}, expected a list of tables: [[{section}]]"
        findings.problems.append(Problem((section,), text))
    return found


def _name(raw: object, names: Sequence[str]) -> str | None:
    """Give the first of these options that is a name; without any, nobody can mean it."""
    if isinstance(raw, Mapping):
        for name in names:
            if isinstance(raw.get(name), str) and raw[name]:
                return str(raw[name])
    return None


def _known(written: PoolRef, models: Definitions, findings: Findings) -> PoolRef | None:
    """Find the model that an alias means: the file's, a renamed one, or vibe's own."""
    alias = written.entry.model
    if not isinstance(alias, str):
        text = f"{shown(alias)}, expected text in quotes"
        findings.problems.append(Problem(written.alias_path, text))
        return None
    if alias in models:
        return written
    renamed = defaults.RENAMED.get(alias, "")
    if renamed in models:
        text = (
            f"{shown(alias)} is now {shown(renamed)} in [[models]], because vibe renamed it"
            f" there; that model is used, write {shown(renamed)} here too"
        )
        findings.warnings.append(Problem(written.alias_path, text, written.where))
        return evolve(written, entry=evolve(written.entry, model=renamed))
    if alias in defaults.MODELS:
        return written
    known = list(models or defaults.MODELS)
    hint = nearest(alias, [*models, *defaults.MODELS])
    text = f"{shown(alias)}, an unknown model alias, expected {listed(known)}{hint}"
    findings.problems.append(Problem(written.alias_path, text, written.where))
    return None


def _member(
    named: PoolRef, models: Definitions, providers: Definitions, findings: Findings
) -> ResolvedModel | None:
    model = _model(named, models, findings)
    if model is None:
        return None
    path = models[named.alias][0].path if named.alias in models else ()
    name = model.provider
    defined = providers.get(name, [])
    _judge_once(defined, name, "provider", findings)
    if not defined and name not in defaults.PROVIDERS:
        known = list(dict.fromkeys([*providers, *defaults.PROVIDERS]))
        text = (
            f"{shown(name)}, an unknown provider, expected {listed(known)}"
            f"{nearest(name, known)}"
        )
        findings.problems.append(Problem((*path, "provider"), text))
        return None
    said = defined[0] if defined else Definition((), {})
    raw = _completed(said.raw, defaults.PROVIDERS.get(name, {}), name=name)
    structured = structure(ProviderConfig, raw, said.path)
    findings.problems.extend(structured.problems)
    if structured.record is None:
        return None
    return ResolvedModel(named, model, path, structured.record, said.path)


def _model(named: PoolRef, models: Definitions, findings: Findings) -> ModelConfig | None:
    alias = named.alias
    if alias not in models:
        return structure(ModelConfig, defaults.MODELS[alias], ()).record
    defined = models[alias]
    _judge_once(defined, alias, "alias", findings)
    path, raw = defined[0].path, defined[0].raw
    leaning = defaults.MODELS.get(alias, {}) if _leans(raw, alias) else {}
    structured = structure(ModelConfig, _completed(raw, {"alias": alias, **leaning}), path)
    findings.problems.extend(structured.problems)
    model = structured.record
    if model is not None and model.alias != alias:
        text = f"{shown(model.alias)}, expected {shown(alias)}, the name of its table"
        findings.problems.append(Problem((*path, "alias"), text))
    return model


def _leans(raw: object, alias: str) -> bool:
    """Whether a model is completed by vibe's own: its present default always is."""
    complete = isinstance(raw, Mapping) and raw.get("name") and raw.get("provider")
    return alias == defaults.ACTIVE_MODEL or not complete


def _completed(raw: Any, below: Mapping[str, Any], **above: str) -> Any:
    """Lay what a file says over defaults. What is empty there says nothing."""
    if not isinstance(raw, Mapping):
        return raw
    said = {
        name: value
        for name, value in raw.items()
        if name not in below or (value is not None and value != "")
    }
    return {**below, **said, **above}


def _judge_once(
    defined: Sequence[Definition], name: str, kind: str, findings: Findings
) -> None:
    for again in defined[1:]:
        text = (
            f"{shown(name)}, {kind} defined twice (first in {spelled(defined[0].path)}),"
            " expected once; rename or remove one"
        )
        findings.problems.append(Problem((*again.path, _naming(again, name)), text))


def _naming(definition: Definition, name: str) -> str:
    return "alias" if definition.raw.get("alias") == name else "name"


def _judge_provider(member: ResolvedModel, catalogue: Catalogue) -> Iterator[Problem]:
    provider, dialect = member.provider, member.dialect
    if dialect not in catalogue.backends:
        known = listed(sorted(catalogue.backends)) if catalogue.backends else "none at hand"
        hint = nearest(dialect, catalogue.backends)
        if dialect == provider.backend:
            text = f"{shown(dialect)}, expected a backend: {known}{hint}"
            option = "backend"
        else:
            text = (
                f'{shown(dialect)}, an API style without a backend, expected "openai"{hint}'
            )
            option = "api_style"
        yield member.problem(option, "; ".join([text, *catalogue.problems]))
    if fault := addresses.fault_of(provider.api_base):
        # Not shown: whatever is wrong with it, it may hold a password.
        example = "https://host/v1"
        yield member.problem("api_base", f"an address that {fault}, expected {example}")
    elif _exposes_key(provider):
        yield member.problem(
            "api_base",
            f"{shown(provider.api_base)} would send a key unencrypted,"
            " expected https:// unless the host is this machine",
        )
    if provider.api_key_env_var and not keys.is_variable(provider.api_key_env_var):
        yield member.problem(
            "api_key_env_var",
            "not the name of an environment variable, expected one such as MISTRAL_API_KEY;"
            " the key itself does not belong in this file",
        )


def _judge_capabilities(member: ResolvedModel, catalogue: Catalogue) -> Iterator[Problem]:
    """Judge the names that are set, or unset by a "-", if the backend tells its own."""
    entry = catalogue.backends.get(member.dialect)
    known = getattr(entry.factory, "capabilities", None) if entry else None
    if known is None:
        return
    for path, names in (
        (member.model_path, member.model.capabilities),
        (member.provider_path, member.provider.capabilities),
    ):
        for index, name in enumerate(names):
            if name.removeprefix("-") not in known:
                text = (
                    f"{shown(name)}, an unknown capability of backend"
                    f" {shown(member.dialect)}, expected {listed(sorted(known))}, or one of"
                    f' these with a "-" before it{nearest(name.removeprefix("-"), known)}'
                )
                yield Problem((*path, "capabilities", index), text)


def _capabilities(member: ResolvedModel) -> tuple[str, ...]:
    """Give what is set and unset: what a model says goes before what its provider says."""
    said = {name.removeprefix("-"): name for name in member.provider.capabilities}
    said |= {name.removeprefix("-"): name for name in member.model.capabilities}
    return tuple(sorted(said.values()))


def _exposes_key(provider: ProviderConfig) -> bool:
    plain = provider.api_base.lower().startswith("http:")
    return (
        bool(provider.api_key_env_var)
        and plain
        and not addresses.is_loopback(provider.api_base)
    )


def _keys(
    members: Sequence[ResolvedModel], places: tuple[keys.Place, ...], findings: Findings
) -> dict[str, Key]:
    """Find each provider's key once, and give it to each of its models."""
    found: dict[str, Key] = {}
    needing = [m for m in members if keys.is_variable(m.provider.api_key_env_var)]
    for name in dict.fromkeys(member.provider.name for member in needing):
        sharing = [member for member in needing if member.provider.name == name]
        variable = sharing[0].provider.api_key_env_var
        key = keys.find(variable, places)
        if key is None:
            searched = listed([f"in {place}" for place in places], "and")
            text = (
                f"Missing API key: {variable} of provider {shown(name)}, for"
                f" {listed([m.model.alias for m in sharing], 'and')}, was looked for"
                f" {searched}; set it {'there' if len(places) == 1 else 'in one of them'}"
            )
            if hint := keys.hint(places):
                text += f"; {hint}"
            findings.problems.append(sharing[0].problem("api_key_env_var", text))
        elif fault := keys.fault_of(key):
            text = (
                f"the key in {variable} (from {key.place}) {fault},"
                " expected one that a header can carry; copy it anew"
            )
            findings.problems.append(sharing[0].problem("api_key_env_var", text))
        else:
            found.update({member.model.alias: key for member in sharing})
    return found


# --- what the core is given ----------------------------------------------------------------


def _endpoint(member: ResolvedModel) -> Endpoint:
    entry, model, provider = member.named.entry, member.model, member.provider
    return Endpoint(
        alias=model.alias,
        model=model.name,
        provider=provider.name,
        weight=entry.weight,
        max_concurrent=entry.max_concurrent,
        is_fallback=entry.is_fallback,
        context_window=entry.context_window or model.max_context_length,
        input_price=model.input_price,
        output_price=model.output_price,
        cached_input_price=model.cached_input_price,
        dialect=member.dialect,
        wire=Wire(
            api_base=provider.api_base,
            key_variable=provider.api_key_env_var,
            extra_headers=tuple(provider.extra_headers.items()),
            reasoning_field_name=provider.reasoning_field_name,
            emits_finish_reason=provider.emits_finish_reason,
            temperature=model.temperature,
            top_p=model.top_p,
            thinking=model.thinking,
            max_output_tokens=model.max_output_tokens,
            supports_images=model.supports_images,
            capabilities=_capabilities(member),
        ),
    )


def _policy(settings: MultiplexerConfig, *, enabled: bool) -> Policy:
    return Policy(
        rate_limit_disable_duration=_ms(settings.rate_limit_disable_duration_ms),
        persistent_error_disable_duration=_ms(
            settings.persistent_error_disable_duration_ms
        ),
        max_wait=_ms(settings.max_wait_ms),
        sticky=settings.sticky,
        direct=not enabled,
    )


def _timeouts(settings: MultiplexerConfig, member: ResolvedModel) -> Timeouts:
    read, attempt = READ_TIMEOUT_MS, ATTEMPT_TIMEOUT_MS
    if addresses.is_loopback(member.provider.api_base):
        read, attempt = LOOPBACK_READ_TIMEOUT_MS, LOOPBACK_ATTEMPT_TIMEOUT_MS
    return Timeouts(
        connect=_ms(settings.connect_timeout_ms),
        read=_ms(settings.read_timeout_ms or read),
        attempt=_ms(settings.attempt_timeout_ms or attempt),
    )


def _ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)
