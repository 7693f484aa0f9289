"""What a path asks for. Pure.

`/v1` is for any client. Under `/run/LABEL` it is for a vibe whose settings are those of the
config: what its calls come to is counted under that label, and each model brings its own
settings. `/pool` and `/only/ALIAS` say there who is to answer, whatever `model` says: vibe
sends a model's name, and two of its models may share one.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from urllib.parse import quote, unquote

from attrs import frozen


class Asking(StrEnum):
    """What is asked for."""

    CHAT = "chat/completions"
    MODELS = "models"
    STATUS = "status"
    HEALTH = "healthz"
    RECEIPT = "receipt"
    LEASE = "lease"


WAITS_ITSELF = timedelta(seconds=3)
"""A vibe from 3 on shows a 429 as a wait, waits as long as it says, and can be stopped in it;
a call that is held looks as if it were being answered. Short waits are not worth showing."""

_CANNOT_WAIT = re.compile(r"Mistral-Vibe/[12]\.")
"""These try three times within two seconds, and end the turn. Those from 3 on say nothing of
themselves to a provider that is not Mistral's."""

METHODS = {Asking.CHAT: "POST"}
"""All others are a GET."""


@frozen
class Route:
    """What a path asks for. `label` is that of a `run`, "" for all other clients.

    `only` is an alias that is asked alone. `pooled` says that the path chose the pool.
    `model` is the one that a list of models is narrowed down to.
    """

    asking: Asking
    label: str = ""
    only: str | None = None
    pooled: bool = False
    model: str | None = None

    @property
    def method(self) -> str:
        return METHODS.get(self.asking, "GET")


def patience_for(route: Route, user_agent: str) -> timedelta | None:
    """Return for how long a call may be held; None: as long as the config says."""
    if not route.label or _CANNOT_WAIT.match(user_agent):
        return None
    return WAITS_ITSELF


_PATH = re.compile(
    r"""
    (?: /run/(?P<label>[A-Za-z0-9._~-]{1,64}) )?
    (?: (?P<pool>/pool) | /only/(?P<only>[^/]+) )?
    /v1/ (?: (?P<chat>chat/completions) | models (?: / (?P<model>.+) )? )
    |
    / (?P<other>status|healthz|receipt|lease)
    """,
    re.VERBOSE,
)


def route_of(path: str) -> Route | None:
    """Return what `path` asks for, None if there is no such thing."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    if match["other"]:
        return Route(Asking(match["other"]))
    only, model = match["only"], match["model"]
    return Route(
        Asking.CHAT if match["chat"] else Asking.MODELS,
        match["label"] or "",
        None if only is None else unquote(only),
        match["pool"] is not None,
        None if model is None else unquote(model),
    )


def base_path(label: str = "", only: str | None = None) -> str:
    """Return the path of an `api_base` for a `run`: the pool's, or that of one model."""
    prefix = f"/run/{label}" if label else ""
    return (
        f"{prefix}/pool/v1" if only is None else f"{prefix}/only/{quote(only, safe='')}/v1"
    )
