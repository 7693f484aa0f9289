"""Take out of entries what must not stand in a journal. Pure.

A journal never holds a key (no record does), a prompt, an answer, the text of a refusal, an
extra header or a URL's query. Texts of other errors are cut and cleaned. In place of the names
of conversations, and of what belongs to an address, there are salted fingerprints: equal ones
stay equal, and that is all that a decision depends on.
"""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import urlsplit, urlunsplit

from attrs import evolve

from muxcore.core.entries import Asked, Chosen, Configured, Entry, Heard
from muxcore.core.outcomes import Failed, RateLimited, Refuted, Rejected, Succeeded
from muxcore.core.records import Candidate, Endpoint, PoolState
from muxcore.core.sharing.facts import RefusalRefuted
from muxcore.text import one_line

LONGEST_TEXT = 120


def redacted(entry: Entry, salt: bytes) -> Entry:
    """Return the entry without what must not be kept. The decisions that follow are the same."""
    match entry:
        case Succeeded(conversation=str(name)):
            return evolve(entry, conversation=fingerprint(salt, name))
        case Refuted(conversation=str(name)):
            return evolve(entry, conversation=fingerprint(salt, name))
        case Asked(call=call) | Chosen(call=call) if call.conversation is not None:
            name = fingerprint(salt, call.conversation)
            return evolve(entry, call=evolve(call, conversation=name))
        case Heard(fact=RefusalRefuted(conversation=str(name)) as fact):
            return evolve(entry, fact=evolve(fact, conversation=fingerprint(salt, name)))
        case Configured(endpoints=endpoints):
            bare = tuple(_without_secrets(endpoint, salt) for endpoint in endpoints)
            return evolve(entry, endpoints=bare)
        case _:
            return without_texts(entry)


def without_texts(entry: Entry) -> Entry:
    """Return the entry without the text of a refusal; texts of other errors are cut."""
    match entry:
        case Rejected(message=message) if message:
            return evolve(entry, message="")
        case RateLimited(message=message) | Failed(message=message) if message:
            return evolve(entry, message=one_line(message, LONGEST_TEXT))
        case _:
            return entry


def redacted_state(state: PoolState, salt: bytes) -> PoolState:
    """Return the state that the redacted entries lead to, where the entries lead to `state`."""
    return evolve(
        state,
        candidates=tuple(_redacted_candidate(one, salt) for one in state.candidates),
        pins=tuple(
            evolve(pin, conversation=fingerprint(salt, pin.conversation))
            for pin in state.pins
        ),
    )


def fingerprint(salt: bytes, *texts: str) -> str:
    """Return a salted hash of the texts; without the salt, nothing can be guessed from it."""
    digest = blake2b(key=salt[:64], digest_size=12)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def bare_url(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _redacted_candidate(candidate: Candidate, salt: bytes) -> Candidate:
    refutations = tuple(
        one
        if one.conversation is None
        else evolve(one, conversation=fingerprint(salt, one.conversation))
        for one in candidate.refutations
    )
    headroom = candidate.headroom
    if headroom is not None:
        prompts = tuple(
            evolve(one, conversation=fingerprint(salt, one.conversation))
            for one in headroom.prompts
        )
        headroom = evolve(headroom, prompts=prompts)
    endpoint = _without_secrets(candidate.endpoint, salt)
    return evolve(candidate, endpoint=endpoint, refutations=refutations, headroom=headroom)


def _without_secrets(endpoint: Endpoint, salt: bytes) -> Endpoint:
    """Return it so that another address or header still makes it another place."""
    wire = endpoint.wire
    bare = bare_url(wire.api_base)
    if bare == wire.api_base and not wire.extra_headers:
        return endpoint
    texts = (wire.api_base, *(text for pair in wire.extra_headers for text in pair))
    headers = (("fingerprint", fingerprint(salt, *texts)),)
    return evolve(endpoint, wire=evolve(wire, api_base=bare, extra_headers=headers))
