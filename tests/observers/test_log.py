"""The line of a call: when, which, who answered and who did not, how long, how much."""

from __future__ import annotations

import json
import re

import pytest

from muxcore import Multiplexer
from muxcore.observers.calls import as_json, call_log
from muxcore.standin import Model, rate_limited, refusal, server_error
from tests.observers.test_observing import PING, config


def test_a_line_says_who_was_passed_over_and_what_it_cost(
    models: tuple[str, Model, Model],
) -> None:
    url, large, _ = models
    large.then(rate_limited())
    made = config(url)
    made["models"][1] |= {"input_price": 1000.0, "output_price": 1000.0}
    lines: list[str] = []
    with Multiplexer.from_config(made, env={}) as multiplexer:
        multiplexer.observe("log", call_log(lines.append))
        reply = multiplexer.complete(PING)
        following = multiplexer.complete(PING)
    line, next_line = lines
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d\.\d\d\d {following.call_id} served by small in \d+ ms;"
        r" large is disabled until \d\d:\d\d:\d\d \(rate limited\);"
        r" small: answered after .*",
        next_line,
    ), next_line
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d\.\d\d\d {reply.call_id} served by small in \d+ ms;"
        r" large: rate limited after \d+ ms: Rate limit exceeded;"
        r" small: answered after \d+ ms, the first content after \d+ ms;"
        r" \d+ tokens in, \d+ out, \$\d\.\d+",
        line,
    ), line


def test_a_line_of_json_holds_the_whole_story(models: tuple[str, Model, Model]) -> None:
    lines: list[str] = []
    with Multiplexer.from_config(config(models[0]), env={}) as multiplexer:
        multiplexer.observe("log", call_log(lines.append, as_json))
        reply = multiplexer.complete(PING)
    story = json.loads(lines[0])
    assert (story["call_id"], story["result"]) == (reply.call_id, "served")


def test_each_way_to_end_has_a_line_without_the_words_of_anybody(
    models: tuple[str, Model, Model],
) -> None:
    url, large, small = models
    lines: list[str] = []
    with Multiplexer.from_config(config(url, max_wait_ms=0), env={}) as multiplexer:
        multiplexer.observe("log", call_log(lines.append))
        for fault in (refusal(422, "canary-prompt"), server_error(500)):
            large.default = small.default = fault
            with pytest.raises(Exception, match=r"."):
                multiplexer.complete(PING)
    assert len(lines) == 2
    assert "canary" not in "".join(lines)
