"""What a vibe asks without the pool: by its project's file, or as one of its agents. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from muxcore.config import Config
from muxcore.config.definitions import tables_by_name
from muxcore.config.problems import Problem, shown
from muxcore.config.read import Document
from muxcore.vibe.environment import PROVIDER, redirected
from muxcore.vibe.startup import Agent, Startup


@frozen
class Bypass:
    """Who asks `alias` without the pool, and the file that says so.

    `counted` is whether it is asked through the gateway, alone, and so stands on the receipt;
    `at_start` is whether vibe asks it without another word of its user.
    """

    who: str
    alias: str
    counted: bool
    document: Document
    at_start: bool = True

    def __str__(self) -> str:
        how = (
            "alone: the pool does not stand in for it"
            if self.counted
            else "past the pool, which it is not in"
        )
        text = f"{self.who} asks {shown(self.alias)} {how}"
        return "".join(self.document.located([Problem(("active_model",), text)]))


def past_the_pool(startup: Startup, config: Config) -> list[Bypass]:
    """Return all that vibe may ask without the pool, but for the user's own `/model`."""
    providers = redirected(startup, config)
    return [*_by_folder(startup, providers), *_by_agents(startup, providers)]


def _by_folder(startup: Startup, providers: Mapping[str, str]) -> Iterator[Bypass]:
    for document, alias in startup.of_folder():
        if providers.get(alias) != PROVIDER:
            yield Bypass("this folder", alias, alias in providers, document)


def _by_agents(startup: Startup, providers: Mapping[str, str]) -> Iterator[Bypass]:
    for agent in startup.used_agents():
        alias = startup.alias_of(agent)
        is_own = _sets_provider(agent, alias)
        if is_own or providers.get(alias) != PROVIDER:
            who = f"agent {shown(agent.name)}"
            counted = not is_own and alias in providers
            yield Bypass(who, alias, counted, agent.profile, agent is startup.agent)


def _sets_provider(agent: Agent, alias: str) -> bool:
    """Whether the profile gives the model a provider: it lies over the environment."""
    return "provider" in tables_by_name(agent.profile.data, "models").get(alias, {})
