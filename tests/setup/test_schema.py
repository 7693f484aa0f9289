"""The JSON schema of `[multiplexer]` accepts what `check` accepts of its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from muxcore.cli import main
from muxcore.config.records import MultiplexerConfig, PoolEntry
from muxcore.config.structure import structure
from muxcore.setup.schema import section_schema

VALIDATOR = Draft202012Validator(section_schema())
VALUES = st.sampled_from(
    [
        *(True, False, 0, 1, -1, 1000, 31_536_000_001, 1.5),
        *("", "a", "turn", "failover", [], ["a"], [1], {}, {"a": 1}),
    ]
)


def options_of(kind: type[attrs.AttrsInstance]) -> st.SearchStrategy[dict[str, Any]]:
    """Make tables with options of a record, good and bad, and now and then an unknown one."""
    names = [field.name for field in attrs.fields(kind) if field.name != "pool"]
    return st.dictionaries(st.sampled_from([*names, "unknown"]), VALUES, max_size=4)


def has_problems(section: dict[str, Any]) -> bool:
    """Whether `check` finds a mistake in the form of a section."""
    pool = section.get("pool", [])
    tables = [(MultiplexerConfig, section), *((PoolEntry, entry) for entry in pool)]
    return any(structure(kind, table, (), closed=True).problems for kind, table in tables)


@given(options_of(MultiplexerConfig), st.lists(options_of(PoolEntry), max_size=2))
def test_it_accepts_what_check_accepts(
    section: dict[str, Any], pool: list[dict[str, Any]]
) -> None:
    section = {**section, "pool": pool}
    assert VALIDATOR.is_valid({"multiplexer": section}) is not has_problems(section)


@frozen
class File:
    """A config, and whether `check` finds it good. The form is all that a schema can judge."""

    section: str
    is_good: bool = True
    has_good_form: bool = False

    @property
    def has_form(self) -> bool:
        return self.is_good or self.has_good_form


def good(section: str) -> File:
    return File(section)


def bad_form(section: str) -> File:
    return File(section, is_good=False)


def bad(section: str) -> File:
    return File(section, is_good=False, has_good_form=True)


ON = "[multiplexer]\nenabled = true\n"
POOL = "[[multiplexer.pool]]\n"
A, B = f'{POOL}model = "a"\n', f'{POOL}model = "b"\n'
FILES = [
    good(""),
    good("[multiplexer]\n"),
    good(ON),
    good(f'{ON}mode = "failover"\n{A}{B}is_fallback = true\n'),
    good(
        f'{ON}mode = "load_balance"\nsticky = "call"\n{A}weight = 9\n{B}max_concurrent = 2'
    ),
    good(f'{ON}state = "memory"\nmax_wait_ms = 0\nannounced_limits = "heed"\n{A}'),
    good(f'{ON}state_options = {{ timeout_ms = 20 }}\n{A}capabilities = ["plain_content"]'),
    good(f"{ON}options = {{}}\n{A}context_window = 32_000\n"),
    bad_form("multiplexer = 3\n"),
    bad_form("[[multiplexer]]\nenabled = true\n"),
    bad_form('[multiplexer]\nenabled = "yes"\n'),
    bad_form(f'{ON}pool = "a"\n'),
    bad_form(f'{ON}pool = ["a"]\n'),
    bad_form(f'{ON}[multiplexer.pool]\nmodel = "a"\n'),
    bad_form(f"{ON}{POOL}weight = 2\n"),
    bad_form(f"{ON}{A}weight = 0\n"),
    bad_form(f"{ON}{A}weight = 1.5\n"),
    bad_form(f"{ON}{A}max_concurrent = 0\n"),
    bad_form(f'{ON}{A}is_fallback = "true"\n'),
    bad_form(f"{ON}{A}wieght = 2\n"),
    bad_form(f'{ON}mod = "failover"\n'),
    bad_form(f'{ON}sticky = "turns"\n{A}'),
    bad_form(f"{ON}max_wait_ms = -1\n{A}"),
    bad_form(f"{ON}read_timeout_ms = 0\n{A}"),
    bad_form(f"{ON}options = 3\n{A}"),
    bad_form(f"{ON}mode = 3\n{A}"),
    # What only the rest of the file, or what is installed, can tell.
    bad(f'{ON}mode = "failovr"\n{A}'),
    bad(f'{ON}state = "nowhere"\n{A}'),
    bad(f'{ON}mode = "failover"\n{POOL}model = "nobody"\n'),
    bad(f'{ON}mode = "failover"\n{A}{A}'),
    bad(f'{ON}mode = "failover"\n{A}is_fallback = true\n'),
    bad(f'{ON}mode = "failover"\noptions = {{ unknown = 1 }}\n{A}'),
    bad(f'{ON}mode = "failover"\n{A}capabilities = ["unknown"]\n'),
]
REST = """
[[providers]]
name = "p"
api_base = "http://127.0.0.1:9/v1"
backend = "generic"
[[models]]
name = "a"
provider = "p"
alias = "a"
[[models]]
name = "b"
provider = "p"
alias = "b"
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.section)
def test_it_judges_the_same_files_as_check(file: File, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    text = f'active_model = "a"\n{file.section}\n{REST}'
    path.write_text(text)
    assert (main.main(["check", "--config", str(path)]) == 0) is file.is_good
    assert VALIDATOR.is_valid(tomli.loads(text)) is file.has_form


def test_other_tables_are_vibes() -> None:
    assert VALIDATOR.is_valid({"models": [{"name": "a"}], "multiplexer": {}})


def test_check_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["check", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == section_schema()
