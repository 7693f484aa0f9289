"""Model servers on this machine that the config does not name, and the lines to add for them.

They are reported, not added: only the user knows whether their models are good enough.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from muxcore.config.addresses import is_loopback
from muxcore.config.definitions import Definitions
from muxcore.setup.model_servers import at_once, models_at
from muxcore.setup.section_edit import quoted
from muxcore.text import printable

USUAL_PORTS = {"ollama": 11434, "lmstudio": 1234}
"""The ports on which they listen by default. Vibe knows that of llama.cpp by itself."""

MOST_MODELS = 20
LONGEST_NAME = 100

ServedModels = Callable[[str], tuple[str, ...]]


@frozen
class Found:
    """A server that responds, and a name for its provider."""

    provider: str
    api_base: str
    models: tuple[str, ...]


def unknown_servers(
    data: Mapping[str, Any], served: ServedModels | None = None
) -> tuple[Found, ...]:
    """Ask at the usual ports which no provider of the config uses, all at once."""
    known = _loopback_ports(data)
    asked = {
        f"http://127.0.0.1:{port}/v1": name
        for name, port in USUAL_PORTS.items()
        if port not in known
    }
    found = at_once(served or served_models, asked)
    return tuple(
        Found(name, api_base, found[api_base])
        for api_base, name in asked.items()
        if found[api_base]
    )


def served_models(api_base: str) -> tuple[str, ...]:
    """Return the names of the models that a server on this machine lists."""
    answer = models_at(api_base)
    if answer is None:
        return ()
    try:
        listed = answer.json()["data"]
        names = [printable(str(model["id"]))[:LONGEST_NAME] for model in listed]
    except (ValueError, LookupError, TypeError):
        return ()
    return tuple(name for name in names if name)[:MOST_MODELS]


def lines_for(server: Found, aliases: Collection[str]) -> str:
    """Write the tables for the first model of a server, with an alias that is free."""
    name = server.models[0]
    short = name.rpartition("/")[2].partition(":")[0]
    alias = name if not short or short in aliases else short
    return "\n".join(
        [
            "[[providers]]",
            f"name = {quoted(server.provider)}",
            f"api_base = {quoted(server.api_base)}",
            "",
            "[[models]]",
            f"name = {quoted(name)}",
            f"provider = {quoted(server.provider)}",
            f"alias = {quoted(alias)}",
        ]
    )


def _loopback_ports(data: Mapping[str, Any]) -> set[int | None]:
    providers = Definitions.of(data).providers.values()
    tables = [p.table for p in providers if isinstance(p.table, Mapping)]
    return {_loopback_port(str(table.get("api_base", ""))) for table in tables}


def _loopback_port(api_base: str) -> int | None:
    try:
        return urlsplit(api_base).port if is_loopback(api_base) else None
    except ValueError:
        # `check` reports an invalid address.
        return None
