"""Models and providers that the config uses: from tables to records, each judged.

Only what is used is judged: a broken model that no pool names is vibe's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from attrs import frozen

from muxcore.config import addresses, keys
from muxcore.config.definitions import VIBES_PROVIDERS, Definition, Definitions
from muxcore.config.problems import Findings, Problem, listed, nearest, shown, spelled
from muxcore.config.records import ModelConfig, ProviderConfig
from muxcore.config.section import PoolRef
from muxcore.config.structure import structure
from muxcore.config.toml import KeyPath
from muxcore.plugins.catalogue import Catalogue

NOT_SPOKEN = "an API style that no backend speaks"
GENERIC = "generic"
ENDPOINTS = ("/chat/completions", "/messages", "/responses", "/completions")
"""The paths that a backend appends to an `api_base`."""

GENERIC_STYLES = frozenset({"openai", "reasoning"})
"""The API styles of vibe which the generic backend speaks."""


@frozen
class ResolvedModel:
    """A model that is used, and its provider. Those of vibe have an empty path."""

    ref: PoolRef
    model: ModelConfig
    model_path: KeyPath
    provider: ProviderConfig
    provider_path: KeyPath

    def problem(self, option: str, text: str) -> Problem:
        """Make a problem of an option of its provider."""
        if self.provider_path:
            return Problem((*self.provider_path, option), text)
        where = f"providers.{self.provider.name}.{option} (vibe's default)"
        return Problem(self.ref.alias_path, text, where)

    @property
    def dialect(self) -> str:
        """The backend that speaks to it: a special `backend` counts more than `api_style`."""
        return self.style_dialect or self.provider.backend

    @property
    def style_dialect(self) -> str:
        """The backend that its `api_style` asks for; "" where `backend` decides."""
        provider = self.provider
        decides = provider.backend == GENERIC and provider.api_style not in GENERIC_STYLES
        return provider.api_style if decides else ""


def resolve_model(
    ref: PoolRef, definitions: Definitions, findings: Findings
) -> ResolvedModel | None:
    """Return the model that a reference means, or None with the reason among the findings."""
    defined = definitions.model(ref.alias)
    if defined is None:
        return None
    model = _model(defined, findings)
    if model is None:
        return None
    name = model.provider
    provider = definitions.provider(name)
    if provider is None:
        known = list(dict.fromkeys([*definitions.providers, *VIBES_PROVIDERS]))
        text = (
            f"{shown(name)}, an unknown provider, expected {listed(known)}"
            f"{nearest(name, known)}"
        )
        findings.problems.append(Problem((*defined.path, "provider"), text))
        return None
    _judge_once(provider, "provider", findings)
    structured = structure(ProviderConfig, provider.table, provider.path)
    findings.problems.extend(structured.problems)
    if structured.record is None:
        return None
    return ResolvedModel(ref, model, defined.path, structured.record, provider.path)


def _model(defined: Definition, findings: Findings) -> ModelConfig | None:
    _judge_once(defined, "alias", findings)
    structured = structure(ModelConfig, defined.table, defined.path)
    findings.problems.extend(structured.problems)
    model = structured.record
    if model is not None and model.alias != defined.name:
        text = (
            f"{shown(model.alias)}, expected {shown(defined.name)}, the name of its table"
        )
        findings.problems.append(Problem((*defined.path, "alias"), text))
    return model


def _judge_once(defined: Definition, kind: str, findings: Findings) -> None:
    for repeat in defined.repeats:
        text = (
            f"{shown(defined.name)}, {kind} defined twice (first in"
            f" {spelled(defined.path)}), expected once; rename or remove one"
        )
        findings.problems.append(Problem(repeat, text))


def leave_out_unspoken(
    members: Sequence[ResolvedModel], catalogue: Catalogue, findings: Findings
) -> Sequence[ResolvedModel]:
    """Leave out, with a warning, the models whose API style no backend speaks.

    Where no primary would be left, all stay, and are judged.
    """
    unspoken = [
        member
        for member in members
        if member.style_dialect and member.dialect not in catalogue.backends
    ]
    spoken = [member for member in members if member not in unspoken]
    if all(member.ref.entry.is_fallback for member in spoken):
        return members
    for member in unspoken:
        text = (
            f"{shown(member.dialect)}, {NOT_SPOKEN}: {shown(member.model.alias)} is left"
            " out of the pool"
        )
        findings.warnings.append(member.problem("api_style", text))
    return spoken


def judge_provider(member: ResolvedModel, catalogue: Catalogue) -> Iterator[Problem]:
    """Yield what is wrong with the backend, the address and the key variable of a provider."""
    dialect = member.dialect
    if dialect not in catalogue.backends:
        known = (
            listed(sorted(catalogue.backends)) if catalogue.backends else "none available"
        )
        hint = nearest(dialect, catalogue.backends)
        if member.style_dialect:
            text = f'{shown(dialect)}, {NOT_SPOKEN}, expected "openai"{hint}'
            option = "api_style"
        else:
            text = f"{shown(dialect)}, expected a backend: {known}{hint}"
            option = "backend"
        yield member.problem(option, "; ".join([text, *catalogue.problems]))
    yield from _judge_address(member)
    variable = member.provider.api_key_env_var
    if variable and not keys.is_variable(variable):
        yield member.problem(
            "api_key_env_var",
            "not the name of an environment variable, expected one such as MISTRAL_API_KEY;"
            " the key itself does not belong in this file",
        )


def _judge_address(member: ResolvedModel) -> Iterator[Problem]:
    provider = member.provider
    if fault := addresses.fault_of(provider.api_base):
        # Not shown: whatever is wrong with it, it may hold a password.
        example = "https://host/v1"
        yield member.problem("api_base", f"an address that {fault}, expected {example}")
    elif provider.api_base.rstrip("/").endswith(ENDPOINTS):
        base = provider.api_base.rstrip("/")
        for endpoint in ENDPOINTS:
            base = base.removesuffix(endpoint)
        yield member.problem(
            "api_base",
            f"{shown(provider.api_base)}, expected the address before the endpoint; write"
            f" {shown(base)}",
        )
    elif _exposes_key(provider):
        yield member.problem(
            "api_base",
            f"{shown(provider.api_base)} would send a key unencrypted,"
            " expected https:// unless the host is this machine",
        )


def doubt_address(member: ResolvedModel) -> Iterator[Problem]:
    """Warn of an address without a path: nearly all servers of this API have one."""
    base = member.provider.api_base
    if addresses.fault_of(base) or member.dialect != GENERIC:
        return
    if not urlsplit(base).path.strip("/"):
        text = (
            f"{shown(base)} has no path, so calls go to {base.rstrip('/')}/chat/completions;"
            f" most servers need {shown(base.rstrip('/') + '/v1')}"
        )
        yield member.problem("api_base", text)


def judge_capabilities(member: ResolvedModel, catalogue: Catalogue) -> Iterator[Problem]:
    """Judge the names that are set, or unset by a "-", if the backend declares its own."""
    levels = (
        (member.ref.path, member.ref.entry.capabilities),
        (member.model_path, member.model.capabilities),
        (member.provider_path, member.provider.capabilities),
    )
    entry = (
        catalogue.backends.get(member.dialect)
        if any(names for _, names in levels)
        else None
    )
    known = getattr(entry.factory, "capabilities", None) if entry else None
    if known is None:
        return
    for path, names in levels:
        for index, name in enumerate(names):
            if name.removeprefix("-") not in known:
                text = (
                    f"{shown(name)}, an unknown capability of backend"
                    f" {shown(member.dialect)}, expected {listed(sorted(known))}, or one of"
                    f' these with a "-" before it{nearest(name.removeprefix("-"), known)}'
                )
                yield Problem((*path, "capabilities", index), text)


def capabilities_of(member: ResolvedModel) -> tuple[str, ...]:
    """Return what is set and unset: a pool entry overrides a model, that its provider."""
    levels = (member.provider, member.model, member.ref.entry)
    found = {
        name.removeprefix("-"): name for level in levels for name in level.capabilities
    }
    return tuple(sorted(found.values()))


def _exposes_key(provider: ProviderConfig) -> bool:
    plain = provider.api_base.lower().startswith("http:")
    return (
        bool(provider.api_key_env_var)
        and plain
        and not addresses.is_loopback(provider.api_base)
    )
