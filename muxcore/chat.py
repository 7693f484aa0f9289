"""What callers pass in and get back, in the shapes of OpenAI chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from attrs import field, frozen

Json: TypeAlias = dict[str, Any]
"""One JSON object, with the keys of OpenAI's chat completions."""

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Sequence[Message]
Tools: TypeAlias = Sequence[Mapping[str, Any]]

REASONING = "reasoning_content"
"""The member of a message with the model's reasoning, as text."""
THINKING_BLOCKS = "thinking_blocks"
REASONING_ITEMS = "reasoning_items"
"""Members that keep signed reasoning, of the Messages and of the Responses API, for the endpoint
that signed it."""
SIGNED_REASONING = (THINKING_BLOCKS, REASONING_ITEMS)
ORIGIN = "origin"
"""The member of each of their objects that names this endpoint."""


@frozen
class SessionThinking:
    """A level of thinking that the user has set for a session, for the model of this name."""

    level: str
    model: str

    def level_for(self, model: str, own: str) -> str:
        """Return the level for a model whose configured level is `own`.

        A model that is configured as "off" may not be able to think, so the session's level
        applies to it only if that was set for this very model.
        """
        return own if own == "off" and model != self.model else self.level


@frozen
class Chat:
    """One request for a completion. It never changes: backends rewrite a copy."""

    messages: Messages
    tools: Tools | None = None
    tool_choice: Any = None
    temperature: float | None = None
    max_tokens: int | None = None
    stream: bool = False
    extra: Mapping[str, Any] = field(factory=dict)
    """Any further members of the request's body, passed on as they are."""
    thinking: SessionThinking | None = None
    """None: each model thinks at its configured level."""
    usual_temperature: float | None = None
    """The temperature of a model whose config has none."""

    def temperature_for(self, own: float | None) -> float | None:
        """Return the temperature for a model with `own` configured; None: the provider's."""
        if self.temperature is not None:
            return self.temperature
        return self.usual_temperature if own is None else own


@frozen
class Usage:
    """Tokens of one answer; `prompt_tokens` counts the cached ones too.

    A count that the server did not give is None.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


@frozen
class AttemptReport:
    """One attempt of a call, for people to read: the model, how it ended, its words.

    `rewrites` says in a few words how the history was rewritten for this model's dialect.
    `refuted_by` is the alias of the model which took the request that this one refused.
    """

    alias: str
    outcome: str
    message: str = ""
    rewrites: tuple[str, ...] = ()
    refuted_by: str = ""


@frozen
class Reply:
    """A whole answer. `model` is the alias that served; `raw` the provider's own object.

    `call_id` is the id of the call: `vibe-mux why --call` explains it.
    """

    message: Json
    finish_reason: str | None = None
    usage: Usage = Usage()
    raw: Json = field(factory=dict, repr=False)
    model: str = ""
    attempts: tuple[AttemptReport, ...] = ()
    call_id: str = ""

    def of_call(
        self, call_id: str, model: str, attempts: tuple[AttemptReport, ...]
    ) -> Reply:
        """Return it as the answer of a call, which the model of this alias has served."""
        # Written out: a quarter of the time of `evolve`.
        return Reply(
            self.message,
            self.finish_reason,
            self.usage,
            self.raw,
            model,
            attempts,
            call_id,
        )

    @property
    def text(self) -> str:
        return self.message.get("content") or ""

    @property
    def is_empty(self) -> bool:
        """Whether the model has said nothing: no content, no reasoning, no tool call."""
        return not _holds_content(self.message)

    @property
    def tool_calls(self) -> list[Json]:
        return self.message.get("tool_calls") or []


@frozen
class Chunk:
    """One piece of a stream: `raw` is a `chat.completion.chunk` object."""

    raw: Json

    @property
    def delta(self) -> Json:
        choices = self.raw.get("choices") or []
        return (choices[0].get("delta") or {}) if choices else {}

    @property
    def text(self) -> str:
        return self.delta.get("content") or ""

    @property
    def finish_reason(self) -> str | None:
        choices = self.raw.get("choices")
        return choices[0].get("finish_reason") if choices else None

    @property
    def commits(self) -> bool:
        """Whether it holds content, reasoning or a piece of a tool call for the caller.

        From the first such chunk on, no other model can take over the answer. Empty,
        role-only and usage chunks commit to nothing.
        """
        return _holds_content(self.delta)


def _holds_content(message: Json) -> bool:
    # Routers send objects of which every member is null.
    return any(
        any(value.values()) if isinstance(value, dict) else value
        for name, value in message.items()
        if name != "role"
    )
