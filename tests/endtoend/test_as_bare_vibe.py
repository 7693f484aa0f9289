"""What works with a bare vibe works through the pool, with real vibes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muxcore.standin import refusal
from tests.endtoend.conftest import VERSIONS, Desk

pytestmark = pytest.mark.slow
Desks = Callable[..., Desk]
ALL = pytest.mark.parametrize("version", VERSIONS)
PONG = "pong 1 from small-model"


def served_by_the_pool(mine: Desk, *arguments: str) -> str:
    """Ask with the first model down; return what was printed beside the answer."""
    asked = mine.pooled(*arguments, "-p", "say pong")
    assert (asked.code, asked.said) == (0, PONG), asked.remarks
    assert "1 interruption avoided" in asked.remarks
    assert len(mine.large.requests) == 1
    return asked.remarks


@ALL
def test_vibe_starts_whatever_the_windows_and_thresholds_are(
    desks: Desks, version: str
) -> None:
    for window, threshold in (
        (32_000, 200_000),
        (8_000, -1),
        (100_000, 0),
        (262_144, 250_000),
    ):
        mine = desks(version, "429")
        limits = f"max_context_length = {window}\nauto_compact_threshold = {threshold}\n"
        mine.rewrite(('alias = "large"\n', f'alias = "large"\n{limits}'))
        # A prompt that does not fit the smallest window goes to the other model at once.
        asked = mine.pooled("-p", "say pong")
        assert (asked.code, asked.said) == (0, PONG), asked.remarks


@ALL
def test_a_threshold_for_all_models_is_no_obstacle(desks: Desks, version: str) -> None:
    for threshold in (0, -1, 250_000):
        mine = desks(version, "429")
        first = 'active_model = "large"\n'
        more = f"auto_compact_threshold = {threshold}\n"
        window = 'alias = "large"\nmax_context_length = 32000\n'
        mine.rewrite((first, first + more), ('alias = "large"\n', window))
        served_by_the_pool(mine)


@ALL
def test_an_active_model_that_does_not_exist_is_the_pool(
    desks: Desks, version: str
) -> None:
    mine = desks(version, "429")
    mine.rewrite(('active_model = "large"', 'active_model = "gone"'))
    served_by_the_pool(mine)


@ALL
def test_models_that_are_not_allowed_lead_to_the_pool(desks: Desks, version: str) -> None:
    mine = desks(version, "429")
    allowed = 'active_model = "large"\nallowed_models = ["small-*"]'
    mine.rewrite(('active_model = "large"', allowed))
    served_by_the_pool(mine)


@ALL
def test_the_active_model_of_a_project_is_the_pool(desks: Desks, version: str) -> None:
    mine = desks(version, "429")
    (mine.work / ".vibe").mkdir()
    (mine.work / ".vibe" / "config.toml").write_text('active_model = "small"\n')
    mine.trust()
    served_by_the_pool(mine)


@ALL
def test_the_model_of_an_agent_is_the_pool(desks: Desks, version: str) -> None:
    mine = desks(version, "429")
    agents = mine.config.with_name("agents")
    agents.mkdir()
    (agents / "reviewer.toml").write_text('active_model = "small"\n')
    served_by_the_pool(mine, "--agent", "reviewer")


@ALL
def test_what_goes_past_the_pool_is_announced(desks: Desks, version: str) -> None:
    mine = desks(version)
    agents = mine.config.with_name("agents")
    agents.mkdir()
    (agents / "cheap.toml").write_text('active_model = "small"\n')
    asked = mine.pooled("-p", "say pong")
    assert asked.said == "pong 1 from large-model"
    announced = 'cheap.toml:1: active_model: agent "cheap" asks "small" alone'
    assert announced in asked.remarks


@ALL
def test_a_projects_own_settings_of_a_model_count(desks: Desks, version: str) -> None:
    mine = desks(version)
    (mine.work / ".vibe").mkdir()
    (mine.work / ".vibe" / "config.toml").write_text('[models.large]\nthinking = "high"\n')
    mine.trust()
    for ask in (mine.bare, mine.pooled):
        assert ask("-p", "say pong").code == 0
        assert mine.large.requests[-1].body["reasoning_effort"] == "high"


@ALL
def test_keys_that_all_models_refuse_end_vibe_at_once(desks: Desks, version: str) -> None:
    mine = desks(version, "401", refusal(401, "no"))
    mine.rewrite(("api_base", 'api_key_env_var = "OTHER_API_KEY"\napi_base'))
    text = mine.config.read_text().replace(
        'api_key_env_var = "OTHER_API_KEY"\napi_base', "api_base", 1
    )
    mine.config.write_text(text)
    mine.more["OTHER_API_KEY"] = "wrong"
    asked = mine.pooled("-p", "say pong")
    assert asked.code != 0
    assert "check LAB_API_KEY (large), OTHER_API_KEY (small)" in asked.remarks
    assert (len(mine.large.requests), len(mine.small.requests)) == (1, 1)


@ALL
def test_the_version_is_vibes_line_alone(desks: Desks, version: str) -> None:
    mine = desks(version)
    told = mine.pooled("--version")
    assert (told.code, told.remarks) == (0, "")
    assert told.said == mine.bare("--version").said


@ALL
def test_models_see_no_mux_in_a_session_that_goes_on(desks: Desks, version: str) -> None:
    mine = desks(version)
    assert mine.pooled("-p", "say pong").code == 0
    assert "Multiplexer Status" in mine.pooled("-c", "-p", "/mux").said
    assert mine.pooled("-c", "-p", "go on").said == "pong 2 from large-model"
    assert "Multiplexer Status" not in str(mine.large.requests[-1].body["messages"])


@ALL
def test_two_vibes_at_once_share_what_one_has_met(desks: Desks, version: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    mine = desks(version, "429")
    with ThreadPoolExecutor(2) as both:
        ends = [both.submit(mine.pooled, "-p", "say pong") for _ in range(2)]
        assert [end.result().said for end in ends] == [PONG, PONG]


@ALL
def test_a_fire_drill_fires_under_a_vibe_that_renames_the_alias(
    desks: Desks, version: str
) -> None:
    mine = desks(version)
    mine.rewrite(
        ('"large"', '"devstral-2"'), ('"large-model"', '"mistral-vibe-cli-latest"')
    )
    section = mine.config.with_name("multiplexer.toml")
    section.write_text(section.read_text().replace('"large"', '"devstral-2"'))
    drilled = mine.pooled("-p", "say pong", options=("--break", "devstral-2=429@1"))
    assert (drilled.code, drilled.said) == (0, PONG), drilled.remarks
    assert not mine.large.requests
