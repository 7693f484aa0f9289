"""What an agent must know to reach a gateway on this machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from muxcore.gateway.http.listening import LOOPBACK

TOKEN_VARIABLE = "VIBE_MUX_TOKEN"  # noqa: S105 - the name of one
"""The variable that holds the token, for a server and for the agent that it serves."""
POOL = "mux"
"""The `model` that stands for the whole pool."""

NO_PROXY = ("NO_PROXY", "no_proxy")


@frozen
class Access:
    """Where the gateway is, and the label under which it counts the calls of this agent."""

    url: str
    token: str
    label: str

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that hold the token, and keep a proxy out of the way."""
        return {
            TOKEN_VARIABLE: self.token,
            **dict.fromkeys(NO_PROXY, _unproxied(environment)),
        }


def _unproxied(environment: Mapping[str, str]) -> str:
    """Return the hosts that bypass the proxy: agents would use it for loopback, too."""
    # The lower-case variable counts first, as in most HTTP clients.
    own = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in own.split(",") if host.strip()]
    return ",".join(hosts if {"*", LOOPBACK} & set(hosts) else [*hosts, LOOPBACK])
