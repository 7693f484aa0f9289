"""The line of a key, however vibe or people wrote it."""

from __future__ import annotations

import pytest

from muxcore.config.lines import line_of
from muxcore.config.problems import KeyPath, listed, shown, spelled

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
    assert line_of(path, TEXT) == line


def test_a_path_as_people_write_it() -> None:
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


def test_a_list_as_a_sentence_has_it() -> None:
    assert [listed("a"), listed("ab"), listed("abc", "and")] == [
        "a",
        "a or b",
        "a, b and c",
    ]


def test_a_line_that_cannot_be_told_is_not() -> None:
    assert line_of(("deep", 0, 0), "deep = [[\n  1,\n]]\n") is None
