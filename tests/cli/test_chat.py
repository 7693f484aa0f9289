"""`vibe-mux chat`: the answer on stdout, all else on stderr."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.chat import AttemptReport, Reply, Usage
from muxcore.cli import chat, main
from muxcore.standin import Answer, Cut, Model, rate_limited, refusal, server_error

Configure = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def ask(configure: Configure, capsys: Captured) -> Callable[..., tuple[int, str, str]]:
    def ask(*arguments: str) -> tuple[int, str, str]:
        code = main.main(["chat", *arguments, "--config", str(configure())])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ask


Ask = Callable[..., tuple[int, str, str]]


def test_the_answer_is_on_stdout_and_its_model_on_stderr(ask: Ask, alpha: Model) -> None:
    assert ask("hello") == (0, "pong from model-a\n", "answered by alpha\n")
    assert alpha.requests[0].body["messages"] == [{"role": "user", "content": "hello"}]


def test_failed_attempts_are_reported(ask: Ask, alpha: Model) -> None:
    alpha.then(rate_limited())
    code, out, err = ask("hello")
    assert (code, out) == (0, "pong from model-b\n")
    assert err == (
        "passed over alpha: rate limited (Rate limit exceeded)\nanswered by beta\n"
    )


def test_a_model_can_be_chosen(ask: Ask, beta: Model) -> None:
    assert ask("hello", "--model", "beta")[2] == "answered by beta\n"
    code, out, err = ask("hello", "--model", "gamma")
    assert (code, out) == (1, "")
    assert err == ("vibe-mux: there is no model 'gamma' in the pool (known: alpha, beta)\n")


def test_verbose_shows_usage(ask: Ask, alpha: Model) -> None:
    alpha.then(Answer("hi", usage=Usage(20, 5, 12)))
    assert ask("hello", "--verbose")[2] == (
        "answered by alpha: 20 tokens in (12 cached), 5 out, finish reason stop\n"
    )


def test_verbose_shows_rewrites() -> None:
    attempts = (
        AttemptReport("alpha", "error"),
        AttemptReport("beta", "succeeded", rewrites=("ids shortened", "one bridged")),
    )
    reply = Reply({"content": "hi"}, "stop", attempts=attempts)
    assert chat.answered_by(reply, verbose=True) == [
        "passed over alpha: error",
        "answered by beta: unknown tokens in (unknown cached), unknown out, finish reason stop",
        "rewritten for beta: ids shortened, one bridged",
    ]
    assert len(chat.answered_by(reply, verbose=False)) == 2


def test_the_answer_is_json_for_programs(ask: Ask, alpha: Model) -> None:
    alpha.then(server_error())
    code, out, err = ask("hello", "--json")
    assert (code, err) == (0, "")
    output = json.loads(out)
    assert output["model"] == "beta"
    assert output["text"] == "pong from model-b"
    assert output["finish_reason"] == "stop"
    assert output["usage"]["prompt_tokens"] > 0
    assert output["attempts"][0] == {
        "model": "alpha",
        "outcome": "error",
        "message": "The server is overloaded",
        "rewrites": [],
        "refuted_by": "",
    }


def test_the_prompt_can_come_from_stdin(
    ask: Ask, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    ask("-")
    assert alpha.requests[0].body["messages"][0]["content"] == "from a pipe\n"


HOSTILE = (
    "red \x1b[31m, title \x1b]0;owned\x07, back \x08, over \r, hidden \u202e, bell \x9b"
)


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--verbose"]])
def test_control_characters_do_not_reach_the_terminal(
    ask: Ask, alpha: Model, arguments: list[str]
) -> None:
    alpha.then(Answer(HOSTILE + "\n\tkept"))
    code, out, err = ask("hello", *arguments)
    assert code == 0
    for letter in "\x1b\x07\x08\r\u202e\x9b":
        assert letter not in out + err
    assert "kept" in out
    if not arguments:
        assert out.endswith("\n\tkept\n")


def test_a_refusal_that_another_model_took_is_named(ask: Ask, alpha: Model) -> None:
    alpha.then(refusal(400, "no tools"))
    assert ask("hello") == (
        0,
        "pong from model-b\n",
        (
            "passed over alpha: request refused, which beta took (no tools)\n"
            "answered by beta\n"
        ),
    )


def test_a_refusal_is_one_line(ask: Ask, alpha: Model, beta: Model) -> None:
    alpha.then(refusal(400, f"no {HOSTILE}"))
    beta.then(refusal(400, "no"))
    code, out, err = ask("hello")
    assert (code, out) == (1, "")
    assert err.startswith("vibe-mux: alpha refused the request (request refused): no red")
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_an_exhausted_pool_is_one_line(ask: Ask, alpha: Model, beta: Model) -> None:
    alpha.default = beta.default = server_error()
    code, out, err = ask("hello")
    assert (code, out) == (1, "")
    assert err.startswith("vibe-mux: no model could serve the call")
    assert "  alpha: error: The server is overloaded\n" in err
    assert "Traceback" not in err


def test_a_failure_is_json_for_programs(ask: Ask, alpha: Model, beta: Model) -> None:
    alpha.default = beta.default = server_error()
    code, out, err = ask("hello", "--json")
    assert (code, err) == (1, "")
    output = json.loads(out)
    assert output["ok"] is False
    assert output["problems"][0].startswith("no model could serve the call")


def test_an_interrupted_answer_is_reported(ask: Ask, alpha: Model) -> None:
    alpha.then(Cut(2, answer=Answer("one two three")))
    code, out, err = ask("hello")
    assert code == 1
    assert out == "one two th\n"
    assert err == (
        "vibe-mux: alpha broke off in the middle of its answer: the answer broke off\n"
    )


def test_several_words_are_one_question(ask: Ask, alpha: Model) -> None:
    ask("say", "hello")
    assert alpha.requests[0].body["messages"][0]["content"] == "say hello"


@pytest.fixture
def converse(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, str]]:
    """Have a dialogue whose lines come from a pipe."""

    def converse(lines: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code, out, err = ask()
        assert code == 0
        assert err.startswith(chat.GREETING)
        return out, err.removeprefix(chat.GREETING + "\n")

    return converse


Converse = Callable[[str], tuple[str, str]]


def test_without_a_question_a_dialogue_remembers_what_was_said(
    converse: Converse, alpha: Model
) -> None:
    out, err = converse("hello\n\nand more\n")
    assert out == "pong from model-a\n" * 2
    assert err == "answered by alpha\n" * 2
    assert [m["content"] for m in alpha.requests[-1].body["messages"]] == [
        "hello",
        "pong from model-a",
        "and more",
    ]


def test_a_dialogue_shows_the_pool_and_changes_the_model(
    converse: Converse, alpha: Model
) -> None:
    out, err = converse("/mux\n/model beta\nhi\n/model\nhi\n/model gamma\n")
    assert out.startswith("## Multiplexer Status")
    assert err == (
        "asking beta\nanswered by beta\nasking the pool\nanswered by alpha\n"
        "no model 'gamma'; known: alpha, beta\nasking the pool\n"
    )
    assert not [r for r in alpha.requests if "/m" in str(r.body["messages"])]


def test_an_answer_that_fails_or_is_ended_leaves_the_dialogue_as_it_was(
    converse: Converse, alpha: Model, beta: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha.then(refusal(400, "no"))
    beta.then(refusal(400, "no"))
    out, err = converse("bad\ngood\n")
    assert out == "pong from model-a\n"
    assert err.startswith("vibe-mux: alpha refused the request")
    assert [m["content"] for m in alpha.requests[-1].body["messages"]] == ["good"]

    def interrupted(*_: object, **__: object) -> Reply:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "_ask", interrupted)
    out, err = converse("long\n")
    assert (out, err) == ("", "\nvibe-mux: the answer was ended; it is forgotten\n")


def test_a_terminal_shows_that_it_waits(
    ask: Ask, alpha: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha.default = Answer("one\ntwo\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = ask("hello")
    # The answer has ended its line.
    assert (code, out) == (0, "one\ntwo\n")
    assert err == f"{chat.WAITING}{chat.ERASED}answered by alpha\n"
