"""A config that changes while its pool is in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from muxcore.config import Config
from muxcore.errors import ConfigError
from muxcore.gateway import ReloadingPool, parse_drill
from muxcore.gateway.reload import stamp
from muxcore.standin import Model, Stall, StandInServer, rate_limited, refusal
from tests.gateway.conftest import PING, as_toml, config
from tests.waiting import PATIENCE, wait_until

ALIASES = ("large", "small")


class Stage:
    """A config file over stand-ins, and a follower of it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.file = folder / "config.toml"
        self.models = {alias: Model(f"{alias}-model") for alias in (*ALIASES, "third")}
        self.upstream = stack.enter_context(StandInServer(self.models.values()))
        self._stack = stack

    def config(self, *aliases: str, **section: Any) -> dict[str, Any]:
        return config(self.upstream.url, *(aliases or ALIASES), **section)

    def write(self, made: dict[str, Any]) -> None:
        self.file.write_text(as_toml(made))

    def follow(self, **options: Any) -> ReloadingPool:
        options = {"env": {}, **options}
        follower = ReloadingPool(self.file, **options)
        self._stack.callback(follower.close)
        return follower


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        made = Stage(tmp_path, stack)
        made.write(made.config())
        yield made


def aliases(follower: ReloadingPool) -> list[str]:
    return [c.endpoint.alias for c in follower.multiplexer.state.candidates]


def test_an_unchanged_file_is_not_reloaded(stage: Stage) -> None:
    follower = stage.follow()
    before = follower.config
    follower.multiplexer.complete(PING)
    os.utime(stage.file, (1, 1))
    assert follower.multiplexer.complete(PING).model == "large"
    assert follower.config is before


def test_the_next_call_uses_a_change_and_endpoints_that_stay_keep_their_health(
    stage: Stage,
) -> None:
    follower = stage.follow()
    multiplexer = follower.multiplexer
    stage.models["large"].then(rate_limited(timedelta(seconds=90)))
    assert multiplexer.complete(PING).model == "small"
    stage.write(stage.config("large", "small", "third", caps={"large": 2}))
    assert aliases(follower) == ["large", "small", "third"]
    assert follower.multiplexer is multiplexer
    (large, small, third) = follower.status().models
    assert large.is_disabled
    assert large.rate_limit_count == 1
    assert (small.success_count, third.success_count) == (1, 0)
    assert multiplexer.state["large"].endpoint.max_concurrent == 2
    assert multiplexer.complete(PING).model == "small"


def test_a_change_with_the_same_size_and_time_is_seen(stage: Stage) -> None:
    follower = stage.follow()
    stat = stage.file.stat()
    text = stage.file.read_text()
    stage.file.write_text(text.replace("failover", "failovre"))
    os.utime(stage.file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "failovre" in follower.status().notices[0]


def test_an_old_file_is_read_once(stage: Stage) -> None:
    os.utime(stage.file, (1, 1))
    seen = stamp(stage.file)
    assert stamp(stage.file, seen) is seen
    assert stamp(stage.file.parent / "none", seen).digest == b""


@pytest.mark.parametrize("text", ["", "this is no TOML", 'active_model = "none"\n', None])
def test_an_invalid_edit_keeps_the_pool_and_is_reported(
    stage: Stage, text: str | None
) -> None:
    follower = stage.follow()
    if text is None:
        stage.file.unlink()
    else:
        stage.file.write_text(text)
    assert follower.multiplexer.complete(PING).model == "large"
    (notice,) = follower.status().notices
    assert "cannot be used; the one before it still counts" in notice
    assert str(stage.file) in notice
    assert notice in str(follower.status())
    stage.write(stage.config("small", "large"))
    assert follower.multiplexer.complete(PING).model == "small"
    assert not follower.status().notices


def test_running_calls_continue_and_are_counted(stage: Stage) -> None:
    stage.write(stage.config(caps={"large": 1}))
    follower = stage.follow()
    multiplexer = follower.multiplexer
    stage.models["large"].then(Stall(1))
    with multiplexer.stream(PING) as stream:
        next(stream)
        stage.write(stage.config("large", "third", caps={"large": 1}, max_wait_ms=0))
        assert aliases(follower) == ["large", "third"]
        assert multiplexer.state["large"].health.in_flight == 1
        # Its one slot is still taken.
        assert follower.multiplexer.complete(PING).model == "third"
        stage.models["large"].release()
        assert list(stream)
        assert stream.reply.finish_reason == "stop"
    assert multiplexer.state["large"].health.in_flight == 0
    assert multiplexer.state["large"].tally.succeeded == 1


def test_a_running_call_of_a_removed_model_succeeds(stage: Stage) -> None:
    follower = stage.follow()
    multiplexer = follower.multiplexer
    stage.models["large"].then(Stall(1))
    with multiplexer.stream(PING) as stream:
        next(stream)
        stage.write(stage.config("small"))
        assert aliases(follower) == ["small"]
        assert "large" not in repr(multiplexer)
        stage.models["large"].release()
        assert list(stream)
        assert stream.reply.finish_reason == "stop"
    assert follower.multiplexer.complete(PING).model == "small"


def test_a_waiting_call_chooses_again(stage: Stage) -> None:
    stage.write(stage.config("large", caps={"large": 1}))
    follower = stage.follow()
    multiplexer = follower.multiplexer
    stage.models["large"].then(Stall(1))
    with ThreadPoolExecutor() as threads, multiplexer.stream(PING) as stream:
        next(stream)
        waiting = threads.submit(multiplexer.complete, PING)
        wait_until(lambda: len(multiplexer._runtime.pool._line) == 1)
        stage.write(stage.config("third"))
        assert aliases(follower) == ["third"]
        assert waiting.result(PATIENCE).model == "third"


def test_a_change_of_the_env_file_is_seen(stage: Stage) -> None:
    made = stage.config()
    made["providers"][0]["api_key_env_var"] = "A_KEY"
    keys = stage.file.parent / ".env"
    keys.write_text("A_KEY=old\n")
    stage.write(made)
    follower = stage.follow()
    stage.models["large"].then(refusal(401, "bad key"))
    assert follower.multiplexer.complete(PING).model == "small"
    assert follower.status().models[0].is_disabled
    keys.write_text("A_KEY=new\n")
    # The new key may be good: what was known of the old one has gone.
    assert follower.multiplexer.complete(PING).model == "large"
    received = stage.models["large"].requests
    assert [r.headers["authorization"] for r in received] == ["Bearer old", "Bearer new"]
    keys.write_text("A_KEY=“curly”\n")
    assert "typographic quote" in follower.status().notices[0]


def test_a_refused_key_that_stays_the_same_is_tried_once(stage: Stage) -> None:
    made = stage.config()
    made["providers"][0]["api_key_env_var"] = "A_KEY"
    stage.write(made)
    follower = stage.follow(env={"A_KEY": "same"})
    stage.models["large"].then(refusal(401, "bad key"))
    assert follower.multiplexer.complete(PING).model == "small"
    assert len(stage.models["large"].requests) == 1


def test_the_multiplexer_can_be_switched_off_and_on(stage: Stage) -> None:
    follower = stage.follow()
    assert follower.off is None
    stage.write(stage.config() | {"multiplexer": {"enabled": False}})
    assert not follower.multiplexer.status().enabled
    assert follower.off is not None
    assert 'model = "small"\nis_fallback = true' in follower.off.lines
    stage.write(stage.config())
    assert follower.multiplexer.status().enabled
    assert follower.off is None


def test_the_mode_can_change(stage: Stage) -> None:
    made = stage.config()
    made["multiplexer"]["mode"] = "load_balance"
    for entry in made["multiplexer"]["pool"]:
        entry["is_fallback"] = False
    follower = stage.follow()
    follower.multiplexer.complete(PING)
    stage.write(made)
    served = {follower.multiplexer.complete(PING).model for _ in range(4)}
    assert served == {"large", "small"}
    assert follower.multiplexer.status().mode == "load_balance"


def test_vibes_own_file_may_be_missing(stage: Stage) -> None:
    env = {"VIBE_HOME": str(stage.file.parent), "MISTRAL_API_KEY": "a-key"}
    stage.file.unlink()
    follower = ReloadingPool(env=env)
    try:
        assert aliases(follower) == ["mistral-medium-3.5"]
        assert follower.own_model == "mistral-medium-3.5"
        assert follower.off is not None
        # The place for a new section, which vibe does not complain about.
        assert str(stage.file.with_name("multiplexer.toml")) in str(follower.off)
        # Still none, and a key beside it: no fault.
        (stage.file.parent / ".env").write_text("A=b\n")
        assert not follower.status().notices
        stage.write(stage.config())
        assert aliases(follower) == ["large", "small"]
        stage.file.unlink()
        assert "cannot be read" in follower.status().notices[0]
    finally:
        follower.close()


def test_a_multiplexer_toml_that_appears_changes_and_goes_is_seen(stage: Stage) -> None:
    follower = stage.follow()
    beside = stage.file.with_name("multiplexer.toml")
    section = {"enabled": True, "mode": "failover", "pool": [{"model": "small"}]}
    beside.write_text(as_toml({"multiplexer": section}))
    assert aliases(follower) == ["small"]
    beside.write_text(as_toml({"multiplexer": {**section, "enabled": False}}))
    assert not follower.multiplexer.status().enabled
    assert str(beside) in str(follower.off)
    beside.write_text("")
    (notice,) = follower.status().notices
    assert f"{beside}: the file is empty" in notice
    beside.unlink()
    assert aliases(follower) == ["large", "small"]
    assert not follower.status().notices


def test_callers_do_not_wait_for_a_reload(stage: Stage) -> None:
    follower = stage.follow()
    with follower._lock:
        stage.write(stage.config("third"))
        assert aliases(follower) == ["large", "small"]
    assert aliases(follower) == ["third"]


def test_adapt_maps_every_config(stage: Stage) -> None:
    def patient(config: Config) -> Config:
        policy = evolve(config.policy, max_wait=timedelta(seconds=3))
        return evolve(config, policy=policy)

    follower = stage.follow(adapt=patient)
    assert follower.multiplexer.state.policy.max_wait == timedelta(seconds=3)
    stage.write(stage.config("third"))
    assert follower.multiplexer.state.policy.max_wait == timedelta(seconds=3)
    assert follower.own_model == "third"


def test_the_first_of_the_pool_stands_for_an_active_model_outside_it(stage: Stage) -> None:
    made = stage.config()
    made["models"].append({"name": "x", "provider": "stand-in", "alias": "x"})
    stage.write(made | {"active_model": "x"})
    assert stage.follow().own_model == "large"


def test_an_invalid_config_is_an_error_at_the_start(stage: Stage) -> None:
    stage.file.write_text("")
    with pytest.raises(ConfigError, match="empty"):
        stage.follow()


def test_a_drill_names_a_model_of_the_pool_and_outlives_a_reload(stage: Stage) -> None:
    with pytest.raises(ConfigError, match=r"'none'.*known: large, small"):
        stage.follow(drills=[parse_drill("none=429")])
    follower = stage.follow(drills=[parse_drill("large=429@2")])
    assert follower.multiplexer.complete(PING).model == "large"
    stage.write(stage.config(caps={"large": 5}))
    assert follower.multiplexer.complete(PING).model == "small"


@pytest.mark.parametrize(
    ("text", "alias", "fault", "at"),
    [
        ("devstral-2=429@3", "devstral-2", "429", 3),
        ("a=b=refused", "a=b", "refused", None),
        ("a@b=cut@10", "a@b", "cut", 10),
    ],
)
def test_drills_are_parsed(text: str, alias: str, fault: str, at: int | None) -> None:
    drill = parse_drill(text)
    assert (drill.alias, drill.fault, drill.at) == (alias, fault, at)


@pytest.mark.parametrize("text", ["", "a", "a=", "=429", "a=430@1", "a=429@0", "a=429@x"])
def test_invalid_drills_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="429, 500, 401, refused, cut"):
        parse_drill(text)
