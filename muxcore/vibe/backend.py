"""Vibe's `BackendLike` over a multiplexer: for its 1.x and 2.x agent loops and 3.x's side calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from http import HTTPStatus
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from muxcore.chat import Chunk, Json, Reply
from muxcore.core.outcomes import Refusal
from muxcore.errors import MultiplexerError
from muxcore.gateway.api.errors import CODES, error_response_of
from muxcore.shell import clock
from muxcore.shell.call.arguments import CallOptions
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.facts import estimated_tokens
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.vibe.messages import chat_of, session_of
from muxcore.vibe.threads import Give, pieces

try:
    # By name: vibe need not be installed where the types are checked.
    _types: Any = import_module("vibe.core.types")
    _exceptions: Any = import_module("vibe.core.llm.exceptions")
    _factory: Any = import_module("vibe.core.llm.backend.factory")
except ImportError as error:
    raise ImportError(
        f"muxcore.vibe needs vibe itself in this environment ({error}): with Python 3.12 or"
        " newer, pip install mistral-vibe; to start a vibe of another environment through the"
        " pool, use the command `vibe-mux run -- vibe`"
    ) from error

Headers = Mapping[str, str] | None

PROVIDER = "vibe-mux"
TOO_LONG = "context too long"
"""The words that make vibe shorten its history."""


class PoolBackend:
    """A pool of models as one backend of vibe.

    `active` is the alias that stands for the pool: a call for any other member, as after
    `/model`, goes to that member alone. Without `active`, every call goes to the pool. The
    caller closes the multiplexer.
    """

    def __init__(self, multiplexer: Multiplexer, *, active: str | None = None) -> None:
        self._multiplexer = multiplexer
        self._active = active

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep everything open: vibe 1.x leaves the context after each call."""

    def complete_sync(  # noqa: PLR0913 - vibe's own
        self,
        *,
        model: Any,
        messages: Sequence[Any],
        temperature: float | None = None,
        tools: Sequence[Any] | None = None,
        max_tokens: int | None = None,
        tool_choice: Any = None,
        extra_headers: Headers = None,
        metadata: Headers = None,
        cancellation: Cancellation | None = None,
    ) -> Any:
        """Like `complete`, without an event loop: return vibe's `LLMChunk`."""
        try:
            chat = chat_of(model, messages, temperature, tools, max_tokens, tool_choice)
            options = self._options(model, extra_headers, metadata, cancellation)
            return _whole(self._multiplexer.answer(chat, options))
        except MultiplexerError as error:
            raise self._backend_error(error, model, messages, temperature, tools) from error

    async def complete(self, **arguments: Any) -> Any:
        """Return a whole answer, as vibe's `LLMChunk`. Raise vibe's `BackendError`."""

        def work(give: Give[Any], cancellation: Cancellation) -> None:
            give(self.complete_sync(**arguments, cancellation=cancellation))

        try:
            async with aclosing(pieces(work)) as answers:
                return await anext(answers)
        except MultiplexerError as error:
            # What was raised in the thread is vibe's own already.
            model, messages = arguments["model"], arguments["messages"]
            temperature, tools = arguments.get("temperature"), arguments.get("tools")
            raise self._backend_error(error, model, messages, temperature, tools) from error

    async def complete_streaming(
        self,
        *,
        model: Any,
        messages: Sequence[Any],
        temperature: float | None = None,
        tools: Sequence[Any] | None = None,
        max_tokens: int | None = None,
        tool_choice: Any = None,
        extra_headers: Headers = None,
        metadata: Headers = None,
    ) -> AsyncGenerator[Any]:
        """Yield an answer as vibe's `LLMChunk`s; the last one holds the usage of the whole."""
        chat = chat_of(model, messages, temperature, tools, max_tokens, tool_choice)

        def work(give: Give[Any], cancellation: Cancellation) -> None:
            options = self._options(model, extra_headers, metadata, cancellation)
            with self._multiplexer.answer_in_chunks(chat, options) as stream:
                for chunk in stream:
                    if chunk.commits:
                        give(_piece(chunk))
                give(_end(stream.reply))

        try:
            async with aclosing(pieces(work)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except MultiplexerError as error:
            raise self._backend_error(error, model, messages, temperature, tools) from error

    async def count_tokens(
        self, *, model: Any, messages: Sequence[Any], tools: Any = None, **others: Any
    ) -> int:
        """Estimate the tokens of a prompt; vibe 1.x asks after it has shortened its history."""
        chat = chat_of(model, messages, others.get("temperature"), tools, None, None)
        return estimated_tokens(chat)

    def _options(
        self,
        model: Any,
        extra_headers: Headers,
        metadata: Headers,
        cancellation: Cancellation | None,
    ) -> CallOptions:
        only = self._single_alias(model)
        session = session_of(extra_headers, metadata)
        return CallOptions(session=session, model=only, cancellation=cancellation)

    def _single_alias(self, model: Any) -> str | None:
        """Return the alias of the one member to ask, None for the pool."""
        if self._active is None or model.alias == self._active:
            return None
        members = self._multiplexer.state.candidates
        known = {candidate.endpoint.alias for candidate in members}
        return model.alias if model.alias in known else None

    def _backend_error(
        self,
        error: MultiplexerError,
        model: Any,
        messages: Sequence[Any],
        temperature: float | None,
        tools: Sequence[Any] | None,
    ) -> Exception:
        """Make vibe's own error from an error of the pool, so that vibe handles it as its own."""
        status = self._multiplexer.status()
        response = error_response_of(error, status, clock.now(), self._single_alias(model))
        text, code = response.message, response.status
        if response.code == CODES[str(Refusal.TOO_LONG)]:
            text, code = f"{TOO_LONG}: {text}", HTTPStatus.BAD_REQUEST
        summary = _exceptions.PayloadSummary(
            model=model.name,
            message_count=len(messages),
            approx_chars=sum(len(message.content or "") for message in messages),
            temperature=model.temperature if temperature is None else temperature,
            has_tools=bool(tools),
            tool_choice=None,
        )
        made: Exception = _exceptions.BackendError(
            provider=PROVIDER,
            endpoint="the pool",
            status=code,
            reason=text,
            headers=response.fields,
            body_text=text,
            parsed_error=text,
            model=model.name,
            payload_summary=summary,
        )
        return made


@contextmanager
def through_pool(
    multiplexer: Multiplexer, *, active: str | None = None
) -> Iterator[PoolBackend]:
    """Send all of vibe's calls in this process through the pool until the block ends.

    Vibe's own `run_programmatic(config, prompt)` is then a whole turn through the pool, with
    tools, as one synchronous call. Agent loops made before keep their backend.
    """
    backend = PoolBackend(multiplexer, active=active)
    factories: dict[Any, Callable[..., Any]] = _factory.BACKEND_FACTORY
    former = dict(factories)
    factories.update(dict.fromkeys(former, lambda **_options: backend))
    try:
        yield backend
    finally:
        factories.update(former)


def _whole(reply: Reply) -> Any:
    calls = [{**call, "index": position} for position, call in enumerate(reply.tool_calls)]
    fields = {
        "content": reply.text,
        "reasoning_content": reply.message.get("reasoning_content"),
        "tool_calls": calls or None,
    }
    return _chunk(fields, reply)


def _piece(chunk: Chunk) -> Any:
    delta = chunk.delta
    names = ("content", "reasoning_content", "tool_calls")
    return _chunk({name: delta[name] for name in names if delta.get(name)})


def _end(reply: Reply) -> Any:
    """Make the last chunk of a stream: vibe adds up the usage of all chunks."""
    return _chunk({}, reply)


def _chunk(fields: Json, reply: Reply | None = None) -> Any:
    made: Json = {"message": {"role": "assistant", "content": "", **fields}}
    if reply is not None:
        usage = reply.usage
        # Older vibes ignore the fields that they do not know.
        made["usage"] = {
            "prompt_tokens": usage.prompt_tokens or 0,
            "completion_tokens": usage.completion_tokens or 0,
            "cached_tokens": usage.cached_tokens or 0,
        }
        made["stop"] = {"reason": reply.finish_reason}
    return _types.LLMChunk.model_validate(made)
