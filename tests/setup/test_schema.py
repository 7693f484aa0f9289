"""The JSON schema of `[multiplexer]` accepts what `check` accepts of its form."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
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


@pytest.mark.parametrize("section", [3, {"pool": "a"}, {"pool": ["a"]}])
def test_it_refuses_other_shapes(section: object) -> None:
    assert not VALIDATOR.is_valid({"multiplexer": section})


def test_other_tables_are_vibes() -> None:
    assert VALIDATOR.is_valid({"models": [{"name": "a"}], "multiplexer": {}})


def test_check_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["check", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == section_schema()
