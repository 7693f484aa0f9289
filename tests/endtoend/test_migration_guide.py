"""What the migration guide promises, sentence by sentence, with the newest vibe.

The examples are those of the guide, with the section in vibe's own file; only the addresses of
the providers are stand-ins, which speak as `generic` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest

from muxcore.standin import (
    Answer,
    Behaviour,
    Model,
    StandInServer,
    rate_limited,
    server_error,
)
from tests.endtoend.conftest import QUIET, QUIETER, Desk
from tests.vibe.conftest import NEWEST

pytestmark = pytest.mark.slow

OWN = """
[[providers]]
name = "mistral"
api_base = "{mistral}"
api_key_env_var = "MISTRAL_API_KEY"
backend = "generic"

[[models]]
name = "mistral-vibe-cli-latest"
provider = "mistral"
alias = "devstral-2"
"""
SECOND = """
[[models]]
name = "devstral-small-latest"
provider = "mistral"
alias = "devstral-small"
"""
FAILOVER = """
[multiplexer]
enabled = true
mode = "failover"

[[multiplexer.pool]]
model = "devstral-2"

[[multiplexer.pool]]
model = "devstral-small"
is_fallback = true
"""
CUSTOM = """
[[providers]]
name = "my-custom"
api_base = "{custom}"
api_key_env_var = "MY_API_KEY"
backend = "generic"

[[models]]
name = "my-model"
provider = "my-custom"
alias = "custom"

[multiplexer]
enabled = true
mode = "load_balance"

[[multiplexer.pool]]
model = "devstral-2"
weight = 70

[[multiplexer.pool]]
model = "custom"
weight = 30
"""
LOCAL = """
[[providers]]
name = "my-machine"
api_base = "{custom}"
backend = "generic"

[[models]]
name = "my-model"
provider = "my-machine"
alias = "local"

[[models]]
name = "mistral-vibe-cli-latest"
provider = "mistral"
alias = "cloud"

[multiplexer]
enabled = true
mode = "failover"

[[multiplexer.pool]]
model = "local"

[[multiplexer.pool]]
model = "cloud"
is_fallback = true
"""


class Reader:
    """A reader of the guide: a vibe, and stand-ins for the models of its examples."""

    def __init__(self, desk: Desk, stack: ExitStack) -> None:
        self.desk = desk
        self.main = Model("mistral-vibe-cli-latest", Answer("pong from the first"))
        self.small = Model("devstral-small-latest", Answer("pong from the second"))
        self.custom = Model("my-model", Answer("pong from my own"))
        self._mistral = stack.enter_context(StandInServer([self.main, self.small])).url
        self._other = stack.enter_context(StandInServer([self.custom])).url
        desk.config.with_name("multiplexer.toml").unlink()
        # Without the pool, vibe would ask the proxy of the desk for the stand-ins.
        desk.more.update(MISTRAL_API_KEY="key", MY_API_KEY="key", NO_PROXY="127.0.0.1")

    def writes(self, *parts: str, active: str = "devstral-2") -> None:
        quiet = f'active_model = "{active}"\nenable_telemetry = false\n{QUIET}'
        quiet += f"enable_update_checks = false\n{QUIETER}"
        text = "".join(parts).format(mistral=self._mistral, custom=self._other)
        self.desk.config.write_text(quiet + text)

    def says(self, *arguments: str) -> str:
        asked = self.desk.pooled(*arguments, "-p", "say pong")
        assert asked.code == 0, asked.remarks
        return asked.said


@pytest.fixture
def reader(desks: Callable[..., Desk]) -> Iterator[Reader]:
    with ExitStack() as stack:
        yield Reader(desks(NEWEST), stack)


def test_an_existing_config_works_unchanged(reader: Reader) -> None:
    """ "Your existing configuration continues to work unchanged." """
    reader.writes(OWN)
    assert reader.says() == reader.desk.bare("-p", "say pong").said == "pong from the first"


def test_it_is_off_until_enabled_is_true(reader: Reader) -> None:
    """ "Multiplexer available but disabled by default": the active model alone is asked."""
    reader.writes(OWN, SECOND, FAILOVER.replace("enabled = true", "enabled = false"))
    assert reader.says() == "pong from the first"
    assert not reader.small.requests


def test_failover_is_automatic(reader: Reader) -> None:
    """ "To enable multiplexer benefits, add a `[multiplexer]` section." """
    reader.writes(OWN, SECOND, FAILOVER)
    reader.main.default = rate_limited()
    assert reader.says() == "pong from the second"


def test_the_fallback_is_used_only_when_primaries_fail(reader: Reader) -> None:
    """ "`is_fallback`: Use only when primaries fail." """
    reader.writes(OWN, SECOND, FAILOVER)
    assert reader.says() == "pong from the first"
    assert not reader.small.requests


def test_custom_providers_work_seamlessly(reader: Reader) -> None:
    """ "Custom providers work seamlessly", with weights 70 and 30."""
    reader.writes(OWN, CUSTOM)
    assert reader.says() in {"pong from the first", "pong from my own"}
    reader.main.default = server_error()
    assert reader.says() == "pong from my own"


def test_a_local_primary_has_a_fallback_in_the_cloud(reader: Reader) -> None:
    """ "You can even set up local-primary with cloud-fallback." """
    reader.writes(OWN, LOCAL, active="local")
    assert reader.says() == "pong from my own"
    reader.custom.default = server_error()
    assert reader.says() == "pong from the first"


def test_mux_shows_mode_pool_and_statistics(reader: Reader) -> None:
    """ "This displays: current mode, pool status, per-model statistics." """
    reader.writes(OWN, SECOND, FAILOVER)
    shown = reader.desk.pooled("-p", "/mux").said
    for part in (
        "**Mode:** failover",
        "**Pool:** 2/2 models available",
        "Per-Model Statistics",
    ):
        assert part in shown


def test_before_the_multiplexer_a_model_is_switched_by_hand(reader: Reader) -> None:
    """ "Manually change this to switch models." """
    for active, said in (("devstral-2", "first"), ("devstral-small", "second")):
        reader.writes(OWN, SECOND, active=active)
        assert reader.says() == reader.desk.bare("-p", "say pong").said
        assert reader.says() == f"pong from the {said}"


def test_the_mode_is_single_unless_another_is_written(reader: Reader) -> None:
    """ "`mode`: default `single`." """
    reader.writes(OWN, SECOND, FAILOVER.replace('mode = "failover"\n', ""))
    assert reader.says() == "pong from the first"
    shown = reader.desk.pooled("-p", "/mux").said
    assert "**Mode:** single" in shown
    assert "**Pool:** 1/1 models available" in shown


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("rate_limit_disable_duration_ms", rate_limited()),
        ("persistent_error_disable_duration_ms", server_error()),
    ],
)
def test_a_model_is_disabled_for_as_long_as_the_option_is(
    reader: Reader, option: str, fault: Behaviour
) -> None:
    """ "Model disable time after rate limit", and "after error": a minute, and 15 s."""
    reader.main.default = fault
    reader.writes(OWN, SECOND, FAILOVER)
    assert [reader.says() for _ in range(2)] == ["pong from the second"] * 2
    assert len(reader.main.requests) == 1
    reader.writes(
        OWN, SECOND, FAILOVER.replace("enabled = true", f"enabled = true\n{option} = 1000")
    )
    reader.desk.run(*reader.desk.mux("reset"))
    assert [reader.says() for _ in range(2)] == ["pong from the second"] * 2
    assert len(reader.main.requests) == 3


def test_max_concurrent_is_the_most_parallel_requests(reader: Reader) -> None:
    """ "`max_concurrent`: Max parallel requests." Two vibes share the one slot."""
    first = 'model = "devstral-2"\n'
    reader.writes(OWN, SECOND, FAILOVER.replace(first, f"{first}max_concurrent = 1\n"))
    reader.main.default = Answer("pong from the first", delay=timedelta(seconds=0.2))
    with ThreadPoolExecutor(2) as both:
        said = list(both.map(lambda _: reader.says(), range(2)))
    assert set(said) <= {"pong from the first", "pong from the second"}
    assert reader.main.max_in_flight == 1


def test_mux_shows_how_often_a_model_was_limited(reader: Reader) -> None:
    """ "Check `/mux` status for rate limit counts." """
    reader.writes(OWN, SECOND, FAILOVER)
    reader.main.default = rate_limited()
    reader.says()
    shown = reader.desk.pooled("-p", "/mux").said
    assert "🔴 disabled until" in shown
    assert "Rate limited: 1" in shown


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (('model = "devstral-small"', 'model = "devstral-smal"'), "unknown model alias"),
        (
            ("[[multiplexer.pool]]\n", "[[multiplexer.pool]]\nis_fallback = true\n"),
            "at least one",
        ),
    ],
)
def test_mistakes_have_the_documented_phrases(
    reader: Reader, change: tuple[str, str], phrase: str
) -> None:
    """ "Configuration Errors": vibe runs without the pool, and the reason is printed."""
    section = (
        FAILOVER.replace("is_fallback = true\n", "")
        if phrase == "at least one"
        else FAILOVER
    )
    reader.writes(OWN, SECOND, section.replace(*change))
    asked = reader.desk.pooled("-p", "say pong")
    assert phrase in asked.remarks
    assert asked.said == "pong from the first"


def test_a_missing_key_is_an_error_at_startup(reader: Reader) -> None:
    """ "Vibe will show an error at startup if any pool model's provider is missing its key." """
    reader.writes(OWN, CUSTOM)
    del reader.desk.more["MY_API_KEY"]
    assert "Missing API key: MY_API_KEY" in reader.desk.pooled("-p", "say pong").remarks


def test_the_renamed_alias_of_the_guide_is_drilled(reader: Reader) -> None:
    """The guide's own config, after vibe has renamed devstral-2 in it."""
    reader.writes(OWN, SECOND, FAILOVER)
    for _ in range(2):
        asked = reader.desk.pooled(
            "-p", "say pong", options=("--break", "devstral-2=429@1")
        )
        assert (asked.code, asked.said) == (0, "pong from the second"), asked.remarks
    chat = reader.desk.run(*reader.desk.mux("chat", "--model", "devstral-2", "hi"))
    assert chat.said == "pong from the first"
