"""The line of a key, however vibe or people wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tomli
import tomlkit
from hypothesis import given, strategies

from muxcore.config.problems import listed, shown, spelled
from muxcore.config.toml import KeyPath
from muxcore.config.toml.lines import line_of, lines_of

TEXT = '''# [multiplexer] weight
models = [
    { name = "a" },
    { name = "b",
      alias = "weight" },
]
inline = [{ x = 1 }, { x = 2, y = { z = 3 } }]
long = """
weight = 3
"""
raw = \'\'\'
[multiplexer]
\'\'\'
[multiplexer]
mode = "x"
pool = [
  {model = "a"}, {model = "b"},

  {model = "c", weight = 3}
]
[[entry]]
weight = 1
[[entry]]
weight = 2
[table."quoted key"]
"a.b" = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("models",), 2),
        (("models", 0), 3),
        (("models", 0, "name"), 3),
        (("models", 1, "name"), 4),
        (("models", 1, "alias"), 5),
        (("inline", 1, "y", "z"), 7),
        (("long",), 8),
        (("raw",), 11),
        (("multiplexer",), 14),
        (("multiplexer", "mode"), 15),
        (("multiplexer", "pool"), 16),
        (("multiplexer", "pool", 1, "model"), 17),
        (("multiplexer", "pool", 2), 19),
        (("multiplexer", "pool", 2, "weight"), 19),
        (("multiplexer", "pool", 2, "missing"), 19),
        (("multiplexer", "pool", 9), 16),
        (("multiplexer", "missing", 3), 14),
        (("multiplexer", "mode", 3), 15),
        (("multiplexer", "mode", "x"), 15),
        (("entry", 0, "weight"), 22),
        (("entry", 1), 23),
        (("entry", 1, "weight"), 24),
        (("table", "quoted key"), 25),
        (("table", "quoted key", "a.b"), 26),
        (("nowhere",), None),
        ((), None),
    ],
)
def test_the_line_of_a_path(path: KeyPath, line: int | None) -> None:
    assert line_of(path, lines_of(TEXT)) == line


def test_a_path_in_its_usual_form() -> None:
    assert spelled(("a", 1, "b-c", "d.e")) == 'a[1].b-c."d.e"'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ü\n", r'"ü\n"'),
        ("x" * 100, '"' + "x" * 59 + '…"'),
        (True, "true"),
        (1.5, "1.5"),
        ({}, "a table"),
        ([], "a list"),
        (None, "nothing"),
    ],
)
def test_a_value_as_toml_writes_it(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_list_as_in_a_sentence() -> None:
    assert [listed("a"), listed("ab"), listed("abc", "and")] == [
        "a",
        "a or b",
        "a, b and c",
    ]


def test_a_list_inside_a_list_has_lines() -> None:
    assert line_of(("deep", 0, 0), lines_of("deep = [[\n  1,\n]]\n")) == 2


KEYS = strategies.text(alphabet="ab-. \"'#[]=é\n\\", min_size=1, max_size=4)
SCALARS = (
    strategies.integers(-9, 9)
    | strategies.booleans()
    | strategies.text(alphabet="ab'\"\\\n#[]{},= ", max_size=8)
)
VALUES = strategies.recursive(
    SCALARS,
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def paths_in(data: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of each value, table and member of a list in parsed data."""
    if path:
        yield path
    steps: dict[Any, object] = {}
    if isinstance(data, dict | list):
        steps = data if isinstance(data, dict) else dict(enumerate(data))
    for step, value in steps.items():
        yield from paths_in(value, (*path, step))


@given(strategies.dictionaries(KEYS, VALUES, max_size=4))
def test_every_value_and_only_a_value_has_a_line(data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data)
    assert set(lines_of(text)) == set(paths_in(tomli.loads(text)))


@given(strategies.dictionaries(KEYS, SCALARS, min_size=1, max_size=6))
def test_a_value_stands_on_the_first_line_up_to_which_the_text_has_it(
    data: dict[str, Any],
) -> None:
    pairs = [tomlkit.dumps({key: value}) for key, value in data.items()]
    expected = [1 + "".join(pairs[:place]).count("\n") for place in range(len(pairs))]
    assert [lines_of("".join(pairs))[key,] for key in data] == expected
