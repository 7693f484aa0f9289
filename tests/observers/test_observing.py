"""Observers see every entry of the journal, and harm no call."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest
from attrs import define, field

from muxcore import Multiplexer
from muxcore.core.entries import Asked, Ended, Entry
from muxcore.core.outcomes import RateLimited, Rejected, Started, Succeeded
from muxcore.core.records import PoolState
from muxcore.core.updating import update
from muxcore.shell import observing
from muxcore.standin import Model, rate_limited, refusal
from tests.waiting import wait_until

PING = [{"role": "user", "content": "canary-prompt"}]


@define
class Notebook:
    """Writes down what it sees."""

    seen: list[tuple[datetime, Entry, PoolState, PoolState]] = field(factory=list)
    closed: int = 0

    def observe(
        self, now: datetime, entry: Entry, before: PoolState, after: PoolState
    ) -> None:
        self.seen.append((now, entry, before, after))

    def close(self) -> None:
        self.closed += 1

    @property
    def kinds(self) -> list[type]:
        return [type(entry) for _, entry, _, _ in self.seen]


def config(url: str, **section: Any) -> dict[str, Any]:
    return {
        "active_model": "large",
        "providers": [{"name": "p", "api_base": url, "backend": "generic"}],
        "models": [
            {"name": f"{alias}-model", "provider": "p", "alias": alias}
            for alias in ("large", "small")
        ],
        "multiplexer": {
            "enabled": True,
            "mode": "failover",
            "pool": [{"model": "large"}, {"model": "small"}],
            **section,
        },
    }


def test_it_sees_each_entry_with_the_states_around_it(
    models: tuple[str, Model, Model],
) -> None:
    url, large, _ = models
    large.then(rate_limited())
    notebook = Notebook()
    with Multiplexer.from_config(config(url), env={}) as multiplexer:
        multiplexer.observe("notebook", notebook)
        multiplexer.complete(PING)
        state = multiplexer.state
    first_of_two = [Asked, Started, RateLimited]
    assert notebook.kinds[:3] == first_of_two
    assert notebook.kinds[-2:] == [Succeeded, Ended]
    for now, entry, before, after in notebook.seen:
        assert update(before, entry, now) == after
    for (_, _, _, after), (_, _, before, _) in zip(
        notebook.seen, notebook.seen[1:], strict=False
    ):
        assert before == after
    assert notebook.seen[-1][3] == state
    assert notebook.closed == 1


def test_no_text_of_a_refusal_is_seen(models: tuple[str, Model, Model]) -> None:
    url, large, small = models
    for model in (large, small):
        model.default = refusal(422, "you said canary-prompt")
    notebook = Notebook()
    with Multiplexer.from_config(config(url), env={}) as multiplexer:
        multiplexer.observe("notebook", notebook)
        with pytest.raises(Exception, match="canary-prompt"):
            multiplexer.complete(PING)
    assert Rejected in notebook.kinds
    assert "canary" not in str([entry for _, entry, _, _ in notebook.seen])


def test_one_that_raises_is_shown_and_harms_no_call(
    models: tuple[str, Model, Model],
) -> None:
    class Broken(Notebook):
        def observe(self, *_: object) -> None:
            raise ValueError("no\x1bgood")

        def close(self) -> None:
            raise ValueError("worse")

    notebook = Notebook()
    with Multiplexer.from_config(config(models[0]), env={}) as multiplexer:
        multiplexer.observe("broken", Broken())
        multiplexer.observe("notebook", notebook)
        assert multiplexer.complete(PING).model == "large"
        wait_until(lambda: Ended in notebook.kinds)
        (notice,) = multiplexer.status().notices
    assert notice == "the observer broken fails: ValueError: nogood"


def test_one_that_hangs_delays_no_call_and_loses_the_oldest(
    models: tuple[str, Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "MOST_WAITING", 4)
    monkeypatch.setattr(observing, "CLOSE_SECONDS", 0.01)
    released, reached = threading.Event(), threading.Event()

    class Slow(Notebook):
        def observe(self, *_: object) -> None:
            reached.set()
            released.wait()

    with Multiplexer.from_config(config(models[0]), env={}) as multiplexer:
        multiplexer.observe("slow", Slow())
        multiplexer.complete(PING)
        reached.wait()
        for _ in range(5):
            assert multiplexer.complete(PING).model == "large"
        (notice,) = multiplexer.status().notices
    assert notice.endswith(" changes were lost: the observers are too slow")
    released.set()
