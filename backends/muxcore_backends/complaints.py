"""Read the error in a body: its message, names, status and window.

The body may be flat or nested, a string, a list (Gemini), `detail` with a place (pydantic),
`errors`, another server's error quoted as text (OpenRouter), an HTML page, plain text, or empty.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field, frozen

from muxcore import jsontext
from muxcore.text import one_line

LONGEST_MESSAGE = 300
LONGEST_READ = 4000
"""Characters of one text that are read: the first lines hold what matters."""
LONGEST_NAME = 100
LARGEST_WINDOW = 10**9
DEEPEST = 8
MOST_ITEMS = 8

# Names of members as `plain` makes them: AWS writes "Message" and "errorMessage".
SAID_IN = (
    "message",
    "msg",
    "errormessage",
    "errordescription",
    "description",
    "errormsg",
    "statusmsg",
    "title",
)
"""Members whose text is shown to users."""
NAMED_IN = (
    "code",
    "type",
    "status",
    "reason",
    "errorcode",
    "errortype",
    "quotaid",
    "limitsource",
)
"""Members whose value is a name for programs."""
NUMBERED_IN = ("rawstatuscode", "statuscode", "httpcode", "code", "status")
"""Members that may hold an HTTP status, the surest first."""
INSIDE = (
    "error",
    "errors",
    "message",
    "detail",
    "details",
    "metadata",
    "raw",
    "violations",
    "innererror",
    "baseresp",
)
"""Members that hold more of the error, or the whole error as text."""

TITLE = re.compile(r"<title[^>]{0,200}>([^<]*)", re.IGNORECASE)
UNSEEN = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<[^>]*>?")


@frozen
class Complaint:
    """An error in the server's own words, for users and for rules.

    `status` is the HTTP status that the body names, if it names one.
    """

    message: str = ""
    names: frozenset[str] = frozenset()
    status: int | None = None
    window: int | None = None
    is_html: bool = False
    is_foreign: bool = False
    """Whether the body is a page or plain text, as firewalls and proxies send it."""

    @property
    def text(self) -> str:
        """The text that rules match, in lower case: message and names, never the user's text."""
        return "\n".join((self.message.lower(), *sorted(self.names)))


@define
class _Found:
    """The parts of an error found so far."""

    words: list[str] = field(factory=list)
    names: set[str] = field(factory=set)
    statuses: list[int] = field(factory=list)
    window: int | None = None


def clean(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Make a text of a server safe to show: one line, short."""
    return one_line(text[: LONGEST_READ * 2], longest)


def read(body: bytes) -> Complaint:
    """Read the body of an answer that is no reply."""
    try:
        value = jsontext.decode(body)
    except (ValueError, RecursionError):
        return _read_text(body)
    found = _Found()
    _gather(value, found, DEEPEST)
    return Complaint(
        message="; ".join(dict.fromkeys(found.words))[:LONGEST_READ],
        names=frozenset(found.names),
        status=found.statuses[0] if found.statuses else None,
        window=found.window,
    )


def _read_text(body: bytes) -> Complaint:
    text = body[: LONGEST_READ * 16].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith(("{", "[")):
        # Broken JSON: its message cannot be separated from what else it holds.
        return Complaint()
    if text.startswith("<"):
        title = TITLE.search(text)
        shown = title[1] if title else TAG.sub(" ", UNSEEN.sub(" ", text))
        import html  # noqa: PLC0415 - its long list of names is rarely wanted

        words = clean(html.unescape(shown), LONGEST_READ)
        return Complaint(message=words, is_html=True, is_foreign=True)
    return Complaint(message=clean(text, LONGEST_READ), is_foreign=text != "")


def plain(name: str) -> str:
    """Return the name of a member without case and underscores."""
    return name.replace("_", "").lower()


def quoted(text: str) -> object:
    """Return what a text holds that is JSON itself, another server's error; else None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return jsontext.decode(text)
    except (ValueError, RecursionError):
        return None


def _gather(value: object, found: _Found, depth: int) -> None:
    match value:
        case dict():
            _gather_members(value, found, depth)
        case list() if depth:
            for item in value[:MOST_ITEMS]:
                _gather(item, found, depth - 1)
        case str():
            _gather_text(value, found, depth)
        case _:
            pass  # Numbers and null carry no message.


def _gather_members(named: dict[str, Any], found: _Found, depth: int) -> None:
    members = {plain(name): value for name, value in named.items()}
    _gather_names(members, found)
    place = members.get("loc")
    for name in SAID_IN:
        said = members.get(name)
        if isinstance(said, str):
            if isinstance(place, list):
                said = f"{'.'.join(map(str, place[:MOST_ITEMS]))}: {said}"
            _gather_text(said, found, depth)
    if depth:
        # Most of these members are absent.
        for name in INSIDE:
            value = members.get(name)
            if value is not None and not (name in SAID_IN and isinstance(value, str)):
                _gather(value, found, depth - 1)


def _gather_names(members: dict[str, Any], found: _Found) -> None:
    for name in NUMBERED_IN:
        if name in members and (status := _status(members[name])) is not None:
            found.statuses.append(status)
    for name in NAMED_IN:
        if isinstance(said := members.get(name), str):
            found.names.add(clean(said, LONGEST_NAME).lower())
    window = members.get("nctx")
    if type(window) is int and 0 < window <= LARGEST_WINDOW:
        found.window = window


def _gather_text(text: str, found: _Found, depth: int) -> None:
    """Add a text that is the error, or quotes another server's error."""
    inner = quoted(text) if depth else None
    if inner is not None:
        _gather(inner, found, depth - 1)
    elif shown := clean(text, LONGEST_READ):
        found.words.append(shown)


def _status(value: object) -> int | None:
    """Return an HTTP status of an error, written as a number or as three digits."""
    if isinstance(value, str) and re.fullmatch(r"[45][0-9]{2}", value):
        value = int(value)
    return value if type(value) is int and 400 <= value <= 599 else None  # noqa: PLR2004
