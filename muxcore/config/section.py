"""The `[multiplexer]` section: its settings, its pool, and which models the config uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from muxcore.config.definitions import VIBES_MODELS, Definitions, active_model
from muxcore.config.problems import (
    Findings,
    Problem,
    listed,
    nearest,
    other_brackets,
    shown,
    spelled,
)
from muxcore.config.read import SECTION as NAME
from muxcore.config.records import MultiplexerConfig, PoolEntry
from muxcore.config.structure import structure
from muxcore.config.toml import KeyPath
from muxcore.core import phases
from muxcore.core.phases import SINGLE, Phase, Section, Use

SECTION: KeyPath = (NAME,)
_POOL: KeyPath = (*SECTION, "pool")


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
class Selection:
    """What a config uses: its settings, its models, and the alias of the active one.

    `weighted` are the entries whose weight was set. `is_on` is whether there is a pool.
    """

    settings: MultiplexerConfig
    is_on: bool
    used: Sequence[PoolRef]
    active_alias: str
    weighted: Sequence[PoolRef] = ()


def select_models(
    data: Mapping[str, Any],
    definitions: Definitions,
    variables: Mapping[str, str],
    phase: Phase,
    findings: Findings,
) -> Selection:
    """Read the section, and choose the models that the config uses."""
    _warn_of_misspelled(data, findings)
    table = _table(data, findings)
    enabled = _enabled(table, findings)
    is_on = phases.is_on(enabled, phase)
    # A section that is off has no errors: vibe's own settings alone decide.
    is_strict = is_on and enabled is not False
    found = Findings()
    settings = _settings(table, found)
    written = Section(NAME in data, enabled, settings.mode)
    _warn_of_phase(written, phase, findings)
    pool = _pool(settings, definitions, found)
    findings.add(found, strict=is_strict)
    _warn_of_unused_pool(settings, written, phase, findings)

    active = active_model(data, variables)
    reference = PoolRef(PoolEntry(active.alias), active.path, active.path, active.origin)
    match phases.use(written, phase):
        case Use.DIRECT:
            used = _used([], reference, definitions, MultiplexerConfig(), findings)
        case Use.ALONE if not is_strict:
            # Users who have opted out expect that the pool is left out.
            settings = evolve(settings, mode=SINGLE)
            quiet = Findings()
            used = _used(pool, reference, definitions, settings, quiet)
            findings.problems.extend(quiet.problems)
        case Use.ALONE | Use.POOL:
            used = _used(pool, reference, definitions, settings, findings)
    return Selection(
        settings=settings,
        is_on=is_on,
        used=used,
        active_alias=definitions.present_alias(str(active.alias)),
        weighted=[ref for ref in pool if ref.entry.weight != 1] if is_strict else (),
    )


def _table(data: Mapping[str, Any], findings: Findings) -> Mapping[str, Any]:
    table = data.get(NAME, {})
    if isinstance(table, Mapping):
        return table
    text = f"{shown(table)}, expected a table{other_brackets(SECTION, table)}"
    findings.problems.append(Problem(SECTION, text))
    return {}


def _warn_of_misspelled(data: Mapping[str, Any], findings: Findings) -> None:
    """Warn of tables that look like the section: vibe ignores what it does not know."""
    for name, value in data.items():
        if not isinstance(value, Mapping | list):
            continue
        if name == "pool":
            text = "has no effect here, expected [[multiplexer.pool]]"
            findings.warnings.append(Problem((name,), text))
        elif NAME not in data and (hint := nearest(name, [NAME])):
            findings.warnings.append(Problem((name,), f"has no effect{hint}"))


def _enabled(table: Mapping[str, Any], findings: Findings) -> bool | None:
    """Read `enabled`. One that is invalid counts as true, so that all mistakes come at once."""
    only = {name: value for name, value in table.items() if name == "enabled"}
    structured = structure(MultiplexerConfig, only, SECTION)
    findings.problems.extend(structured.problems)
    if structured.problems:
        return True
    return None if structured.record is None else structured.record.enabled


def _warn_of_phase(written: Section, phase: Phase, findings: Findings) -> None:
    if text := phases.advice(written, phase):
        path = (*SECTION, "enabled") if written.enabled is not None else SECTION
        findings.warnings.append(Problem(path, text))


def _warn_of_unused_pool(
    settings: MultiplexerConfig, written: Section, phase: Phase, findings: Findings
) -> None:
    is_on = phases.is_on(written.enabled, phase)
    if settings.pool and written.enabled is None and not is_on:
        text = 'no "enabled", so the pool is not used; add the line enabled = true'
        findings.warnings.append(Problem(SECTION, text))
    # In later phases, a new config is one without a pool.
    if not settings.pool and settings.mode != SINGLE and is_on and phase is phases.PRESENT:
        text = "no pool: active_model is used alone; add [[multiplexer.pool]] tables"
        findings.warnings.append(Problem(SECTION, text))


def _settings(table: Mapping[str, Any], findings: Findings) -> MultiplexerConfig:
    """Read all options but `enabled`, which is checked separately."""
    rest = {name: value for name, value in table.items() if name != "enabled"}
    structured = structure(MultiplexerConfig, rest, SECTION, closed=True)
    findings.problems.extend(structured.problems)
    return structured.record or MultiplexerConfig()


def _pool(
    settings: MultiplexerConfig, definitions: Definitions, findings: Findings
) -> list[PoolRef]:
    """Read the entries, and return those whose models exist."""
    entries: list[PoolRef] = []
    for index, raw in enumerate(settings.pool):
        path = (*_POOL, index)
        if isinstance(raw, str):
            text = f"{shown(raw)}, expected a table; write {{ model = {shown(raw)} }}"
            findings.problems.append(Problem(path, text))
            continue
        structured = structure(PoolEntry, raw, path, closed=True)
        findings.problems.extend(structured.problems)
        if structured.record is not None:
            written = PoolRef(structured.record, path, (*path, "model"))
            if (named := _known(written, definitions, findings)) is not None:
                entries.append(named)
    _judge_repeats(entries, findings)
    # By the file, not by the valid entries: one with a mistake may still be a primary.
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


def _used(
    pool: Sequence[PoolRef],
    active: PoolRef,
    definitions: Definitions,
    settings: MultiplexerConfig,
    findings: Findings,
) -> Sequence[PoolRef]:
    """Choose the models that the config uses, and warn of the others."""
    if settings.mode != SINGLE and settings.pool:
        return pool
    known = _known(active, definitions, findings)
    if known is None:
        return []
    own = next((named for named in pool if named.alias == known.alias), None)
    if settings.mode == SINGLE:
        _warn_of_left_out(pool, known.alias, findings)
    if own is None:
        return [known]
    return [evolve(own, entry=evolve(own.entry, weight=1, is_fallback=False))]


def warn_of_weights(pool: Sequence[PoolRef], mode: str, findings: Findings) -> None:
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
        findings.warnings.append(Problem((*SECTION, "mode"), text))
    for named in pool:
        if named.entry.is_fallback:
            text = 'true, but mode "single" never reaches a fallback'
            findings.warnings.append(Problem((*named.path, "is_fallback"), text))


def _known(
    written: PoolRef, definitions: Definitions, findings: Findings
) -> PoolRef | None:
    """Return the model that an alias means: the file's, a renamed one, or vibe's own."""
    alias = written.entry.model
    if not isinstance(alias, str):
        text = f"{shown(alias)}, expected text in quotes"
        findings.problems.append(Problem(written.alias_path, text))
        return None
    present = definitions.present_alias(alias)
    if present != alias:
        text = (
            f"{shown(alias)} is now {shown(present)} in [[models]], because vibe renamed it"
            f" there; that model is used, write {shown(present)} here too"
        )
        findings.warnings.append(Problem(written.alias_path, text, written.where))
        return evolve(written, entry=evolve(written.entry, model=present))
    if definitions.model(alias) is not None:
        return written
    known = list(definitions.models or VIBES_MODELS)
    hint = _named_so(alias, definitions) or nearest(
        alias, [*definitions.models, *VIBES_MODELS]
    )
    text = f"{shown(alias)}, an unknown model alias, expected {listed(known)}{hint}"
    findings.problems.append(Problem(written.alias_path, text, written.where))
    return None


def _named_so(name: str, definitions: Definitions) -> str:
    """Return a hint if this is the wire name of a model, not its alias."""
    for alias, defined in definitions.models.items():
        table = defined.table if isinstance(defined.table, Mapping) else {}
        if table.get("name") == name:
            return f"; that is the name of {shown(alias)}, write its alias"
    return ""
