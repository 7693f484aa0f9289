"""After any switch, between any two dialects, at any turn, the next call is accepted.

The client may speak any API: its history comes in by that front door.
`VIBE_MUX_HISTORIES=10000 python -m pytest tests/dialects/test_any_switch.py -q
-o faulthandler_timeout=0` runs ten thousand histories through each; without the variable a slice
of them.
"""

from __future__ import annotations

import copy
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxcore_backends.history import phrases
from muxcore_backends.history.steps import rewritten
from tests.dialects.doors import DOORS, Door
from tests.dialects.histories import History, histories
from tests.dialects.reading import Meaning, meaning_of
from tests.dialects.table import DIALECTS, Dialect, Said

HISTORIES = int(os.environ.get("VIBE_MUX_HISTORIES", "20"))


@pytest.mark.unmeasured
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@settings(
    max_examples=HISTORIES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(history=histories(), apart=st.integers(0, len(DIALECTS) - 1))
def test_the_next_call_is_accepted_and_means_the_same(
    history: History, apart: int, door: Door
) -> None:
    before = copy.deepcopy(history.messages)
    expected = _expected(history)
    taken = door.taken(history.messages)
    for place, first in enumerate(DIALECTS):
        meaning = accepted(first, taken)
        _expect_done(first, taken)
        _expect_same(first, meaning, history, expected)
        answer = first.answer(Said("w0e", "t0e", (("look", '{"n": "c0e"}'),)), 10_000)
        identity = answer["tool_calls"][0]["id"]
        result = {"role": "tool", "tool_call_id": identity, "content": "r0e"}
        longer = door.taken([*history.messages, answer, result])
        # Every switch from one to another once; what a door adds shows with any of them.
        drawn = (first, DIALECTS[(place + apart) % len(DIALECTS)])
        for second in DIALECTS if door is DOORS[0] else drawn:
            said = accepted(second, longer)
            assert said.words[-1] == ("assistant", "w0e")
            assert (said.calls[-1].tokens, said.calls[-1].results) == (["c0e"], ["r0e"])
            if second is first:
                _expect_stable(meaning, said)
    assert history.messages == before


def accepted(dialect: Dialect, messages: list[Any]) -> Meaning:
    """Send a history; expect no refusal, and no two calls under one id."""
    body = dialect.body(messages)
    assert dialect.judge(body) is None, (dialect.name, body)
    meaning = meaning_of(body)
    identities = [call.identity for call in meaning.calls]
    assert len(identities) == len(set(identities)), dialect.name
    return meaning


def _expect_done(dialect: Dialect, messages: list[Any]) -> None:
    """Expect that a second rewriting changes nothing."""
    steps = dialect.steps(dialect.endpoint)
    once, _ = rewritten(messages, steps)
    again, rewrites = rewritten(once, steps)
    assert again is once, (dialect.name, rewrites)


def _expected(history: History) -> list[tuple[str, str]]:
    words = []
    for message in history.messages:
        speaker = "assistant" if message["role"] == "assistant" else "user"
        if message["role"] != "tool":
            found = meaning_of({"messages": [{**message, "tool_calls": None}]}).words
            words += [(speaker, token) for _, token in found]
    return words


def _expect_same(
    dialect: Dialect, meaning: Meaning, history: History, words: list[tuple[str, str]]
) -> None:
    assert _spoken(meaning.words, "assistant") == _spoken(words, "assistant")
    assert sorted(meaning.words) == sorted(words)
    if not _has_late_system(history):
        assert meaning.words == words
    called = [token for call in meaning.calls for token in call.tokens]
    original = [
        token
        for message in history.messages
        for call in message.get("tool_calls") or ()
        for token in [_token(call)]
    ]
    assert called == original
    got: dict[str, str] = {}
    orphans = []
    for call in meaning.calls:
        assert len(call.results) == 1
        if call.tokens:
            got[call.results[0]] = call.tokens[0]
        else:
            orphans.append(call.results[0])
    got.pop(phrases.INTERRUPTED, None)
    assert {said.split("\n")[0]: token for said, token in got.items()} == history.results
    assert orphans == history.orphans
    text = json.dumps([token for _, token in meaning.words] + meaning.order)
    assert not any(thought in text for thought in history.thoughts)
    if dialect.sees:
        assert sorted(meaning.images) == sorted(history.images)
    else:
        assert not meaning.images


def _token(call: Any) -> str:
    return str(call["function"]["arguments"]).split('"')[3]


def _spoken(words: list[tuple[str, str]], speaker: str) -> list[str]:
    return [token for who, token in words if who == speaker]


def _has_late_system(history: History) -> bool:
    roles = [message["role"] for message in history.messages]
    return any(role != "system" for role in roles[: _last(roles, "system")])


def _last(roles: list[str], role: str) -> int:
    return max((place for place, one in enumerate(roles) if one == role), default=0)


def _expect_stable(meaning: Meaning, longer: Meaning) -> None:
    """What came before keeps its ids when the history grows: prompt caches hit."""
    known = {call.tokens[0]: call.identity for call in meaning.calls if call.tokens}
    later = {call.tokens[0]: call.identity for call in longer.calls if call.tokens}
    assert known == {token: later[token] for token in known}
