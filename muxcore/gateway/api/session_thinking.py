"""The level of thinking that a user sets in vibe for one session. Pure.

Vibe sends the level of its active model with every request, and the member that serves has a
level of its own. So only a level that the config does not explain is the session's.
"""

from __future__ import annotations

from attrs import evolve

from muxcore.chat import SessionThinking
from muxcore.core.records import PoolState
from muxcore.gateway.front_doors.door import ClientRequest

OFF = "off"
OFF_ON_THE_WIRE = "none"


def with_session_thinking(request: ClientRequest, state: PoolState) -> ClientRequest:
    """Return the request with the level of its session, if it has one of its own.

    The request names the active model of vibe, whichever will serve.
    """
    endpoints = [candidate.endpoint for candidate in state.candidates]
    configured = {e.wire.thinking for e in endpoints if e.model == request.model}
    effort = request.chat.extra.get("reasoning_effort")
    level = effort if isinstance(effort, str) and effort != OFF_ON_THE_WIRE else OFF
    if not configured or level in configured:
        return request
    thinking = SessionThinking(level, request.model)
    return evolve(request, chat=evolve(request.chat, thinking=thinking))
