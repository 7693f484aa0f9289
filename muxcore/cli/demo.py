"""`vibe-mux demo`: the real code at work, against stand-in models on this machine.

Each scene announces what it does, does it, and checks the result.
"""

from __future__ import annotations

import argparse
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from muxcore.chat import Reply
from muxcore.cli.main import FAILED, WELL
from muxcore.shell import clock
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.standin import Answer, Cut, Model, StandInServer, rate_limited

COOLDOWN = timedelta(seconds=2)
CALLS, WEIGHTS = 100, {"large": 70, "small": 30}
QUESTION = "What does a multiplexer do?"
WORDS = "It puts a pool of models behind every call."


class SceneFailedError(Exception):
    """A scene did not go as the demo announces it."""


def run(options: argparse.Namespace) -> int:  # noqa: ARG001 - there are none
    large = Model("large-model", Answer(f"[large] {WORDS}", pieces=6))
    small = Model("small-model", Answer(f"[small] {WORDS}", pieces=6))
    print("Two stand-in models, 'large' and 'small', are started on this machine.")
    print("The calls to them are real HTTP; nothing leaves this machine, no key is needed.")
    failed = 0
    with StandInServer([large, small]) as server:
        for number, (title, scene) in enumerate(SCENES.items(), start=1):
            print(f"\n{number}. {title}")
            try:
                scene(Stage(server.url, large, small))
            except Exception as error:  # noqa: BLE001 - the demo reports any failure
                failed += 1
                print(f"   NOT AS PROMISED: {type(error).__name__}: {error}")
            else:
                print("   as promised")
    if failed:
        print(f"\n{failed} of {len(SCENES)} scenes did not go as promised.")
        return FAILED
    print(
        f"\nAll {len(SCENES)} scenes went as promised. Next: `vibe-mux check` looks at your config."
    )
    return WELL


class Stage:
    """What a scene uses: the stand-in models, and multiplexers over them."""

    def __init__(self, url: str, large: Model, small: Model) -> None:
        self.url = url
        self.large = large
        self.small = small

    def multiplexer(self, **section: Any) -> Multiplexer:
        """Make a multiplexer from a config that a user could write."""
        return Multiplexer.from_config(config(self.url, section), env={})


def config(url: str, section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "active_model": "large",
        "providers": [{"name": "stand-in", "api_base": url, "backend": "generic"}],
        "models": [
            {"name": "large-model", "provider": "stand-in", "alias": "large"},
            {"name": "small-model", "provider": "stand-in", "alias": "small"},
        ],
        "multiplexer": {"enabled": True, **section},
    }


FAILOVER = {
    "mode": "failover",
    "rate_limit_disable_duration_ms": COOLDOWN // timedelta(milliseconds=1),
    "pool": [{"model": "large"}, {"model": "small", "is_fallback": True}],
}
BALANCED = {
    "mode": "load_balance",
    "pool": [{"model": alias, "weight": weight} for alias, weight in WEIGHTS.items()],
}


def a_call_is_answered(stage: Stage) -> None:
    with stage.multiplexer(**FAILOVER) as multiplexer:
        show(ask(multiplexer))
        expect(
            multiplexer.status().last_used_model == "large", "large should have answered"
        )


def the_primary_is_rate_limited(stage: Stage) -> None:
    with stage.multiplexer(**FAILOVER) as multiplexer:
        stage.large.then(rate_limited())
        reply = ask(multiplexer)
        show(reply)
        expect(reply.model == "small", "small should have answered")
        print("   /mux now shows:\n")
        for line in str(multiplexer.status()).splitlines():
            print(f"     {line}")
        print()
        expect(multiplexer.status().models_available == 1, "large should be disabled")
        asked = len(stage.large.requests)
        expect(ask(multiplexer).model == "small", "small should answer the next call too")
        expect(len(stage.large.requests) == asked, "large should be left alone")
        print(
            f"   {COOLDOWN.total_seconds():g} seconds later, as configured, large may be tried again:"
        )
        until(multiplexer, lambda: multiplexer.status().models_available == 2)  # noqa: PLR2004
        reply = ask(multiplexer)
        show(reply)
        expect(reply.model == "large", "large should be back")


def the_load_is_balanced(stage: Stage) -> None:
    with stage.multiplexer(**BALANCED) as multiplexer:
        served = Counter(ask(multiplexer).model for _ in range(CALLS))
    for alias, weight in WEIGHTS.items():
        print(f"   {alias}: weight {weight}, {served[alias]} calls")
    expect(served == WEIGHTS, f"the counts should be {WEIGHTS}")


def a_stream_survives(stage: Stage) -> None:
    with stage.multiplexer(**FAILOVER) as multiplexer:
        stage.large.then(Cut(after=0))
        print("   ", end="")
        with multiplexer.stream([{"role": "user", "content": QUESTION}]) as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print()
        reply = stream.reply
        show_passed_over(reply)
        expect(reply.text == f"[small] {WORDS}", "every word should be small's")


Scene: TypeAlias = Callable[[Stage], None]
SCENES: Mapping[str, Scene] = {
    "A call is answered by the first model of the pool.": a_call_is_answered,
    "The first model is rate limited: the call goes on to the next one, without an error.": the_primary_is_rate_limited,
    "A hundred calls are spread 70 to 30, exactly.": the_load_is_balanced,
    "A stream whose model dies before its first word: the reader never notices.": a_stream_survives,
}


def ask(multiplexer: Multiplexer) -> Reply:
    return multiplexer.complete([{"role": "user", "content": QUESTION}])


def show(reply: Reply) -> None:
    show_passed_over(reply)
    print(f"   {reply.model} answered: {reply.text}")


def show_passed_over(reply: Reply) -> None:
    for attempt in reply.attempts[:-1]:
        print(f"   {attempt.alias} was passed over: {attempt.outcome} ({attempt.message})")


def until(multiplexer: Multiplexer, condition: Callable[[], bool]) -> None:
    """Wait until no model is disabled any more."""
    untils = [model.disabled_until for model in multiplexer.status().models]
    latest = max((moment for moment in untils if moment is not None), default=clock.now())
    threading.Event().wait(max(0.0, (latest - clock.now()).total_seconds()))
    expect(condition(), "the cooldown should be over")


def expect(condition: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise SceneFailedError(otherwise)
