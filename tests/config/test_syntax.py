"""What `check` says of a file that is no TOML: the place, what is wrong, and the likely fix."""

from __future__ import annotations

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from muxcore.config.toml.syntax import SyntaxFault, fault_of

CONFIG = '''\
active_model = "large"  # the first one
[multiplexer]
enabled = true
mode = "failover"
[[multiplexer.pool]]
model = "large"
options = { a = [1, 2.5], "b c" = 2026-11-27 }
text = """
two lines"""
'''


def fault(text: str) -> SyntaxFault | None:
    try:
        tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        return fault_of(error)
    except (ValueError, RecursionError):
        pass
    return None


def said_by_the_parser(text: str) -> str:
    with pytest.raises(tomli.TOMLDecodeError) as caught:
        tomli.loads(text)
    return caught.value.msg


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a = yes", 1, "yes is not a value of TOML; write true"),
        ("a = null", 1, "TOML has no null; leave the line out"),
        ("a = .5", 1, "a number needs a digit before its point"),
        ("a = $KEY", 1, "text needs quotes"),
        ("a = https://x.y", 1, "text needs quotes"),
        ("a = = 2", 1, "one = is too many"),
        ("a = ", 1, "a value is missing after ="),
        ("a = # c", 1, "a value is missing after ="),
        ("a = 08", 1, "a number does not begin with 0; text needs quotes"),
        ("a = 30s", 1, "a number ends before this; text needs quotes"),
        ("a = 1,000", 1, "a number has no comma; leave it out"),
        (
            'a = "x" "y"',
            1,
            'the text ends at the quote before this; a " in a text is written \\"',
        ),
        ('a = "x" // c', 1, "a comment begins with #"),
        ("a = 1 ; c", 1, "a comment begins with #"),
        ("a = 1,", 1, "no comma may follow a line; remove it"),
        ("[a] b = 1", 1, "a header needs a line of its own"),
        ("[a]]", 1, "one ] is too many"),
        ("[a", 1, "the header is not closed; add ] at its end"),
        ("[a b]", 1, "a name with spaces or signs needs quotes in a header"),
        ("[[a]", 1, "a header with [[ ends with ]]"),
        ("[[a]\nb = 1", 1, "a header with [[ ends with ]]"),
        ("[a\nb = 1", 1, "the header is not closed; add ] at its end"),
        ("// c", 1, "a comment begins with #"),
        ("-- c", 1, "expected key = value; a key with spaces needs quotes"),
        ("}", 1, "nothing is open that this closes; remove it"),
        ("]", 1, "nothing is open that this closes; remove it"),
        ("= 1", 1, "a key is missing before ="),
        (
            '{\n "a": 1\n}',
            1,
            "expected TOML, not JSON: key = value, without braces around all",
        ),
        (
            "<<<<<<< HEAD\na = 1\n=======\n",
            1,
            "a mark of a merge is left; resolve the conflict",
        ),
        ("a: 1", 1, "write = instead of :"),
        ('a: "x"', 1, "write = instead of :"),
        ("a += 1", 1, "write = instead of +="),
        ("a\n", 1, "a value is missing: expected key = value"),
        ("my key = 1", 1, "expected key = value; a key with spaces needs quotes"),
        ("größe = 1", 1, 'a key with ö needs quotes, as "key"'),
        ("grö = 1", 1, 'a key with ö needs quotes, as "key"'),
        ("[größe]", 1, "a name with spaces or signs needs quotes in a header"),
        ("a = [1 2]", 1, "a comma is missing before this, or the ]"),
        (
            "a = [1,\n 2\n\n[b]\nc = 1\n",
            4,
            "a comma is missing before this, or the ] of the list that begins in line 1",
        ),
        ("a = [1,\n", 1, "the list that begins here is not closed; add ] at its end"),
        (
            "a = [\n  { b = 1 }\n  { b = 2 }\n]",
            3,
            "a comma is missing before this, or the ] of the list that begins in line 1",
        ),
        ("a = {b = 1 c = 2}", 1, "a comma is missing before this, or the }"),
        ("a = {b = 1,,}", 1, "a name is missing here"),
        ("a = { b = 1\n", 1, "the table that begins here is not closed; add } at its end"),
        ("a = {b: 1}", 1, "write = instead of :"),
        (
            'a = "C:\\Users\\me"',
            1,
            "a \\ begins an escape in such a text; write \\\\ for \\, or use single quotes",
        ),
        (
            'a = "\\d+"',
            1,
            "a \\ begins an escape in such a text; write \\\\ for \\, or use single quotes",
        ),
        ('a = "x', 1, "a text is not closed; add the quote at its end"),
        ("a = 'x", 1, "a text is not closed; add the quote at its end"),
        ('a = """x\ny\n', 1, 'the text that begins here is not closed; add """ at its end'),
        ('a = "x\x01"', 1, "the invisible character U+0001 may not stand here; remove it"),
        ("a = 1 # \x00", 1, "the invisible character U+0000 may not stand here; remove it"),
        (
            "a = 1\rb = 2\r",
            1,
            "a line ends with a carriage return alone; save the file with line feeds",
        ),
        ("a = 2026-13-01", 1, "there is no such date or time; text needs quotes"),
        ("a = {x = 1}\n[a.b]\nc = 1", 2, "defined twice, first in line 1"),
        (
            "a = {x = 1}\na.b = 1",
            2,
            "this is complete where it is first defined in line 1; add to it there",
        ),
        (
            "a = [1]\n[[a]]\n",
            2,
            "this is complete where it is first defined in line 1; add to it there",
        ),
        ("[a]\n[b]\n[a]", 3, "defined twice, first in line 1"),
        ("a = {b = 1, b = 2}", 1, "defined twice"),
        ("a.b.c = 1\n[a.b]\n", 2, "defined twice, first in line 1"),
        ("[]", 1, "a name is missing here"),
        ("[a.]", 1, "a name is missing here"),
        ("a = 1 = 2", 1, "only a # comment may follow a value on its line"),
        (
            'a = "say "hi""',
            1,
            'the text ends at the quote before this; a " in a text is written \\"',
        ),
        (
            "a = 'it's'",
            1,
            'the text ends at the quote before this; a " in a text is written \\"',
        ),
        ("models = {\n", 1, "the table that begins here is not closed; add } at its end"),
        ('a = "x"\nb = "y\nc = 1', 2, "a text is not closed; add the quote at its end"),
        ("a = “x”", 1, '“ is a typographic quote; write " instead'),
        ("“a” = 1", 1, '“ is a typographic quote; write " instead'),
        ("a = 5.", 1, "a number ends before this; text needs quotes"),
        ("a = 1_000_", 1, "a number ends before this; text needs quotes"),
        ("\xa0a = 1", 1, "the invisible character U+00A0 may not stand here; remove it"),
        ("a\xa0= 1", 1, "the invisible character U+00A0 may not stand here; remove it"),
        ("a =\xa01", 1, "the invisible character U+00A0 may not stand here; remove it"),
        ("[[multiplexer.pool]\nmodel = 1", 1, "a header with [[ ends with ]]"),
        ("a = True", 1, "True is not a value of TOML; write true"),
        ("a = @x", 1, "text needs quotes"),
        ("a = [true, True]", 1, "True is not a value of TOML; write true"),
        ("?", 1, "expected key = value, a [header] or a # comment"),
        ("a = 1 2", 1, "only a # comment may follow a value on its line"),
        ("a = 10.0.0.1", 1, "a number ends before this; text needs quotes"),
        ("a = 5 m", 1, "only a # comment may follow a value on its line"),
        (
            'a = "x"y',
            1,
            'the text ends at the quote before this; a " in a text is written \\"',
        ),
        ("'", 1, "a text is not closed; add the quote at its end"),
        ('"""', 1, "expected key = value; a key with spaces needs quotes"),
        ("a = [[1, 2]", 1, "the list that begins here is not closed; add ] at its end"),
        (
            "[a]\nb = [\n# no\n]\nc = {d = [1, 2\n",
            5,
            "the list that begins here is not closed; add ] at its end",
        ),
        ("a.", 1, "a name is missing here"),
        ("a = (1, 2)", 1, "text needs quotes"),
        ("a = [1, 2}", 1, "a comma is missing before this, or the ]"),
        ("a = 1:2", 1, "a number ends before this; text needs quotes"),
    ],
)
def test_each_mistake_has_its_line_and_its_fix(text: str, line: int, reason: str) -> None:
    found = fault(text)
    assert found is not None
    assert (found.line, found.reason) == (line, reason)


@given(
    place=st.integers(0, len(CONFIG)),
    taken=st.integers(0, 3),
    put=st.text("\n\r\t \"'\\#=[]{},.:-+0a\u00a0é“\x00", max_size=3),
)
def test_no_spoilt_config_is_answered_in_the_parsers_words(
    place: int, taken: int, put: str
) -> None:
    text = CONFIG[:place] + put + CONFIG[place + taken :]
    found = fault(text)
    if found is not None:
        assert found.reason != said_by_the_parser(text)
        assert 1 <= found.line <= text.count("\n") + 1
        assert found.excerpt.endswith("^")


@given(st.text(max_size=40))
def test_any_text_has_an_explanation(text: str) -> None:
    for written in (text, f"a = {text}", f"[{text}", f"a = [{text}", f'a = "{text}'):
        found = fault(written)
        assert found is None or found.reason
