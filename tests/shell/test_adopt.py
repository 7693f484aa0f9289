"""Adopting another config: endpoints that stay keep their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from muxcore import MultiplexerError
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.factory import parts_of
from muxcore.standin import Answer, Behaviour, Model, StandInServer, rate_limited, refusal
from tests.waiting import PATIENCE, wait_until

Start = Callable[..., Future[Any]]
Entry = str | Mapping[str, Any]

PING = [{"role": "user", "content": "ping"}]


@pytest.fixture
def config(server: StandInServer) -> Callable[..., dict[str, Any]]:
    def config(*pool: Entry, key: str = "", **section: Any) -> dict[str, Any]:
        provider = {"name": "p", "api_base": server.url, "api_key_env_var": key}
        names = {"alpha": "model-a", "beta": "model-b"}
        return {
            "providers": [provider],
            "models": [
                {"name": name, "provider": "p", "alias": alias}
                for alias, name in names.items()
            ],
            "active_model": "alpha",
            "multiplexer": {
                "enabled": True,
                "mode": "failover",
                "pool": [{"model": e} if isinstance(e, str) else e for e in pool],
                **section,
            },
        }

    return config


Config = Callable[..., dict[str, Any]]


@pytest.fixture
def multiplexer(config: Config) -> Iterator[Multiplexer]:
    with Multiplexer.from_config(config("alpha", "beta"), env={}) as multiplexer:
        yield multiplexer


def aliases(multiplexer: Multiplexer) -> list[str]:
    return [candidate.endpoint.alias for candidate in multiplexer.state.candidates]


def test_an_endpoint_that_stays_keeps_its_health_and_its_connections(
    multiplexer: Multiplexer, config: Config, alpha: Model, beta: Model
) -> None:
    alpha.then(rate_limited())
    assert multiplexer.complete(PING).model == "beta"
    multiplexer.adopt(parts_of(config("beta", "alpha", mode="load_balance"), {}))
    assert aliases(multiplexer) == ["beta", "alpha"]
    assert multiplexer.status().mode == "load_balance"
    assert multiplexer.state["alpha"].tally.rate_limited == 1
    assert multiplexer.status().models_available == 1
    assert multiplexer.complete(PING).model == "beta"
    assert len({request.connection for request in beta.requests}) == 1
    assert repr(multiplexer) == "<Multiplexer load_balance: beta, alpha>"


def test_a_removed_endpoint_finishes_its_calls(
    multiplexer: Multiplexer, config: Config, start: Start, alpha: Model
) -> None:
    alpha.hold()
    call = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    multiplexer.adopt(parts_of(config("beta"), {}))
    assert multiplexer.complete(PING).model == "beta"
    with pytest.raises(
        MultiplexerError, match=r"no model 'alpha' in the pool \(known: beta"
    ):
        multiplexer.complete(PING, model="alpha")
    alpha.release()
    assert call.result(PATIENCE).model == "alpha"
    assert aliases(multiplexer) == ["beta"]


def test_a_waiting_call_chooses_again(
    multiplexer: Multiplexer, config: Config, start: Start, alpha: Model
) -> None:
    capped = {"model": "alpha", "max_concurrent": 1}
    multiplexer.adopt(parts_of(config(capped), {}))
    alpha.hold()
    first = start(multiplexer.complete, PING)
    alpha.wait_for(lambda model: model.in_flight == 1)
    second = start(multiplexer.complete, PING)
    wait_until(lambda: multiplexer._runtime.pool._line)
    multiplexer.adopt(parts_of(config(capped, "beta"), {}))
    assert second.result(PATIENCE).model == "beta"
    alpha.release()
    assert first.result(PATIENCE).model == "alpha"
    assert alpha.max_in_flight == 1


def test_a_new_key_ends_the_cooldowns_of_the_old_one(config: Config, alpha: Model) -> None:
    def locked(received: Any) -> Behaviour:
        good = received.headers["authorization"] == "Bearer sk-new-canary"
        return Answer("in") if good else refusal(401, "no")

    alpha.default = locked
    made = config("alpha", key="STAND_IN_KEY", max_wait_ms=0)
    old, new = {"STAND_IN_KEY": "sk-old-canary"}, {"STAND_IN_KEY": "sk-new-canary"}
    with Multiplexer.from_config(made, env=old) as multiplexer:
        with pytest.raises(MultiplexerError):
            multiplexer.complete(PING)
        assert multiplexer.status().models_available == 0
        multiplexer.adopt(parts_of(made, new))
        assert multiplexer.status().models_available == 1
        assert multiplexer.complete(PING).text == "in"


def test_a_multiplexer_that_is_switched_off_learns_nothing(
    multiplexer: Multiplexer, config: Config, alpha: Model
) -> None:
    multiplexer.adopt(parts_of(config("alpha", "beta", enabled=False), {}))
    assert not multiplexer.status().enabled
    alpha.then(rate_limited())
    with pytest.raises(MultiplexerError):
        multiplexer.complete(PING)
    assert multiplexer.complete(PING).model == "alpha"


def test_vibes_own_file_is_the_default(
    server: StandInServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(
        f"""
        active_model = "alpha"
        [[providers]]
        name = "p"
        api_base = "{server.url}"
        [[models]]
        name = "model-a"
        provider = "p"
        alias = "alpha"
        """,
        encoding="utf-8",
    )
    monkeypatch.setenv("VIBE_HOME", str(tmp_path))
    with Multiplexer.from_config() as multiplexer:
        assert multiplexer.complete(PING).model == "alpha"
    # Without a file the model is vibe's default, whose key may be beside the missing file.
    (tmp_path / "config.toml").unlink()
    (tmp_path / ".env").write_text("MISTRAL_API_KEY=sk-canary-1\n")
    with Multiplexer.from_config(env={"VIBE_HOME": str(tmp_path)}) as multiplexer:
        (alias,) = aliases(multiplexer)
        assert not multiplexer._runtime.members[alias].renew_key(
            multiplexer._runtime.members[alias].key
        )
        (tmp_path / ".env").write_text("MISTRAL_API_KEY=sk-canary-2\n")
        assert multiplexer._runtime.members[alias].renew_key(
            multiplexer._runtime.members[alias].key
        )
        # A key that no header can carry is ignored.
        (tmp_path / ".env").write_text("MISTRAL_API_KEY='sk-\\xe9\u201d'\n", "utf-8")
        assert not multiplexer._runtime.members[alias].renew_key(
            multiplexer._runtime.members[alias].key
        )


def test_an_endpoint_without_a_key_looks_for_none(multiplexer: Multiplexer) -> None:
    assert not multiplexer._runtime.members["alpha"].renew_key(None)
