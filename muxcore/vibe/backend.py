"""Vibe's `BackendLike` over a multiplexer: for its 1.x and 2.x agent loops and 3.x's side calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from muxcore.chat import Chunk, Json, Reply
from muxcore.core.outcomes import Refusal
from muxcore.errors import MultiplexerError
from muxcore.gateway.api.errors import CODES, error_response_of
from muxcore.shell import clock
from muxcore.shell.call.cancellation import Cancellation
from muxcore.shell.call.facts import estimated_tokens
from muxcore.shell.call.multiplexer import CallOptions, Multiplexer
from muxcore.vibe.messages import chat_of, session_of
from muxcore.vibe.threads import Give, pieces

try:
    # By name: a type checker finds no vibe where none is.
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
"""What vibe looks for before it makes its history shorter."""


class PoolBackend:
    """A pool of models as one backend of vibe's.

    `active` is the alias that stands for the pool: asked for another member, as after
    `/model`, that one alone answers. Without it, every model that vibe asks for is the pool.
    The multiplexer is the caller's: it is not closed here.
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
        """Keep everything: vibe 1.x leaves after each call."""

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
        """Do as `complete` does, without an event loop: return vibe's `LLMChunk`."""
        try:
            chat = chat_of(model, messages, temperature, tools, max_tokens, tool_choice)
            asked = self._asked(model, extra_headers, metadata, cancellation)
            return _whole(self._multiplexer.answer(chat, asked))
        except MultiplexerError as error:
            raise self._refused(error, model, messages, temperature, tools) from error

    async def complete(self, **asked: Any) -> Any:
        """Return a whole answer, as vibe's `LLMChunk`. Raise vibe's `BackendError`."""

        def work(give: Give[Any], cancellation: Cancellation) -> None:
            give(self.complete_sync(**asked, cancellation=cancellation))

        async with aclosing(pieces(work)) as answers:
            return await anext(answers)

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
        """Give an answer in vibe's `LLMChunk`s; the last one tells the usage of all."""
        chat = chat_of(model, messages, temperature, tools, max_tokens, tool_choice)

        def work(give: Give[Any], cancellation: Cancellation) -> None:
            asked = self._asked(model, extra_headers, metadata, cancellation)
            with self._multiplexer.answer_in_chunks(chat, asked) as stream:
                for chunk in stream:
                    if chunk.commits:
                        give(_piece(chunk))
                give(_end(stream.reply))

        try:
            async with aclosing(pieces(work)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except MultiplexerError as error:
            raise self._refused(error, model, messages, temperature, tools) from error

    async def count_tokens(
        self, *, model: Any, messages: Sequence[Any], tools: Any = None, **others: Any
    ) -> int:
        """Estimate the size of a prompt, as vibe 1.x asks after it has made it shorter."""
        chat = chat_of(model, messages, others.get("temperature"), tools, None, None)
        return estimated_tokens(chat)

    def _asked(
        self,
        model: Any,
        extra_headers: Headers,
        metadata: Headers,
        cancellation: Cancellation | None,
    ) -> CallOptions:
        only = self._only(model)
        session = session_of(extra_headers, metadata)
        return CallOptions(session=session, model=only, cancellation=cancellation)

    def _only(self, model: Any) -> str | None:
        """Return the member that is asked for by itself, if one is."""
        if self._active is None or model.alias == self._active:
            return None
        members = self._multiplexer.state.candidates
        known = {candidate.endpoint.alias for candidate in members}
        return model.alias if model.alias in known else None

    def _refused(
        self,
        error: MultiplexerError,
        model: Any,
        messages: Sequence[Any],
        temperature: float | None,
        tools: Sequence[Any] | None,
    ) -> Exception:
        """Make vibe's own error of what the pool raised, so that vibe does what it does."""
        status = self._multiplexer.status()
        refusal = error_response_of(error, status, clock.now(), self._only(model))
        told, code = refusal.message, refusal.status
        if refusal.code == CODES[str(Refusal.TOO_LONG)]:
            told, code = f"{TOO_LONG}: {told}", 400
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
            reason=told,
            headers=refusal.fields,
            body_text=told,
            parsed_error=told,
            model=model.name,
            payload_summary=summary,
        )
        return made


@contextmanager
def through_pool(
    multiplexer: Multiplexer, *, active: str | None = None
) -> Iterator[PoolBackend]:
    """Put the pool under all that vibe calls in this process, until the block ends.

    So vibe's own `run_programmatic(config, prompt)` is a whole turn through the pool, tools
    and all, as one synchronous call. Agent loops that were made before keep what they have.
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
    said = {
        "content": reply.text,
        "reasoning_content": reply.message.get("reasoning_content"),
        "tool_calls": calls or None,
    }
    return _chunk(said, reply)


def _piece(chunk: Chunk) -> Any:
    delta = chunk.delta
    names = ("content", "reasoning_content", "tool_calls")
    return _chunk({name: delta[name] for name in names if delta.get(name)})


def _end(reply: Reply) -> Any:
    """Make the chunk that ends a stream: vibe adds up what its chunks tell."""
    return _chunk({}, reply)


def _chunk(said: Json, reply: Reply | None = None) -> Any:
    made: Json = {"message": {"role": "assistant", "content": "", **said}}
    if reply is not None:
        usage = reply.usage
        # A vibe that knows fewer of these leaves the others out.
        made["usage"] = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
        }
        made["stop"] = {"reason": reply.finish_reason}
    return _types.LLMChunk.model_validate(made)
