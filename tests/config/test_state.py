"""`state` and `state_options` in [multiplexer]."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from muxcore import ConfigError, load_config
from tests.processes import environment


def config(**section: Any) -> dict[str, Any]:
    return {
        "active_model": "a",
        "providers": [{"name": "p", "api_base": "http://127.0.0.1:9/v1"}],
        "models": [{"name": "m", "provider": "p", "alias": "a"}],
        "multiplexer": {"enabled": True, "mode": "failover", **section},
    }


def problem(**section: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(config(**section), env={})
    (text,) = caught.value.problems
    return text


def test_a_config_need_not_say_where_its_state_is_kept() -> None:
    assert load_config(config(), env={}).state is None
    assert load_config(config(state="file"), env={}).state == "file"
    assert load_config(config(state="memory"), env={}).state == "memory"


def test_off_is_in_memory_whatever_the_config_says() -> None:
    assert load_config(config(enabled=False, state="file"), env={}).state == "memory"


@pytest.mark.parametrize(
    ("section", "text"),
    [
        (
            {"state": "fiel"},
            'config: multiplexer.state: "fiel", expected memory, file or redis; did you mean "file"?',
        ),
        (
            {"state": "redis"},
            (
                "config: multiplexer.state_options.url_env_var: VIBE_MUX_REDIS_URL is not set; it"
                " holds the URL of the Redis, as redis://HOST:6379/0"
            ),
        ),
        (
            {"state": "redis", "state_options": {"url_env_var": "redis://:secret@host"}},
            (
                "config: multiplexer.state_options.url_env_var: is not the name of a variable,"
                " expected the one that holds the URL of the Redis, such as VIBE_MUX_REDIS_URL;"
                " the URL itself belongs there"
            ),
        ),
        (
            {"state": "redis", "state_options": {"lease_ms": 100}},
            (
                "config: multiplexer.state_options.lease_ms: 100, expected a whole number of at"
                " least 10000"
            ),
        ),
        (
            {"state": "redis", "state_options": {"path": "x"}},
            (
                "config: multiplexer.state_options.path: an unknown option; the known ones are"
                " url_env_var, name, lease_ms and timeout_ms"
            ),
        ),
        (
            {"state": "file", "state_options": {"timeout_ms": 0}},
            "config: multiplexer.state_options.timeout_ms: 0, expected a whole number of at least 1",
        ),
        (
            {"state": "file", "state_options": {"pth": "x"}},
            'config: multiplexer.state_options.pth: an unknown option; did you mean "path"?',
        ),
    ],
)
def test_a_mistake_names_its_place_and_what_was_expected(
    section: dict[str, Any], text: str
) -> None:
    assert problem(**section) == text


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("secret", "does not begin with one of redis://, rediss://"),
        ("redis://:secret@", "names no host"),
        ("unix://", "names no socket"),
        ("redis+sentinel://:secret@host/0", "has no \\?service=NAME"),
        ("redis://:secret@host:port/0", "cannot be read"),
        ("redis://:secret@ho st/0", "has a space"),
    ],
)
def test_a_url_that_is_none_is_refused_and_not_shown(url: str, fault: str) -> None:
    with pytest.raises(
        ConfigError, match=f"the URL in VIBE_MUX_REDIS_URL {fault}"
    ) as caught:
        load_config(config(state="redis"), env={"VIBE_MUX_REDIS_URL": url})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://u:p@h:1/2", "unix:///run/redis.sock"]
)
def test_a_url_of_redis_py_is_taken(url: str) -> None:
    made = load_config(config(state="redis"), env={"VIBE_MUX_REDIS_URL": url})
    assert made.state == "redis"
    assert url not in repr(made)


def test_the_url_may_stand_in_the_env_file_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SHARED=redis://h\n", "utf-8")
    file = tmp_path / "config.toml"
    section = config(state="redis", state_options={"url_env_var": "SHARED"})
    file.write_text(tomlkit.dumps(section), "utf-8")
    assert load_config(file, env={}).state == "redis"


def test_options_of_another_state_may_stay_when_it_is_memory() -> None:
    for options in ({"path": "x"}, {"name": "team"}):
        assert load_config(config(state="memory", state_options=options), env={})
    assert "unknown option" in problem(state="memory", state_options={"nam": "team"})


def test_without_the_extra_the_config_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("muxcore.plugins.catalogue.WITH_EXTRAS", ("muxcore.no.redis",))
    assert problem(state="redis") == (
        "config: multiplexer.state: \"redis\" needs an extra: pip install 'vibe-mux[redis]'"
    )


@pytest.mark.parametrize("state", ["memory", "file"])
def test_the_library_is_imported_only_for_a_redis(state: str, tmp_path: Path) -> None:
    code = (
        "import sys; from muxcore import Multiplexer;"
        f"Multiplexer.from_config({config(state=state)!r}, env={{}}).close();"
        "print('redis' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment(tmp_path),
    )
    assert done.stdout == "False\n"
