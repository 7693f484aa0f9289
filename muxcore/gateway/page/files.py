"""The files of the page. They hold nothing of the pool, so they need no token."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from urllib.parse import quote

PAGE = "/page"
_NAMES = (
    "style.css",
    "icon.svg",
    "main.js",
    "ask.js",
    "pool.js",
    "journal.js",
    "timeline.js",
    "calls.js",
    "story.js",
)
PAGE_FILES: Mapping[str, str] = {
    PAGE: "page.html",
    **{f"{PAGE}/{name}": name for name in _NAMES},
}
"""The files by their paths."""

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'"
)
PAGE_FIELDS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Header fields of these files: they load nothing but each other, and no page may embed them."""


def page_address(url: str, token: str) -> str:
    """Return the address of the page of the server at `url`.

    The token is in the fragment, which a browser sends to nobody.
    """
    return f"{url}{PAGE}#{quote(token, safe='')}"


def page_file(path: str) -> tuple[bytes, str]:
    """Return the content of the file at this path, and its media type."""
    name = PAGE_FILES[path]
    content = files(__package__).joinpath(name).read_bytes()
    return content, f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
