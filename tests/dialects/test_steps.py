"""Each step alone: its effect, and that it leaves valid histories unchanged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given

from muxcore.core.records import Endpoint, Wire
from muxcore_backends import capabilities
from muxcore_backends.anthropic.turns import steps as claude_steps
from muxcore_backends.generic import Generic
from muxcore_backends.history import (
    calls,
    contents,
    ids,
    members,
    pairs,
    phrases,
    reasoning,
    roles,
)
from muxcore_backends.history.steps import Messages, Rewrite, rewritten
from muxcore_backends.mistral import Mistral
from tests.dialects.histories import History, histories
from tests.dialects.table import BY_NAME, DIALECTS, Dialect, Said

USER = {"role": "user", "content": "u"}
MORE = {"role": "user", "content": "v"}
SYSTEM = {"role": "system", "content": "s"}
ANSWER = {"role": "assistant", "content": "a"}
INTERRUPTED = phrases.INTERRUPTED


def call(identity: Any = "1", name: Any = "look", arguments: Any = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": identity, "type": "function", "function": function}


def calling(*made: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(made), **more}


def result(identity: Any = "1", content: Any = "r", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": content, **more}


def lost(identity: Any = "1") -> dict[str, Any]:
    return result(identity, INTERRUPTED, name="look")


def found(name: str, identity: Any = "1") -> dict[str, Any]:
    return calling(call(identity, name))


Case = tuple[str, Rewrite, list[Any], list[Any] | None]
"""What for, the step, the history, and what becomes of it: None if it stays as it is."""

NINE = ids.ids(ids.NINE)
FORTY = ids.ids(ids.UP_TO_40)
X = "x" * 41
IMAGE = {"type": "image_url", "image_url": {"url": "https://x/i.png"}}
TEXT = {"type": "text", "text": "t"}
UNSEEN = {"type": "text", "text": phrases.NO_IMAGE}
THOUGHT = {
    "type": "thinking",
    "thinking": [{"type": "text", "text": "h"}, 1, {"text": "m"}],
}
SHORT = {"type": "thinking", "thinking": "hm"}
OF_2 = "OOIim6Z4y"
OF_X, OF_X_AGAIN, OF_OF_X = "DVwja8MBt", "Su9gnP2eh", "vDxWKg4Mx"

CASES: list[Case] = [
    ("nothing", pairs.PAIRS, [], None),
    ("paired", pairs.PAIRS, [USER, calling(call()), result(), USER], None),
    (
        "parallel, in another order",
        pairs.PAIRS,
        [calling(call("1"), call("2")), result("2"), result("1")],
        None,
    ),
    (
        "interrupted, then the user speaks",
        pairs.PAIRS,
        [calling(call("1"), call("2")), result("1"), USER],
        [calling(call("1"), call("2")), result("1"), lost("2"), USER],
    ),
    ("interrupted at the end", pairs.PAIRS, [calling(call())], [calling(call()), lost()]),
    (
        "a call without a name",
        pairs.PAIRS,
        [calling({"id": "1"})],
        [calling({"id": "1"}), result("1", INTERRUPTED)],
    ),
    (
        "the user speaks before the result",
        pairs.PAIRS,
        [calling(call()), USER, result()],
        [calling(call()), result(), USER],
    ),
    (
        "a late result goes to the latest call that waits",
        pairs.PAIRS,
        [calling(call()), USER, calling(call(name="b")), MORE, result()],
        [calling(call()), lost(), USER, calling(call(name="b")), result(), MORE],
    ),
    (
        "a result without a call",
        pairs.PAIRS,
        [result("9", name="look"), USER],
        [found("look", "9"), result("9", name="look"), USER],
    ),
    (
        "a result without a call or a name",
        pairs.PAIRS,
        [USER, result("9")],
        [USER, found(phrases.UNNAMED, "9"), result("9")],
    ),
    (
        "a result that comes twice",
        pairs.PAIRS,
        [calling(call()), result(), result("1", "again")],
        [calling(call()), result(), found("look"), result("1", "again")],
    ),
    (
        "a result without an id is of the call that waits",
        pairs.PAIRS,
        [calling(call("1"), call("2", "b")), result(None, name="b"), result("")],
        [calling(call("1"), call("2", "b")), result("2", name="b"), result("1")],
    ),
    (
        "a result without an id when none waits",
        pairs.PAIRS,
        [USER, result(None)],
        [USER, found(phrases.UNNAMED, None), result(None)],
    ),
    (
        "two calls of one id",
        pairs.PAIRS,
        [calling(call("1", "a"), call("1", "b")), result("1", "x"), result("1", "y")],
        None,
    ),
    ("well", calls.CALLS, [USER, calling(call()), result(name="look"), result()], None),
    ("white space around", calls.CALLS, [calling(call(arguments=' {"a": 1}\n'))], None),
    ("white space behind", calls.CALLS, [calling(call(arguments='{"a": 1} '))], None),
    ("no calls", calls.CALLS, [{**ANSWER, "tool_calls": None}], None),
    (
        "broken off",
        calls.CALLS,
        [calling(call(arguments='{"a": "b'))],
        [calling(call(arguments='{"unreadable_arguments": "{\\"a\\": \\"b"}'))],
    ),
    (
        "not an object, no JSON, nothing",
        calls.CALLS,
        [calling(call(arguments="[1]"), call(arguments='{"a": NaN}'), call(arguments=" "))],
        [
            calling(
                call(arguments='{"unreadable_arguments": "[1]"}'),
                call(arguments='{"a": null}'),
                call(),
            )
        ],
    ),
    (
        "too deep",
        calls.CALLS,
        [calling(call(arguments="[" * 200_000))],
        [calling(call(arguments='{"unreadable_arguments": "' + "[" * 200_000 + '"}'))],
    ),
    (
        "objects and other things for text",
        calls.CALLS,
        [calling(call(arguments={"a": 1}), call(arguments=None), call(arguments=3))],
        [calling(call(arguments='{"a": 1}'), call(), call())],
    ),
    (
        "names",
        calls.CALLS,
        [
            calling(call(name="a.b"), call(name=""), call(name=None), {"id": "1"}),
            result(name="a.b"),
        ],
        [
            calling(
                call(name="a_b"),
                call(name=phrases.UNNAMED),
                call(name=phrases.UNNAMED),
                call(name=phrases.UNNAMED),
            ),
            result(name="a_b"),
        ],
    ),
    (
        "a type is missing, other members stay",
        calls.CALLS,
        [calling({"id": "1", "x": 1, "function": {"name": "l" * 70, "arguments": "{}"}})],
        [calling({**call(name="l" * 64), "x": 1})],
    ),
    ("fitting", NINE, [calling(call("abcDEF123")), result("abcDEF123")], None),
    ("fitting OpenAI's", FORTY, [calling(call("functions.a:0"))], None),
    ("too long", FORTY, [calling(call(X)), result(X)], [calling(call(OF_X)), result(OF_X)]),
    (
        "the same, twice in one message and once later",
        NINE,
        [calling(call(X), call(X)), result(X), result(X, "b"), calling(call(OF_X)), result(OF_X)],
        [
            calling(call(OF_X), call(OF_X_AGAIN)),
            result(OF_X),
            result(OF_X_AGAIN, "b"),
            calling(call(OF_OF_X)),
            result(OF_OF_X),
        ],
    ),
    (
        "results in another order",
        NINE,
        [calling(call(X), call("2")), result("2", "b"), result(X)],
        [calling(call(OF_X), call(OF_2)), result(OF_2, "b"), result(OF_X)],
    ),
    ("none", FORTY, [calling(call(None)), result(None)], [calling(call("WZ2gWoh33")), result("WZ2gWoh33")]),
    ("a result that has no call", NINE, [result("9")], None),
    (
        "a result that has no call, behind one that has",
        NINE,
        [calling(call(X)), result(X), result(X)],
        [calling(call(OF_X)), result(OF_X), result(X)],
    ),
    ("developer", roles.SYSTEM, [{"role": "developer", "content": "s"}], [SYSTEM]),
    ("early", roles.EARLY_SYSTEM, [SYSTEM, SYSTEM, USER], None),
    (
        "late",
        roles.EARLY_SYSTEM,
        [SYSTEM, USER, SYSTEM],
        [SYSTEM, USER, {"role": "user", "content": "s"}],
    ),
    ("after the user", roles.SYSTEM_AFTER_USER, [SYSTEM, USER, SYSTEM], None),
    (
        "after an answer, and after itself",
        roles.SYSTEM_AFTER_USER,
        [ANSWER, SYSTEM, SYSTEM],
        [ANSWER, {"role": "user", "content": "s"}, SYSTEM],
    ),
    ("no bridge", roles.BRIDGED, [USER, calling(call()), result(), ANSWER, USER], None),
    (
        "a bridge",
        roles.BRIDGED,
        [result(), USER],
        [result(), {"role": "assistant", "content": phrases.NOTED}, USER],
    ),
    ("in turns", roles.MERGED, [SYSTEM, USER, calling(call()), result(), ANSWER], None),
    (
        "speakers who go on",
        roles.MERGED,
        [SYSTEM, SYSTEM, USER, {"role": "user", "content": [IMAGE]}, USER, ANSWER, ANSWER],
        [
            {"role": "system", "content": "s\n\ns"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "u"},
                    IMAGE,
                    {"type": "text", "text": "u"},
                ],
            },
            {"role": "assistant", "content": "a\n\na"},
        ],
    ),
    (
        "an answer that goes on with calls",
        roles.MERGED,
        [{**ANSWER, "reasoning_content": "h"}, calling(call(), reasoning_content="m")],
        [calling(call(), reasoning_content="h\n\nm") | {"content": "a"}],
    ),
    (
        "after calls nothing is joined",
        roles.MERGED,
        [calling(call()), result(), calling(call("2")), result("2")],
        None,
    ),
    (
        "reasoning of one half",
        roles.MERGED,
        [{**ANSWER, "reasoning_content": "h"}, {"role": "assistant", "content": None}],
        [{**ANSWER, "reasoning_content": "h"}],
    ),
    ("opened", roles.OPENED, [SYSTEM, USER], None),
    ("only a system", roles.OPENED, [SYSTEM], None),
    (
        "an answer first",
        roles.OPENED,
        [SYSTEM, ANSWER],
        [SYSTEM, {"role": "user", "content": phrases.EARLIER}, ANSWER],
    ),
    ("ended", roles.ENDED, [ANSWER, USER], None),
    ("nothing to end", roles.ENDED, [], None),
    (
        "an answer last",
        roles.ENDED,
        [ANSWER],
        [ANSWER, {"role": "user", "content": phrases.GO_ON}],
    ),
    ("words alone", reasoning.GATHERED, [USER, ANSWER, {**ANSWER, "content": [TEXT]}], None),
    (
        "Mistral's parts",
        reasoning.GATHERED,
        [{"role": "assistant", "content": [THOUGHT, SHORT, TEXT, TEXT, 5, {"type": "x"}]}],
        [{"role": "assistant", "content": "tt", "reasoning_content": "hmhm"}],
    ),
    (
        "thoughts that are there already",
        reasoning.GATHERED,
        [{"role": "assistant", "content": [SHORT], "reasoning_content": "x"}],
        [{"role": "assistant", "content": "", "reasoning_content": "x"}],
    ),
    (
        "nothing in the parts",
        reasoning.GATHERED,
        [{"role": "assistant", "content": [{"type": "thinking"}, {"type": "refusal"}]}],
        [{"role": "assistant", "content": ""}],
    ),
    (
        "a refusal",
        reasoning.GATHERED,
        [{"role": "assistant", "content": None, "refusal": "no"}],
        [{"role": "assistant", "content": "no"}],
    ),
    ("none to drop", reasoning.DROPPED, [USER, ANSWER], None),
    ("dropped", reasoning.DROPPED, [{**ANSWER, "reasoning_content": ""}], [ANSWER]),
    ("no other name", reasoning.named("reasoning"), [USER, ANSWER], None),
    (
        "another name",
        reasoning.named("reasoning"),
        [{"role": "assistant", "reasoning_content": "h", "content": "a"}],
        [{"role": "assistant", "reasoning": "h", "content": "a"}],
    ),
    ("filled", reasoning.FILLED, [USER, {**ANSWER, "reasoning_content": "h"}], None),
    (
        "blank",
        reasoning.FILLED,
        [ANSWER, {**ANSWER, "reasoning_content": ""}],
        [{**ANSWER, "reasoning_content": " "}] * 2,
    ),
    ("no parts", reasoning.IN_PARTS, [ANSWER, {**ANSWER, "content": [THOUGHT]}], None),
    (
        "in parts",
        reasoning.IN_PARTS,
        [{**ANSWER, "reasoning_content": "h"}, {**ANSWER, "reasoning_content": ""}],
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "h"}]},
                    {"type": "text", "text": "a"},
                ],
            },
            ANSWER,
        ],
    ),
    (
        "in parts already",
        reasoning.IN_PARTS,
        [{"role": "assistant", "content": [SHORT], "reasoning_content": "h"}],
        [{"role": "assistant", "content": [SHORT]}],
    ),
    ("settled", contents.SETTLED, [USER, ANSWER, result(), {"role": "assistant"}], None),
    (
        "unsettled",
        contents.SETTLED,
        [
            {"role": "user", "content": None},
            {"role": "tool"},
            {"role": "assistant", "content": [], "tool_calls": []},
            {"role": "user", "content": ""},
        ],
        [
            {"role": "user", "content": ""},
            {"role": "tool", "content": ""},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": ""},
        ],
    ),
    ("complete", contents.COMPLETED, [USER], None),
    (
        "incomplete",
        contents.COMPLETED,
        [{"role": "assistant"}],
        [{"role": "assistant", "content": ""}],
    ),
    ("flat", contents.FLAT, [USER, {"role": "user", "content": [IMAGE, TEXT]}], None),
    (
        "to be flattened",
        contents.FLAT,
        [{"role": "user", "content": (TEXT, TEXT)}],
        [{"role": "user", "content": "t\n\nt"}],
    ),
    ("no image", contents.BLIND, [USER, {"role": "user", "content": [TEXT]}], None),
    (
        "images",
        contents.BLIND,
        [{"role": "user", "content": [TEXT, IMAGE, {"type": "x"}]}, result(content=[IMAGE])],
        [
            {"role": "user", "content": [TEXT, UNSEEN, {"type": "x"}]},
            result(content=phrases.NO_IMAGE),
        ],
    ),
    ("nothing to lift", contents.LIFTED, [USER, result(), USER], None),
    (
        "lifted, behind the last result",
        contents.LIFTED,
        [result(content=[TEXT, IMAGE]), result("2"), USER, result("3", [IMAGE])],
        [
            result(content="t"),
            result("2"),
            {"role": "user", "content": [IMAGE]},
            USER,
            result("3", ""),
            {"role": "user", "content": [IMAGE]},
        ],
    ),
    ("spoken", contents.SPOKEN, [ANSWER, calling(call()), {"role": "user"}], None),
    (
        "unspoken",
        contents.SPOKEN,
        [
            {"role": "assistant"},
            {"role": "assistant", "content": "", "reasoning_content": "h"},
            {"role": "assistant", "content": [THOUGHT]},
            USER,
        ],
        [USER],
    ),
    ("own", members.own("reasoning"), [{**ANSWER, "reasoning": "h", "x": 1}], None),
    (
        "of others",
        members.own(""),
        [{**ANSWER, "reasoning": "h", "x": 1, "thinking_blocks": [], "prefix": True}],
        [{**ANSWER, "x": 1}],
    ),
    (
        "known",
        members.known(members.OPENAI, "reasoning_content", signed=True),
        [
            {**USER, "name": "me", "content": [IMAGE, "odd"]},
            calling({**call(), "extra_content": 1}, reasoning_content="h"),
            result(),
            {"role": "strange", "x": 1},
        ],
        None,
    ),
    (
        "unknown",
        members.known(members.MISTRAL),
        [
            {**USER, "name": "me"},
            {"role": "user", "content": [{**TEXT, "cache_control": {}}, IMAGE]},
            calling({**call(), "extra_content": 1}, reasoning_content="h"),
            calling({**call(), "function": {**call()["function"], "x": 1}}),
        ],
        [
            USER,
            {"role": "user", "content": [TEXT, IMAGE]},
            calling(call()),
            calling(call()),
        ],
    ),
    ("signed", members.ALL_SIGNED, [USER, calling({**call(), "extra_content": 1})], None),
    (
        "unsigned",
        members.ALL_SIGNED,
        [calling(call("1"), call("2"))],
        [calling({**call("1"), "extra_content": members.PLACEHOLDER}, call("2"))],
    ),
    (
        "calls in parallel",
        pairs.SPLIT,
        [calling(call("1"), call("2")), result("2"), result("1"), USER],
        [
            calling(call("1")),
            result("1"),
            {"role": "assistant", "content": "", "tool_calls": [call("2")]},
            result("2"),
            USER,
        ],
    ),
    ("one call", pairs.SPLIT, [calling(call("1")), result("1")], None),
    ("no signature", members.UNSIGNED, [USER, calling(call())], None),
    (
        "signatures",
        members.UNSIGNED,
        [calling({**call("1"), "extra_content": 1}, call("2"))],
        [calling(call("1"), call("2"))],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "history", "becomes"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_step(step: Rewrite, history: list[Any], becomes: list[Any] | None) -> None:
    before = copy.deepcopy(history)
    after, _ = rewritten(history, [step])
    assert history == before
    if becomes is None:
        assert after is history
    else:
        assert after == becomes
        assert step.apply(after) is after


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@given(histories())
def test_a_step_changes_no_history_without_what_it_is_about(
    dialect: Dialect, history: History
) -> None:
    expected: Messages = history.messages
    steps = dialect.steps(dialect.endpoint)
    for step in steps:
        expected = step.apply(expected)
    assert rewritten(history.messages, steps)[0] == expected


def test_a_step_that_changed_something_is_reported_once() -> None:
    step = Rewrite("a", lambda messages: [*messages])
    silent = Rewrite("", lambda messages: [*messages])
    idle = Rewrite("b", lambda messages: messages)
    assert rewritten([USER], [step, silent, idle, step]) == ([USER], ("a",))


PLAIN = [SYSTEM, USER, ANSWER, {**USER, "content": "v"}]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_history_that_needs_nothing_is_not_copied(dialect: Dialect) -> None:
    history = PLAIN
    if capabilities.NEEDS_REASONING in capabilities.of(dialect.endpoint):
        history = [SYSTEM, USER, {**ANSWER, "reasoning_content": "h"}, MORE]
    messages, rewrites = rewritten(history, dialect.steps(dialect.endpoint))
    assert messages is history
    assert rewrites == ()


RETURNED = [BY_NAME[n] for n in ("mistral-reasoning", "mistral", "groq", "deepseek")]
RETURNED += [BY_NAME[n] for n in ("claude-thinking", "claude", "claude-adaptive")]


@pytest.mark.parametrize("dialect", RETURNED, ids=lambda dialect: dialect.name)
def test_a_server_gets_its_own_ids_back_unchanged(dialect: Dialect) -> None:
    answer = dialect.answer(Said("a", "h", (("look", '{"n": "1"}'),)), 1)
    if dialect.name == "mistral-reasoning":
        # Only under another name.
        del answer["reasoning_content"]
    history = [USER, answer, result(answer["tool_calls"][0]["id"])]
    messages, rewrites = rewritten(history, dialect.steps(dialect.endpoint))
    assert messages is history, rewrites


def of(base: str = "https://api.example/v1", **more: Any) -> frozenset[str]:
    said = tuple(more.pop("said", ()))
    wire = Wire(base, capabilities=said)
    return capabilities.of(
        Endpoint("a", **{"model": "m", "provider": "p", **more}, wire=wire)
    )


TEMPLATE = {"strict_alternation", "system_first", "plain_content", "nine_character_ids"}
CLOSED = {"known_members", "refuses_reasoning"}

GUESSED: list[tuple[str, dict[str, Any], set[str]]] = [
    ("https://api.example/v1", {}, set()),
    ("", {}, TEMPLATE),
    ("https://api.openai.com/v1", {}, {*CLOSED, "developer_role"}),
    ("https://x.openai.azure.com/openai", {}, {*CLOSED, "developer_role"}),
    ("https://notopenai.com/v1", {}, set()),
    ("https://api.groq.com/openai/v1", {"model": "moonshotai/kimi-k2"}, CLOSED),
    ("https://api.deepseek.com", {}, {"needs_reasoning", "plain_content"}),
    ("https://api.moonshot.ai/v1", {}, {"needs_reasoning"}),
    (
        "https://openrouter.ai/api/v1",
        {"model": "deepseek/deepseek-v3.2"},
        {"needs_reasoning"},
    ),
    (
        "https://openrouter.ai/api/v1",
        {"model": "mistralai/devstral-2512"},
        {"nine_character_ids", "user_not_after_tool", "user_last"},
    ),
    ("http://127.0.0.1:8080/v1", {}, TEMPLATE),
    ("http://localhost:1234/v1", {}, TEMPLATE),
    ("http://[::1]:1234/v1", {}, TEMPLATE),
    ("http://192.168.1.7:8000/v1", {}, TEMPLATE),
    ("http://gpu:8000/v1", {}, TEMPLATE),
    ("http://gpu.local:8000/v1", {}, TEMPLATE),
    ("http://8.8.8.8:8000/v1", {}, set()),
    ("https://llm.example/v1", {"provider": "vLLM"}, TEMPLATE),
    (
        "http://127.0.0.1:8080/v1",
        {"model": "Devstral-Small-2-24B"},
        {*TEMPLATE, "user_not_after_tool"},
    ),
    *(
        ("http://127.0.0.1:8080/v1", {"model": model}, {*TEMPLATE, "user_not_after_tool"})
        for model in (
            "mistral-small",
            "mistral-nemo",
            "Mistral-7B-Instruct",
            "Ministral-8B",
        )
    ),
    (
        "https://openrouter.ai/api/v1",
        {"model": "mistralai/mistral-small"},
        {"nine_character_ids", "user_not_after_tool", "user_last"},
    ),
    (
        "https://llm.example/v1",
        {"provider": "llama.cpp", "model": "Meta-Llama-3.1-8B-Instruct"},
        {*TEMPLATE, "single_calls", "streams_whole"},
    ),
    (
        "http://127.0.0.1:11434/v1",
        {"model": "llama3.2"},
        {*TEMPLATE, "single_calls", "cuts_prompts"},
    ),
    ("http://127.0.0.1:8080/v1", {"model": "Llama-4-Scout"}, TEMPLATE),
    ("http://127.0.0.1:11434/v1", {}, {*TEMPLATE, "cuts_prompts"}),
    ("https://llm.example/v1", {"provider": "ollama"}, {*TEMPLATE, "cuts_prompts"}),
    (
        "http://127.0.0.1:8080/v1",
        {"said": ["-strict_alternation", "needs_reasoning", "-user_last"]},
        {"system_first", "plain_content", "nine_character_ids", "needs_reasoning"},
    ),
]


@pytest.mark.parametrize(("base", "more", "guessed"), GUESSED)
def test_capabilities_are_guessed_from_names(
    base: str, more: dict[str, Any], guessed: set[str]
) -> None:
    assert of(base, **more) == guessed


VERSIONS = {
    "claude-opus-4-6": (4, 6),
    "claude-opus-4-7-20260101": (4, 7),
    "claude-sonnet-4-20250514": (4, 0),
    "claude-3-5-sonnet-20241022": (3, 5),
    "anthropic/claude-haiku-4.5": (4, 5),
    "claude-opus-5": (5, 0),
    "claude-instant": (0, 0),
    "gpt-5": (0, 0),
}


@pytest.mark.parametrize(("model", "version"), VERSIONS.items())
def test_the_version_in_a_name(model: str, version: tuple[int, int]) -> None:
    assert capabilities.claude_version(model) == version


def test_capabilities_of_claude_are_guessed_from_its_names() -> None:
    def guessed(model: str, *said: str) -> frozenset[str]:
        wire = Wire(capabilities=tuple(said))
        return capabilities.of_claude(Endpoint("a", model, wire=wire))

    assert guessed("claude-sonnet-4-5") == {"takes_sampling"}
    assert guessed("claude-opus-4-6") == {"adaptive_thinking", "takes_sampling"}
    assert guessed("claude-opus-4-7") == {"adaptive_thinking"}
    assert guessed("claude-mythos-preview") == {"adaptive_thinking"}
    assert guessed("glm-5") == set()
    assert guessed("claude-opus-4-6", "-takes_sampling") == {"adaptive_thinking"}


def test_every_name_that_is_guessed_is_documented() -> None:
    hinted = {name for hint in capabilities.HINTS for name in hint.capabilities}
    assert hinted <= capabilities.OPENAI_COMPATIBLE.keys()
    assert all(capabilities.OPENAI_COMPATIBLE.values())


REASONED = [USER, {**ANSWER, "reasoning_content": "h"}, MORE]


@pytest.mark.parametrize(
    ("backend", "thinking", "said", "kept"),
    [
        (Generic(), "off", (), False),
        (Generic(), "high", (), True),
        (Generic(), "high", ("refuses_reasoning",), False),
        (Generic(), "off", ("needs_reasoning",), True),
        (Mistral(), "off", (), False),
        (Mistral(), "low", (), True),
        (Mistral(), "high", ("refuses_reasoning",), False),
    ],
)
def test_reasoning_is_sent_to_endpoints_that_accept_it(
    backend: Generic, thinking: str, said: tuple[str, ...], *, kept: bool
) -> None:
    wire = Wire("https://x.example", thinking=thinking, capabilities=tuple(said))
    messages, rewrites = backend.rewriting(Endpoint("a", "m", wire=wire), REASONED)
    assert ("'h'" in str(messages)) is kept
    assert ("reasoning left out" in rewrites) is not kept


def test_reasoning_goes_out_under_the_providers_name_for_it() -> None:
    wire = Wire("https://x.example", thinking="high", reasoning_field_name="reasoning")
    messages, rewrites = Generic().rewriting(Endpoint("a", "m", wire=wire), REASONED)
    assert messages == [USER, {**ANSWER, "reasoning": "h"}, MORE]
    assert rewrites == ()


def test_two_endpoints_do_not_share_their_steps() -> None:
    one = Endpoint("a", "m", wire=Wire("https://x.example", thinking="high"))
    other = evolve(one, wire=evolve(one.wire, thinking="off"))
    assert Generic().steps(one) != Generic().steps(other)
    assert claude_steps(one) != claude_steps(other)
