"""A session of an agent, over real HTTP, in which every turn is served by another model.

The scripted model knows only what the request holds, and adds up numbers that the
tools look up. So the last answer is right only if every word, call and result of all turns
has come through all dialects.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from muxcore import Multiplexer, RequestRejectedError
from muxcore.chat import Reply
from muxcore_backends.history import phrases
from tests.dialects.official import need
from tests.dialects.reading import turns_of
from tests.dialects.servers import KEY, Lab, lab, slug
from tests.dialects.table import DIALECTS, TOOLS, Said

TURNS = 20
CELLS = {str(number): number * number + 3 for number in range(2 * TURNS)}
TOTAL = re.compile(r"Total: (\d+)")
CELL = re.compile(r"cell (\d+)")
INTERRUPTED_AT = {6, 13}
"""Turns in which the user presses escape after the model has called its tools."""


def think(body: Any) -> Said:
    """Continue the conversation: look up the number, add it to the last total."""
    events = list(turns_of(body))
    asked_at = max(
        place
        for place, (speaker, kind, value) in enumerate(events)
        if (speaker, kind) == ("user", "text") and "Add" in value
    )
    cells = CELL.findall(events[asked_at][2])
    since = events[asked_at:]
    results = [value[1] for _, kind, value in since if kind == "result"]
    if not results:
        calls = tuple(("look", json.dumps({"n": cell})) for cell in cells)
        return Said("Let me look." if len(cells) > 1 else "", "I must look.", calls)
    said = [
        TOTAL.findall(v) for who, kind, v in events if (who, kind) == ("assistant", "text")
    ]
    before = [int(total) for totals in said for total in totals]
    total = (before or [0])[-1] + sum(int(text) for text in results if text.isdigit())
    if int(cells[0]) % 3 == 0 and "saved" not in results:
        return Said("", "Better save it.", (("write_file", json.dumps({"n": str(total)})),))
    return Said(f"Total: {total}", "That was easy.")


def run_tools(reply: Reply) -> Iterator[dict[str, Any]]:
    for call in reply.tool_calls:
        number = json.loads(call["function"]["arguments"])["n"]
        is_look = call["function"]["name"] == "look"
        content = str(CELLS[number]) if is_look else "saved"
        yield {"role": "tool", "tool_call_id": call["id"], "content": content}


Ask = Callable[[list[Any]], Reply]


def hold_session(ask: Ask) -> tuple[list[Any], int]:
    """Be the agent for twenty turns. Return the history, and the right total."""
    history: list[Any] = [{"role": "system", "content": "You add up cells."}]
    right = 0
    for turn in range(TURNS):
        cells = [str(2 * turn), str(2 * turn + 1)][: 1 + turn % 2]
        words = " and ".join(f"cell {cell}" for cell in cells)
        history.append({"role": "user", "content": f"Add {words}."})
        reply = ask(history)
        history.append(reply.message)
        if turn in INTERRUPTED_AT:
            continue
        right += sum(CELLS[cell] for cell in cells)
        while reply.tool_calls:
            history += run_tools(reply)
            reply = ask(history)
            history.append(reply.message)
    return history, right


def expect_right(found: Lab, history: list[Any], right: int) -> None:
    assert found.refused == []
    assert history[-1]["content"] == f"Total: {right}"


@pytest.mark.parametrize("streams", [False, True])
def test_another_model_at_every_call(*, streams: bool) -> None:
    with (
        lab(think) as found,
        Multiplexer.from_config(found.config(), env={"LAB_KEY": KEY}) as mux,
    ):
        # Steps of 4 through 15 models: each call is another's, and no order repeats soon.
        size = len(DIALECTS)
        names = (slug(DIALECTS[(n * 4 + n // size) % size]) for n in itertools.count())

        def ask(history: list[Any]) -> Reply:
            name = next(names)
            if not streams:
                return mux.complete(history, TOOLS, model=name)
            with mux.stream(history, TOOLS, model=name) as stream:
                chunks = list(stream)
            expect_valid([chunk.raw for chunk in chunks])
            return stream.reply

        history, right = hold_session(ask)
        expect_right(found, history, right)
        assert set(found.served) == {slug(dialect) for dialect in DIALECTS}
        pairs = itertools.pairwise(found.served)
        assert all(one != other for one, other in pairs)
        assert len(found.served) >= 2 * TURNS


def test_another_model_at_every_turn_as_the_mode_decides() -> None:
    with (
        lab(think) as found,
        Multiplexer.from_config(found.config(sticky="turn"), env={"LAB_KEY": KEY}) as mux,
    ):
        by_turn: list[set[str]] = []

        def ask(history: list[Any]) -> Reply:
            reply = mux.complete(history, TOOLS, session="s")
            if history[-1]["role"] == "user":
                by_turn.append(set())
            by_turn[-1].add(reply.model)
            return reply

        history, right = hold_session(ask)
        expect_right(found, history, right)
        assert len(by_turn) == TURNS
        assert all(len(models) == 1 for models in by_turn)
        assert all(one != other for one, other in itertools.pairwise(by_turn))


def test_rewrites_are_reported() -> None:
    with (
        lab(think) as found,
        Multiplexer.from_config(found.config(), env={"LAB_KEY": KEY}) as mux,
    ):
        history: list[Any] = [{"role": "user", "content": "Add cell 1."}]
        history.append(mux.complete(history, TOOLS, model="openai").message)
        history.append({"role": "user", "content": "Add cell 2."})
        reply = mux.complete(history, TOOLS, model="mistral")
        assert reply.attempts[0].rewrites == (
            "calls and results paired",
            "tool-call ids changed",
            "an answer put between a tool's result and the user",
            "members of other servers left out",
        )
        with mux.stream(history, TOOLS, model="claude") as stream:
            list(stream)
        assert stream.reply.attempts[0].rewrites == ("calls and results paired",)


CUT = (
    "the server read only 10 of about 25098 tokens: it cut the history's front (raise its"
    " context length; for Ollama OLLAMA_CONTEXT_LENGTH or num_ctx)"
)


def test_a_history_cut_by_ollama_is_a_warning() -> None:
    with (
        lab(think) as found,
        Multiplexer.from_config(found.config(), env={"LAB_KEY": KEY}) as mux,
    ):
        long = [{"role": "user", "content": "Add cell 1." + "x" * 100_000}]
        reply = mux.complete(long, TOOLS, model="ollama")
        assert reply.attempts[0].rewrites == (CUT,)
        with mux.stream(long, TOOLS, model="ollama") as stream:
            list(stream)
        (rewrites,) = stream.reply.attempts[0].rewrites
        assert re.sub(r"\d+", "", rewrites) == re.sub(r"\d+", "", CUT)
        assert mux.complete(long, TOOLS, model="vllm").attempts[0].rewrites == ()


def test_the_stand_ins_refuse_what_is_not_rewritten() -> None:
    with (
        lab(think) as found,
        Multiplexer.from_config(found.config(), env={"LAB_KEY": KEY}) as mux,
    ):
        strange = [{"role": "user", "content": [{"type": "video", "video": {}}]}]
        with pytest.raises(RequestRejectedError):
            mux.complete(strange, model="openai")
        assert len(found.refused) == 1


def expect_valid(chunks: list[Any]) -> None:
    """Expect the official clients of OpenAI and Mistral to take every chunk."""
    need("openai")
    need("mistralai")
    from mistralai.client.models import CompletionChunk
    from openai.types.chat import ChatCompletionChunk

    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        CompletionChunk.model_validate(chunk)


def test_the_phrases_are_short() -> None:
    words = [value for name, value in vars(phrases).items() if name.isupper()]
    assert all(len(word) <= 60 for word in words)
