"""Say in plain words why a text is no TOML, and show the place.

Only single words of the text are repeated: a config may hold secrets.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence

import tomli
from attrs import frozen

from muxcore.config.toml import TYPOGRAPHIC_QUOTES
from muxcore.config.toml.lines import lines_of

NO_DATE = "there is no such date or time; text needs quotes"
NOT_CLOSED = "a text is not closed; add the quote at its end"
BLANK = " \t"

_WORD = re.compile(r"[A-Za-z_-]{1,24}(?![^\s,\]}#])")
_QUOTED = re.compile(r"""\"[^"]*"?|'[^']*'?""")
_TOKEN = re.compile(
    r'(?P<text>"""(?:[^"\\]|\\.|"{1,2}(?!"))*(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'{1,2}(?!'))*(?:'{3,5}|\Z))"
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|'[^'\n]*'?"
    r"|#[^\n]*"
    r"|(?P<open>[\[{])|(?P<close>[\]}])|\n",
    re.DOTALL,
)
_BOOLEANS = {
    "true": "true",
    "yes": "true",
    "on": "true",
    "false": "false",
    "no": "false",
    "off": "false",
}
_NOTHING = frozenset({"null", "none", "nil", "undefined"})
_CLOSED_BY = {
    "[": ("list", "]"),
    "{": ("table", "}"),
    '"': ("text", '"""'),
    "'": ("text", "'''"),
}


@frozen
class SyntaxFault:
    """Why a text is no TOML. Line and column are counted from 1; `excerpt` has a caret."""

    line: int
    column: int
    reason: str
    excerpt: str


@frozen
class _Place:
    """Where the parser gave up, and why it says that it did."""

    text: str
    at: int
    said: str

    @property
    def before(self) -> str:
        """The line up to the place."""
        return self.text[: self.at].rpartition("\n")[2]

    @property
    def rest(self) -> str:
        """The line from the place on."""
        return self.text[self.at :].partition("\n")[0]

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    @property
    def is_at_end(self) -> bool:
        return not self.text[self.at :].strip()


def fault_of(error: tomli.TOMLDecodeError) -> SyntaxFault:
    """Explain an error of the parser."""
    place = _Place(error.doc, error.pos, error.msg)
    reason = ""
    if place.is_at_end and (opened := _opened(place)) is not None:
        kind, closing = _CLOSED_BY[place.text[opened]]
        place = _Place(place.text, opened, place.said)
        reason = f"the {kind} that begins here is not closed; add {closing} at its end"
    reason = reason or _reason(place)
    column = len(place.before) + 1
    return SyntaxFault(place.line, column, reason, _excerpt(place))


def _excerpt(place: _Place) -> str:
    """Show the line up to the place, with a caret below. Texts in quotes are left out."""
    before = _QUOTED.sub('"…"', place.before)
    word = _WORD.match(place.rest)
    shown = word[0] if word else "…" if place.rest.strip() else ""
    return f"    {before}{shown}\n    {' ' * len(before)}^"


def _opened(place: _Place) -> int | None:
    """Return where the innermost list, table or long text begins that is open at the place."""
    opened: list[int] = []
    is_header = False
    for token in _TOKEN.finditer(place.text, 0, place.at):
        start = token.start()
        if token["text"] and token.end() == place.at and not _is_closed(token["text"]):
            return start
        if token["open"]:
            row = place.text[:start].rpartition("\n")[2]
            is_header = is_header or not (opened or row.strip())
            opened.append(start)
        elif token["close"] and opened:
            opened.pop()
        elif token[0] == "\n" and is_header:
            # A header ends with its line, closed or not.
            opened, is_header = [], False
    return opened[-1] if opened and not is_header else None


def _is_closed(text: str) -> bool:
    return len(text) >= 2 * 3 and text.endswith(text[:3])


def _reason(place: _Place) -> str:
    first = place.rest[:1]
    if first and first in TYPOGRAPHIC_QUOTES:
        return f'{first} is a typographic quote; write " instead'
    for beginning, explain in _EXPLAINED.items():
        if place.said.startswith(beginning):
            return explain(place)
    return place.said


@frozen
class _Rule:
    """What is meant where the line up to the place ends so, and the line from it begins so."""

    words: str
    rest: str = ""
    before: str = ""

    def fits(self, place: _Place) -> bool:
        is_before = re.search(rf"(?:{self.before})\Z", place.before) is not None
        return is_before and re.match(self.rest, place.rest.lstrip(BLANK)) is not None


CARRIAGE_RETURN = _Rule(
    "a line ends with a carriage return alone; save the file with line feeds", r"\r"
)
COMMENT = _Rule("a comment begins with #", r"//|/\*|--|;|%")
COMMA = _Rule("no comma may follow a line; remove it", ",")

VALUES = (
    _Rule("a value is missing after =", r"\Z|[,\]}#]"),
    _Rule("one = is too many", "="),
    _Rule("a number needs a digit before its point", r"[+-]?\.\d"),
)
AFTER_VALUES = (
    CARRIAGE_RETURN,
    COMMENT,
    _Rule("one ] is too many", "]", before=r"\A\s*\[.*"),
    _Rule("a header needs a line of its own", before=r"\A\s*\[.*"),
    _Rule("a number has no comma; leave it out", r",\d"),
    COMMA,
    _Rule(
        r"""the text ends at the quote before this; a " in a text is written \"""",
        before=r"""["']\s*""",
    ),
    _Rule("a number does not begin with 0; text needs quotes", r"\d", before=r"\b0"),
    _Rule(NO_DATE, r"[-:T]\d\d", before=r"\b\d\d(?:\d\d)?(?:-\d\d)*"),
    _Rule("a number ends before this; text needs quotes", before=r"\d"),
    _Rule("only a # comment may follow a value on its line"),
)
STATEMENTS = (
    _Rule("a mark of a merge is left; resolve the conflict", "<{7}|={7}|>{7}"),
    COMMENT,
    _Rule("expected TOML, not JSON: key = value, without braces around all", "{"),
    _Rule("nothing is open that this closes; remove it", r"[\]}]"),
    COMMA,
    _Rule("a key is missing before =", "="),
)


def _by(rules: Sequence[_Rule], place: _Place) -> str:
    return next((rule.words for rule in rules if rule.fits(place)), "")


def _value(place: _Place) -> str:
    if known := _by(VALUES, place):
        return known
    rest = place.rest.lstrip(BLANK)
    word = _WORD.match(rest)
    if word is None:
        return _letter(rest) if not rest[0].isprintable() else "text needs quotes"
    plain = word[0].lower()
    if plain in _NOTHING:
        return f"TOML has no {word[0]}; leave the line out"
    if plain in _BOOLEANS:
        return f"{word[0]} is not a value of TOML; write {_BOOLEANS[plain]}"
    return f'text needs quotes; write "{word[0]}"'


def _statement(place: _Place) -> str:
    otherwise = "expected key = value, a [header] or a # comment"
    return _by(STATEMENTS, place) or _letter(place.rest) or otherwise


def _letter(rest: str) -> str:
    """Explain a letter that a key has only in quotes, or a control character."""
    if not rest.isascii() and rest[:1].isalpha():
        return f'a key with {rest[0]} needs quotes, as "key"'
    return "" if rest[:1].isprintable() else _control(rest[0])


def _no_equals_sign(place: _Place) -> str:
    rest = place.rest.strip(BLANK)
    if not rest or rest.startswith("#"):
        return "a value is missing: expected key = value"
    if instead := re.match(r":=?|[+-]=", rest):
        return f"write = instead of {instead[0]}"
    return _letter(rest) or "expected key = value; a key with spaces needs quotes"


def _header(place: _Place) -> str:
    doubled = place.before.lstrip().startswith("[[")
    if not place.rest.strip():
        return f"the header is not closed; add {']]' if doubled else ']'} at its end"
    if doubled and place.rest.startswith("]"):
        return "a header with [[ ends with ]]"
    return "a name with spaces or signs needs quotes in a header"


def _key(place: _Place) -> str:
    return _letter(place.rest) or "a name is missing here"


def _unclosed(place: _Place) -> str:
    opened = _opened(place)
    if opened is None:
        return "a comma or the end is missing before this"
    kind, closing = _CLOSED_BY[place.text[opened]]
    line = place.text.count("\n", 0, opened) + 1
    where = "" if line == place.line else f" of the {kind} that begins in line {line}"
    return f"a comma is missing before this, or the {closing}{where}"


def _escape(_: _Place) -> str:
    return r"a \ begins an escape in such a text; write \\ for \, or use single quotes"


def _illegal(place: _Place) -> str:
    character = ast.literal_eval(place.said.rpartition(" ")[2])
    if character == "\n":
        return NOT_CLOSED
    return _control(character)


def _control(character: str) -> str:
    if character == "\r":
        return CARRIAGE_RETURN.words
    return f"the invisible character U+{ord(character):04X} may not stand here; remove it"


def _twice(place: _Place) -> str:
    first = _first_line(place)
    return "defined twice" + (f", first in line {first}" if first else "")


def _complete(place: _Place) -> str:
    first = _first_line(place)
    where = f" in line {first}" if first else ""
    return f"this is complete where it is first defined{where}; add to it there"


def _first_line(place: _Place) -> int | None:
    """Return the line that first defines what the line of the place defines again."""
    rows = place.text.split("\n")
    again, before = rows[place.line - 1], rows[: place.line - 1]
    headers = [row for row in before if row.lstrip().startswith("[")]
    is_pair = not again.lstrip().startswith("[")
    table = headers[-1] if headers and is_pair else ""
    named = re.search(r"\(.*\)", place.said)
    try:
        lines = lines_of("\n".join(before) + "\n")
        if named is None:
            path = max(lines_of(f"{table}\n{again}\n"), key=len, default=())
        else:
            path = ast.literal_eval(named[0])
        while path and path not in lines:
            path = path[:-1]
        return lines.get(path)
    except (ValueError, IndexError, SyntaxError):
        # One of them is a part of something longer.
        return None


_EXPLAINED: Mapping[str, Callable[[_Place], str]] = {
    "Invalid value": _value,
    "Expected newline or end of document": lambda place: _by(AFTER_VALUES, place),
    "Invalid statement": _statement,
    "Expected '=' after a key": _no_equals_sign,
    "Expected ']'": _header,
    "Expected ']]'": _header,
    "Invalid initial character for a key": _key,
    "Unclosed array": _unclosed,
    "Unclosed inline table": _unclosed,
    "Unescaped '\\'": _escape,
    "Invalid hex value": _escape,
    "Escaped character is not": _escape,
    "Illegal character": _illegal,
    "Found invalid character": _illegal,
    "Invalid date": lambda _: NO_DATE,
    "Unterminated string": lambda _: NOT_CLOSED,
    "Expected \"'": lambda _: NOT_CLOSED,
    "Cannot declare": _twice,
    "Cannot overwrite": _twice,
    "Duplicate inline table key": _twice,
    "Cannot redefine": _twice,
    "Cannot mutate": _complete,
}
"""How to explain an error, by the beginning of what the parser says."""
