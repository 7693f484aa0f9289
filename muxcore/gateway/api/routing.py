"""Routes: which request goes where, by its path. Pure.

`/v1` is for any client. `/run/LABEL` in front of it is for an agent that `run` has started: its
calls are counted under that label, each model uses the settings of its own entry, and a `model`
that is not known here is the pool. `/pool` and `/only/ALIAS` choose the model whatever `model`
says: vibe sends a model's name, and two of its models may share one. A base that lacks `/v1`, or
has it twice, leads to the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from urllib.parse import unquote

from attrs import frozen

from muxcore.gateway.front_doors import completions, messages, responses
from muxcore.gateway.front_doors.door import FrontDoor


class Resource(StrEnum):
    """What a path names."""

    CHAT = "chat/completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages/count_tokens"
    MODELS = "models"
    STATUS = "status"
    METRICS = "metrics"
    HEALTH = "healthz"
    RECEIPT = "receipt"
    LEASE = "lease"
    PROOF = "proof"
    PAGE = "page"


WAITS_ITSELF = timedelta(seconds=3)
"""A vibe from 3 on shows a 429 as a wait, waits as long as the 429 says, and can be stopped
meanwhile; a call that is held looks as if a model were answering. Short waits are not worth
showing."""

_CANNOT_WAIT = re.compile(r"Mistral-Vibe/[12]\.")
"""These try three times within two seconds, then end the turn. Later ones send no such
User-Agent to a provider that is not Mistral's."""

SESSION_FIELDS = (
    "x-affinity",
    "session_id",
    "session-id",
    "x-session-id",
    "x-session-affinity",
    "x-claude-code-session-id",
)
"""Header fields in which agents name their session: vibe, Codex, opencode, Claude Code and
others. The first that is there counts."""
LONGEST_SESSION = 256

FRONT_DOORS: Mapping[Resource, FrontDoor] = {
    Resource.CHAT: completions.FRONT_DOOR,
    Resource.RESPONSES: responses.FRONT_DOOR,
    Resource.MESSAGES: messages.FRONT_DOOR,
    Resource.COUNT_TOKENS: messages.FRONT_DOOR,
}
"""The APIs in which clients call models, by their path below `/v1`."""


@frozen
class Route:
    """Where a path leads. `label` is that of a `run`, "" for all other clients.

    `only` is the alias of the one model to ask. `pooled`: the path names the pool. `model` is
    the one model of `/v1/models/MODEL`.
    """

    resource: Resource
    label: str = ""
    only: str | None = None
    pooled: bool = False
    model: str | None = None

    @property
    def is_vibes(self) -> bool:
        """Whether it is vibe's: of a `run`, and with the model in the path."""
        return bool(self.label) and (self.pooled or self.only is not None)

    @property
    def methods(self) -> tuple[str, ...]:
        if self.resource in FRONT_DOORS:
            return ("POST",)
        return ("GET", "HEAD") if self.resource is Resource.HEALTH else ("GET",)


def session_of(fields: Mapping[str, str]) -> str | None:
    """Return the session that a client names in its header, None if it names none."""
    names = (fields.get(name, "")[:LONGEST_SESSION] for name in SESSION_FIELDS)
    return next(filter(None, names), None)


def patience_for(route: Route, user_agent: str) -> timedelta | None:
    """Return how long a call may be held, None for as long as the config says."""
    if not route.is_vibes or _CANNOT_WAIT.match(user_agent):
        return None
    return WAITS_ITSELF


_CALLS = "|".join(map(re.escape, FRONT_DOORS))
_PATH = re.compile(
    rf"""
    (?: /run/(?P<label>[A-Za-z0-9._~-]{{1,64}}) )?
    (?: (?P<pool>/pool) | /only/(?P<only>[^/]+) )?
    (?: /v1 ){{0,2}} / (?: (?P<call>{_CALLS}) | models (?: / (?P<model>.+?) )? ) /?
    |
    / (?P<other>status|metrics|health|healthz|receipt|lease|proof) /?
    |
    / (?P<page>page) (?: /[a-z.]+ )?
    """,
    re.VERBOSE,
)


def route_of(path: str) -> Route | None:
    """Return where `path` leads, None if nowhere."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    if other := match["other"] or match["page"]:
        return Route(Resource.HEALTH if other == "health" else Resource(other))
    only, model = match["only"], match["model"]
    return Route(
        Resource(match["call"] or "models"),
        match["label"] or "",
        None if only is None else unquote(only),
        match["pool"] is not None,
        None if model is None else unquote(model),
    )


def front_door_of(path: str) -> FrontDoor:
    """Return the API that a client of `path` speaks, chat completions for any other path."""
    route = route_of(path)
    resource = Resource.CHAT if route is None else route.resource
    return FRONT_DOORS.get(resource, completions.FRONT_DOOR)
