"""What must not stand in a journal is taken out of its entries here. Pure.

A journal never holds a key (no record does), a prompt, an answer, the text of a refusal, an
extra header or a URL's query. Texts of other errors are cut and cleaned.
"""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import urlsplit, urlunsplit

from attrs import evolve

from muxcore.core.entries import Asked, Configured, Entry, Heard
from muxcore.core.outcomes import Failed, RateLimited, Refuted, Rejected, Succeeded
from muxcore.core.records import Endpoint
from muxcore.core.sharing.facts import RefusalRefuted
from muxcore.core.text import one_line

LONGEST_TEXT = 120


def redacted(entry: Entry) -> Entry:
    """Return the entry without what must not be kept. The state that follows is the same."""
    match entry:
        case Rejected(message=message) if message:
            return evolve(entry, message="")
        case RateLimited(message=message) | Failed(message=message) if message:
            return evolve(entry, message=one_line(message, LONGEST_TEXT))
        case Configured(endpoints=endpoints):
            return evolve(entry, endpoints=tuple(map(_without_secrets, endpoints)))
        case _:
            return entry


def fingerprint(salt: bytes, *texts: str) -> str:
    """Return a salted hash of the texts; without the salt, nothing can be guessed from it."""
    digest = blake2b(key=salt[:64], digest_size=12)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def anonymous(entry: Entry, salt: bytes) -> Entry:
    """Return the entry with fingerprints in place of the names of conversations.

    Equal names stay equal, and that is all that a decision depends on.
    """
    match entry:
        case Succeeded(conversation=str(name)) | Refuted(conversation=str(name)):
            return evolve(entry, conversation=fingerprint(salt, name))
        case Asked(call=call) if call.conversation is not None:
            name = fingerprint(salt, call.conversation)
            return evolve(entry, call=evolve(call, conversation=name))
        case Heard(fact=RefusalRefuted(conversation=str(name)) as fact):
            return evolve(entry, fact=evolve(fact, conversation=fingerprint(salt, name)))
        case _:
            return entry


def bare_url(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _without_secrets(endpoint: Endpoint) -> Endpoint:
    wire = endpoint.wire
    return evolve(
        endpoint,
        wire=evolve(wire, api_base=bare_url(wire.api_base), extra_headers=()),
    )
