"""The eight set-ups of the examples do what they are for, against stand-in models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli
from attrs import frozen

from muxcore import Multiplexer, PoolExhaustedError, Reply
from muxcore.standin import (
    ConnectionClosed,
    Model,
    StandInServer,
    rate_limited,
    server_error,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "multiplexer-examples.md"
COMMON = DOCUMENT.read_text("utf-8").partition("## Eight common set-ups")[2]
BLOCKS = dict(re.findall(r"### (.+?)\n.*?```toml\n(.*?)```", COMMON, flags=re.DOTALL))


@frozen(eq=False)
class SetUp:
    """One of them at work: its models by alias, and its pool."""

    multiplexer: Multiplexer
    models: dict[str, Model]

    def __getitem__(self, alias: str) -> Model:
        return self.models[alias]

    def ask(self, text: str = "ping") -> Reply:
        return self.multiplexer.complete([{"role": "user", "content": text}])

    def asked(self) -> dict[str, int]:
        return {alias: len(model.requests) for alias, model in self.models.items()}


Begin = Callable[[str], SetUp]


@pytest.fixture
def begin() -> Iterator[Begin]:
    with ExitStack() as stack:

        def begin_it(title: str) -> SetUp:
            config = tomli.loads(BLOCKS[title])
            models = {
                raw["alias"]: Model(raw["name"], provider=raw["provider"])
                for raw in config["models"]
            }
            server = stack.enter_context(StandInServer(models.values()))
            providers = {raw["name"]: raw for raw in config.setdefault("providers", [])}
            for model in models.values():
                if model.provider not in providers:
                    providers[model.provider] = {"name": model.provider}
                    config["providers"].append(providers[model.provider])
                # Only where it is changes, for the stand-ins.
                providers[model.provider]["api_base"] = server.url_of(model.provider)
            names = ["MISTRAL_API_KEY", *re.findall(r"(\w+_API_KEY)", BLOCKS[title])]
            made = Multiplexer.from_config(config, env=dict.fromkeys(names, "k"))
            return SetUp(stack.enter_context(made), models)

        yield begin_it


def test_there_are_eight() -> None:
    assert list(BLOCKS) == [
        "Basic failover",
        "Weighted",
        "Two providers",
        "Rate-limit resilience",
        "Capped concurrency",
        "Local plus cloud",
        "Three tiers",
        "Disabled",
    ]


def test_basic_failover(begin: Begin) -> None:
    pool = begin("Basic failover")
    pool["large"].then(rate_limited())
    assert [pool.ask().model for _ in range(3)] == ["small"] * 3
    assert pool.asked() == {"large": 1, "small": 3}
    pool.multiplexer.reset()
    assert pool.ask().model == "large"


def test_weighted(begin: Begin) -> None:
    pool = begin("Weighted")
    assert Counter(pool.ask().model for _ in range(100)) == {"ours": 70, "theirs": 30}


@pytest.mark.parametrize("fault", [server_error(), rate_limited(), ConnectionClosed()])
def test_two_providers(begin: Begin, fault: Any) -> None:
    pool = begin("Two providers")
    pool["first-choice"].default = fault
    assert pool.ask().model == "second-choice"


def test_rate_limit_resilience(begin: Begin) -> None:
    pool = begin("Rate-limit resilience")
    pool["large"].then(rate_limited())
    pool["small"].then(rate_limited(timedelta(seconds=300)))
    reply = pool.ask()
    assert [attempt.outcome for attempt in reply.attempts] == [
        "rate limited",
        "rate limited",
        "succeeded",
    ]
    assert reply.model == "elsewhere"
    left = {}
    for alias in ("large", "small"):
        [cooldown] = pool.multiplexer.state[alias].health.cooldowns
        left[alias] = (cooldown.until - cooldown.since).total_seconds()
    assert left == {"large": 120, "small": 300}


def test_capped_concurrency(begin: Begin) -> None:
    pool = begin("Capped concurrency")
    large = pool["large"]
    large.hold()
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(pool.ask) for _ in range(3)]
        large.wait_for(lambda model: model.in_flight == 2)
        large.release()
        assert [call.result().model for call in calls] == ["large"] * 3
    assert large.max_in_flight <= 2


def test_local_plus_cloud(begin: Begin) -> None:
    pool = begin("Local plus cloud")
    assert pool.ask().model == "here"
    assert pool.ask("word " * 40_000).model == "cloud"
    assert pool.asked() == {"here": 1, "cloud": 1}
    pool["here"].default = ConnectionClosed()
    assert pool.ask().model == "cloud"


def test_three_tiers(begin: Begin) -> None:
    pool = begin("Three tiers")
    pool["best"].default = server_error()
    assert pool.ask().model == "good"
    pool["good"].default = rate_limited()
    assert pool.ask().model == "last"


def test_disabled(begin: Begin) -> None:
    pool = begin("Disabled")
    pool["large"].then(rate_limited())
    with pytest.raises(PoolExhaustedError) as caught:
        pool.ask()
    assert [attempt.alias for attempt in caught.value.attempts] == ["large"]
    assert pool.ask().model == "large"
    assert pool.asked() == {"large": 2, "small": 0}
