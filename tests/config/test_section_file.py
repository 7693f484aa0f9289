"""`multiplexer.toml` beside the config: the section in a file that vibe does not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.config import load
from muxcore.config.read import read
from muxcore.errors import ConfigError

MODELS = """\
[[models]]
name = "a"
provider = "llamacpp"
[[models]]
name = "b"
provider = "llamacpp"
"""
POOL = """\
[multiplexer]
enabled = true
mode = "failover"
[[multiplexer.pool]]
model = "{}"
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_it(config: str | None, section: str | None) -> Path:
        files = {"config.toml": config, "multiplexer.toml": section}
        for name, text in files.items():
            if text is not None:
                (tmp_path / name).write_text(text)
        return tmp_path / "config.toml"

    return write_it


def problems(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, env={})
    return [text.replace(f"{file.parent}/", "") for text in caught.value.problems]


def test_its_section_counts_as_if_it_stood_in_the_config(write: Write) -> None:
    file = write(MODELS, POOL.format("b"))
    config = load(file, env={})
    assert config.enabled
    assert [endpoint.alias for endpoint in config.endpoints] == ["b"]
    assert config.warnings == ()
    assert (config.source, config.section_file) == (
        file,
        file.with_name("multiplexer.toml"),
    )


def test_it_counts_for_vibes_own_file_too_even_where_that_does_not_exist(
    write: Write, tmp_path: Path
) -> None:
    write(None, POOL.format("local"))
    config = load(env={"VIBE_HOME": str(tmp_path)})
    assert config.enabled
    assert config.source is None


def test_it_overrides_a_section_of_the_config_with_a_warning(write: Write) -> None:
    file = write(MODELS + POOL.format("a"), POOL.format("b"))
    config = load(file, env={})
    assert [endpoint.alias for endpoint in config.endpoints] == ["b"]
    beside = file.with_name("multiplexer.toml")
    assert config.warnings == (
        (
            f"{file}:7: multiplexer: does not count, as {beside} has the section; remove it here"
            " (`vibe-mux init --move` does)"
        ),
    )


def test_its_problems_name_its_lines_and_those_of_models_the_lines_of_the_config(
    write: Write,
) -> None:
    broken = MODELS.replace('provider = "llamacpp"', 'provider = "nobody"', 1)
    assert problems(write(broken, POOL.format("a") + "weight = 0\n")) == [
        (
            'config.toml:3: models[0].provider: "nobody", an unknown provider, expected mistral'
            " or llamacpp"
        ),
        (
            "multiplexer.toml:6: multiplexer.pool[0].weight: 0, expected a whole number of at"
            " least 1"
        ),
    ]


def test_a_mistake_in_its_toml_is_named_by_its_line(write: Write) -> None:
    found = problems(write(MODELS, "[multiplexer]\nenabled = yes\n"))
    assert [text.partition(": ")[0] for text in found] == ["multiplexer.toml:2"]


def test_other_tables_in_it_have_no_effect_and_a_warning(write: Write) -> None:
    file = write(MODELS, POOL.format("a") + '[[models]]\nname = "c"\n')
    assert [text.partition(", ")[0] for text in load(file, env={}).warnings] == [
        f"{file.with_name('multiplexer.toml')}:6: models: has no effect in this file"
    ]


def test_without_a_section_it_changes_nothing(write: Write) -> None:
    file = write(MODELS + POOL.format("a"), "# nothing yet\n")
    config = load(file, env={})
    assert [endpoint.alias for endpoint in config.endpoints] == ["a"]
    assert config.section_file == file


def test_a_file_of_that_name_given_as_the_config_is_a_whole_config(tmp_path: Path) -> None:
    file = tmp_path / "multiplexer.toml"
    file.write_text(MODELS + POOL.format("b"))
    assert load(file, env={}).enabled


def test_a_mapping_has_no_section_file() -> None:
    assert read({}, {}).section_file is None
