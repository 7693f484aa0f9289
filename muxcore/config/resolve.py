"""From plain tables to a `Config`, or every reason why they make none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, cast

import attrs

from muxcore.config import addresses, keys
from muxcore.config.definitions import Definitions, api_timeout_ms
from muxcore.config.keys import Key
from muxcore.config.models import (
    ResolvedModel,
    capabilities_of,
    doubt_address,
    judge_capabilities,
    judge_provider,
    leave_out_unspoken,
    resolve_model,
)
from muxcore.config.problems import Findings, Problem, listed, nearest, shown
from muxcore.config.read import Document
from muxcore.config.records import (
    Config,
    MultiplexerConfig,
    RedisOptions,
    StateOptions,
    Timeouts,
)
from muxcore.config.section import SECTION, select_models, warn_of_weights
from muxcore.config.structure import structure
from muxcore.config.toml import KeyPath
from muxcore.core.endpoints import Endpoint, Policy, Wire
from muxcore.core.phases import PRESENT, SINGLE, Phase
from muxcore.core.strategy import Strategy, uses_weight
from muxcore.errors import ConfigError
from muxcore.plugins.catalogue import FILE, MEMORY, REDIS, Catalogue, Registration, holding

FAILOVER = "failover"
"""The mode that runs a pool of one."""

READ_TIMEOUT_MS, LOOPBACK_READ_TIMEOUT_MS = 120_000, 600_000
ATTEMPT_TIMEOUT_MS, LOOPBACK_ATTEMPT_TIMEOUT_MS = 300_000, 900_000

CatalogueFactory = Callable[..., Catalogue]


def resolve(
    document: Document,
    environment: Mapping[str, str],
    catalogue_for: CatalogueFactory = holding,
    phase: Phase = PRESENT,
) -> Config:
    """Make the config, or raise a `ConfigError` with all that keeps it from being used."""
    findings = Findings()
    definitions = Definitions.of(document.data)
    findings.problems.extend(definitions.problems)
    variables = keys.variables(environment, document.directory)
    selection = select_models(document.data, definitions, variables, phase, findings)
    settings = selection.settings
    resolved = [resolve_model(ref, definitions, findings) for ref in selection.used]
    members: Sequence[ResolvedModel] = [member for member in resolved if member is not None]

    single = not selection.is_on or settings.mode == SINGLE
    strategy_name = FAILOVER if single else settings.mode
    options = {} if single else settings.options
    board = {"board": settings.state} if selection.is_on and settings.state else {}
    dialects = sorted({member.dialect for member in members})
    observers = settings.observers if selection.is_on else {}
    seen = {"observers": list(observers)} if observers else {}
    catalogue = catalogue_for(mode=strategy_name, backends=dialects, **board, **seen)
    strategy = _strategy(catalogue, strategy_name, options, findings)
    if strategy is not None and not uses_weight(strategy):
        warn_of_weights(selection.weighted, settings.mode, findings)
    findings.warnings.extend(
        Problem(SECTION, problem, "plugins") for problem in catalogue.problems
    )
    members = leave_out_unspoken(members, catalogue, findings)
    for member in members:
        findings.problems.extend(judge_provider(member, catalogue))
        findings.warnings.extend(doubt_address(member))
        findings.problems.extend(judge_capabilities(member, catalogue))
    _judge_observers(observers, catalogue, findings)
    if board:
        _judge_state(settings, catalogue, variables, findings)
    found = _keys(members, keys.places(environment, document.directory), findings)

    silence = api_timeout_ms(document.data)

    warnings = (*document.warnings, *document.located(findings.warnings))
    if findings.problems:
        raise ConfigError(document.located(findings.problems), warnings)
    return Config(
        source=document.source,
        enabled=selection.is_on,
        mode=settings.mode,
        strategy_name=strategy_name,
        strategy=cast("Strategy", strategy),
        options=MappingProxyType(options),
        active_model=selection.active_alias,
        policy=_policy(settings, enabled=selection.is_on),
        endpoints=tuple(_endpoint(member) for member in members),
        timeouts=MappingProxyType(
            {member.model.alias: _timeouts(settings, member, silence) for member in members}
        ),
        call_timeout=_ms(settings.call_timeout_ms),
        keys=MappingProxyType(found),
        catalogue=catalogue,
        section_file=document.section_file,
        state=settings.state if selection.is_on else MEMORY,
        state_options=MappingProxyType(settings.state_options),
        observers=MappingProxyType(observers),
        unseen_images=settings.unseen_images,
        warnings=warnings,
    )


def _judge_observers(
    observers: Mapping[str, Any], catalogue: Catalogue, findings: Findings
) -> None:
    for name, options in observers.items():
        path: KeyPath = (*SECTION, "observers", name)
        if not isinstance(options, Mapping):
            text = f"{shown(options)}, expected a table of its options"
        elif name not in catalogue.observers:
            known = list(catalogue.observers)
            hint = nearest(name, known) or "; its package needs to be installed"
            text = "; ".join([f"an unknown observer{hint}", *catalogue.problems])
        elif fault := _fault_of_arguments(catalogue.observers[name].factory, options):
            text = f"refused by observer {shown(name)}: {fault}"
        else:
            continue
        findings.problems.append(Problem(path, text))


def _fault_of_arguments(factory: Callable[..., object], options: Mapping[str, Any]) -> str:
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        return str(error)
    except ValueError:
        # It has no signature, as some classes in C.
        return ""
    return ""


def _judge_state(
    settings: MultiplexerConfig,
    catalogue: Catalogue,
    variables: Mapping[str, str],
    findings: Findings,
) -> None:
    name, options = settings.state, settings.state_options
    known = [MEMORY, *catalogue.boards]
    path: KeyPath = (*SECTION, "state_options")
    if name == REDIS and REDIS not in catalogue.boards:
        text = f"{shown(name)} needs an extra: pip install 'vibe-mux[redis]'"
        findings.problems.append(Problem((*SECTION, "state"), text))
    elif name not in known:
        known = list(dict.fromkeys([MEMORY, FILE, REDIS, *catalogue.boards]))
        text = f"{shown(name)}, expected {listed(known)}{nearest(str(name), known)}"
        findings.problems.append(Problem((*SECTION, "state"), text))
    elif name == REDIS and catalogue.boards[name].is_built_in:
        _judge_redis(options, path, variables, findings)
    elif name == MEMORY:
        # What is there for another state may stay.
        found = [
            structure(kind, options, path, closed=True).problems
            for kind in (StateOptions, RedisOptions)
        ]
        fewest = min(found, key=len)
        findings.problems.extend(fewest)
    elif catalogue.boards[name].is_built_in:
        structured = structure(StateOptions, options, path, closed=True)
        findings.problems.extend(structured.problems)


def _judge_redis(
    options: Mapping[str, Any],
    path: KeyPath,
    variables: Mapping[str, str],
    findings: Findings,
) -> None:
    structured = structure(RedisOptions, options, path, closed=True)
    findings.problems.extend(structured.problems)
    if structured.record is None or structured.problems:
        return
    variable = structured.record.url_env_var
    if not keys.is_variable(variable):
        fault = (
            "is not the name of a variable, expected the one that holds the URL of the"
            " Redis, such as VIBE_MUX_REDIS_URL; the URL itself belongs there"
        )
    elif not variables.get(variable):
        fault = (
            f"{variable} is not set; it holds the URL of the Redis, as redis://HOST:6379/0"
        )
    elif wrong := addresses.redis_fault(variables[variable]):
        fault = f"the URL in {variable} {wrong}"
    else:
        return
    findings.problems.append(Problem((*path, "url_env_var"), fault))


def strategy_named(name: str, options: Mapping[str, Any]) -> Strategy:
    """Make the mode of this name, with its own options. Raise `ConfigError`."""
    findings = Findings()
    strategy = _strategy(holding(mode=name, backends=()), name, options, findings)
    if strategy is None:
        raise ConfigError([str(problem) for problem in findings.problems])
    return strategy


def _strategy(
    catalogue: Catalogue, name: str, options: Mapping[str, Any], findings: Findings
) -> Strategy | None:
    if name not in catalogue.strategies:
        known = list(dict.fromkeys([SINGLE, *catalogue.strategies]))
        hint = nearest(name, known) or "; a mode of another package needs that installed"
        text = f"{shown(name)}, expected a mode: {listed(known)}{hint}"
        findings.problems.append(
            Problem((*SECTION, "mode"), "; ".join([text, *catalogue.problems]))
        )
        return None
    path: KeyPath = (*SECTION, "options")
    entry = catalogue.strategies[name]
    factory = entry.factory
    if _declares_its_options(factory):
        structured = structure(cast("type[Strategy]", factory), options, path, closed=True)
        findings.problems.extend(structured.problems)
        if structured.record is None:
            return None
        return _fitting(structured.record, entry, findings)
    try:
        made = factory(**options)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        reason = str(error) or type(error).__name__
        text = f"refused by mode {shown(name)}: {reason}"
        findings.problems.append(Problem(path, text))
        return None
    return _fitting(made, entry, findings)


def _fitting(
    strategy: Strategy, entry: Registration[Strategy], findings: Findings
) -> Strategy | None:
    """Refuse what a plugin's factory returned if it has no `pick`."""
    if callable(getattr(strategy, "pick", None)):
        return strategy
    text = (
        f"{shown(entry.name)}, a mode without a `pick`: {entry.origin} registers"
        f" {entry.factory!r}"
    )
    findings.problems.append(Problem((*SECTION, "mode"), text))
    return None


def _declares_its_options(factory: Callable[..., Strategy]) -> bool:
    if not (isinstance(factory, type) and attrs.has(factory)):
        return False
    try:
        attrs.resolve_types(factory)
    except Exception:  # noqa: BLE001 - a plugin's annotations may raise anything
        # They are for type checkers only. The factory still checks its arguments.
        return False
    return True


def _keys(
    members: Sequence[ResolvedModel], places: tuple[keys.Place, ...], findings: Findings
) -> dict[str, Key]:
    """Find the key of each provider once. Return the keys by the alias of each model."""
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


# --- records of the core ----------------------------------------------------------------


def _endpoint(member: ResolvedModel) -> Endpoint:
    entry, model, provider = member.ref.entry, member.model, member.provider
    return Endpoint(
        alias=model.alias,
        model=model.model_id or model.name,
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
            capabilities=capabilities_of(member),
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
        announced_limits=settings.announced_limits,
    )


def _timeouts(
    settings: MultiplexerConfig, member: ResolvedModel, silence: int | None
) -> Timeouts:
    """Return how long an attempt may take; `silence` is vibe's own limit, if it has one."""
    read, attempt = READ_TIMEOUT_MS, ATTEMPT_TIMEOUT_MS
    if addresses.is_loopback(member.provider.api_base):
        read, attempt = LOOPBACK_READ_TIMEOUT_MS, LOOPBACK_ATTEMPT_TIMEOUT_MS
    read = settings.read_timeout_ms or silence or read
    return Timeouts(
        connect=_ms(settings.connect_timeout_ms),
        read=_ms(read),
        attempt=_ms(settings.attempt_timeout_ms or max(attempt, silence or 0)),
    )


def _ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)
