"""Text from outside: what of it is shown."""

from __future__ import annotations

import pytest

from muxcore.text import one_line, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, ünïcode, 日本", "plain words, ünïcode, 日本"),
        ("", ""),
        ("\x1b[31mred\x1b[0m and \x1b[2Kcleared", "red and cleared"),
        ("\x1b]0;a title\x07after it", "after it"),
        ("\x1b]8;;http://x.example\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b]0;a title without an end", ""),
        ("\x1bcreset", "creset"),
        ("\x1bMup", "up"),
        ("bell\x07, null\x00, delete\x7f", "bell, null, delete"),
        ("right\u202eto left, zero\u200bwidth", "rightto left, zerowidth"),
        ("half a pair \ud83d", "half a pair "),
        ("one\ntwo\tthree\r", "onetwothree"),
    ],
)
def test_nothing_shown_steers_a_terminal_or_hides_a_word(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_lines_keep_their_breaks_and_tabs() -> None:
    assert printable_lines("one\r\n\ttwo\x1b[1m\x0b three") == "one\n\ttwo three"
    assert printable_lines("XX\x00") == "XX"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one", "one"),
        ("  a\n\n bc\tdef\x0b ", "a bc def"),
        ("one\x1b[0m\ntwo", "one two"),
        ("a  b", "a b"),
        ("0123456789", "0123456789"),
        ("0123456789a", "012345678…"),
        # No space before the sign that something is missing.
        ("01234567 9a", "01234567…"),
    ],
)
def test_one_line_of_at_most_ten_characters(text: str, line: str) -> None:
    assert one_line(text, 10) == line
