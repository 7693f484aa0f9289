"""The board of many machines: facts, leases and the clock are those of a Redis.

A stream has the facts, a hash the present standing of each place, sorted sets the leases. A
server that does not answer within `timeout_ms` counts as gone, and so does one that lost its
data.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from attrs import evolve
from redis import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from muxcore.board.engine import scripts
from muxcore.board.engine.address import read_address
from muxcore.core.outcomes import Fault, Limit
from muxcore.core.sharing.facts import (
    Fact,
    PlaceDisabled,
    PlaceRecovered,
    PlaceReset,
    RefusalRefuted,
    WindowLearnt,
)
from muxcore.journal.codec import JournalFormatError, from_bytes, to_bytes
from muxcore.plugins.board import BoardFact, BoardGoneError, PresentStanding, SlotLease
from muxcore.plugins.hookspecs import BoardFactory, hookimpl

VERSION = b"1"
PAGE = 200
MOST_FACTS = 10_000
LONGEST_EFFECT = timedelta(hours=1)
LONGEST_WINDOW = timedelta(days=3650)
LIMITED, BROKEN = "limited", "broken"
LISTEN_SECONDS = 2.0
"""How long one blocking read lasts; an engine that does not end it is gone."""
SEQUENCE_BITS = 20
"""A fact's number is the stream's time in ms, shifted by these bits, plus its sequence number."""
_ABANDONED: dict[tuple[str, str], list[str]] = {}
"""The holders which could not give their leases back, by URL and name; the next one does."""
_LEFT_ALONE: list[object] = []
"""The parent's clients in a forked child: never used or closed, so never collected."""
FAILURES = (RedisError, RedisClusterException, OSError, ValueError)
"""What redis-py raises; ValueError for a URL with an option that it cannot use."""


class RedisBoard:
    """Processes on any number of machines, by a Redis (6.2 or newer) or a Valkey."""

    def __init__(
        self,
        *,
        now: Callable[[], object],
        environment: Mapping[str, str],
        url_env_var: str = "VIBE_MUX_REDIS_URL",
        name: str = "default",
        lease_ms: int = 20_000,
        timeout_ms: int = 50,
    ) -> None:
        """Connect. Raise `BoardGoneError`."""
        del now  # The server's clock counts.
        url = environment.get(url_env_var)
        if not url:
            raise BoardGoneError(
                f"{url_env_var} is not set: it is to hold the URL of a Redis"
            )
        self._address = read_address(url)
        self.timeout = timeout_ms / 1000
        """In seconds."""
        self._lease_ms = lease_ms
        self._tag = f"vibe-mux:{{{name}}}:"
        self._abandoned = _ABANDONED.setdefault((url, name), [])
        self._writer = secrets.token_hex(8)
        self._held: dict[int, str] = {}
        """The places of own leases and requests, by ticket."""
        self._passed = 0
        """Up to this number there is no fact that this version knows."""
        self._reason = ""
        """Why it cannot be used any more."""
        self._listener: _Listener | None = None
        self.salt = b""
        try:
            self._client = self._address.client(self.timeout)
        except FAILURES as error:
            raise self._gone(error) from None
        version, self.salt = self._call(
            scripts.OPEN, ["board"], VERSION, secrets.token_bytes(32), salted=False
        )
        if version != VERSION:
            self._reason = f"the board {name!r} is of a newer version: update vibe-mux"
            self._client.close()
            raise BoardGoneError(self._reason)
        self._leave()

    @property
    def is_listening(self) -> bool:
        """Whether others' facts come by themselves, so that `hear` asks only if there are some."""
        return self._listener is not None and not self._reason

    def listen(self, ring: Callable[[], None]) -> None:
        """Ring from now on, from any thread, when there is a fact to hear or a free slot."""
        client = self._address.client(LISTEN_SECONDS + max(1.0, self.timeout))
        keys = (self._tag + "facts", self._tag + "wakes")
        self._listener = _Listener(client, keys, ring)

    def publish(self, place: str, fact: Fact, attempt: int = 0) -> int:
        slot, remaining = _slot_of(fact)
        ended = _ended_by(fact)
        number = self._call(
            scripts.PUBLISH,
            ["board", "facts", "standing"],
            MOST_FACTS,
            self._writer,
            place,
            attempt,
            to_bytes(fact),
            slot,
            int(remaining.total_seconds() * 1000),
            *ended,
        )
        return _number(number)

    def hear(self, since: int) -> Sequence[BoardFact]:
        listener = self._listener
        if listener is not None:
            if listener.fault is not None:
                raise self._gone(listener.fault)
            if not self._reason and listener.newest <= max(since, self._passed):
                return ()
        while True:
            after = _id(max(since, self._passed))
            now, entries = self._call(scripts.HEAR, ["board", "facts"], after, PAGE)
            facts = self._facts(now, entries)
            if facts or not entries:
                return facts
            self._passed = _number(entries[-1][0])

    def standing(self) -> PresentStanding:
        now, entries, last = self._call(scripts.STANDING, ["board", "facts", "standing"])
        facts = sorted(self._facts(now, entries), key=lambda fact: fact.number)
        return PresentStanding(_number(last), tuple(facts))

    def take(self, place: str, cap: int, ticket: int | None = None) -> SlotLease:
        given, granted = self._call(
            scripts.TAKE,
            ["board", "holders", "tickets", f"lane:{place}"],
            self._writer,
            self._lease_ms,
            int(not self._held),
            cap,
            "" if ticket is None else ticket,
        )
        self._held[int(given)] = place
        return SlotLease(place, int(given), bool(granted))

    def renew(self) -> None:
        self._call(scripts.RENEW, ["board", "holders"], self._writer, self._lease_ms)

    def give_back(self, lease: SlotLease) -> None:
        if lease.ticket in self._held:
            member = f"{self._writer}:{lease.ticket}"
            self._call(scripts.GIVE_BACK, ["board", "wakes", f"lane:{lease.place}"], member)
            del self._held[lease.ticket]

    def close(self) -> None:
        if self._listener is not None:
            self._listener.stop()
        if self._held:
            self._abandoned.append(self._writer)
        try:
            if not self._reason:
                self._leave()
        finally:
            self._reason = self._reason or "the board is closed"
            self._client.close()

    def _leave(self) -> None:
        """End the leases of boards of this process that could not say so, and its own."""
        if self._abandoned:
            self._call(scripts.LEAVE, ["board", "wakes", "holders"], *self._abandoned)
            self._abandoned.clear()

    def information(self) -> Mapping[str, Any]:
        """Return what the server says of itself. Raise one of `FAILURES`."""
        node: Any = self._client
        if isinstance(node, RedisCluster):
            # redis-py has no types here.
            node = node.get_redis_connection(node.get_random_node())  # type: ignore[no-untyped-call]
        return {**node.info("server"), **node.info("memory")}

    def after_fork(self) -> None:
        self._reason = "the board is the parent's"
        _ABANDONED.clear()
        _LEFT_ALONE.extend((self._client, self._listener))

    def _call(
        self, script: str, names: Sequence[str], *values: object, salted: bool = True
    ) -> Any:
        if self._reason:
            raise BoardGoneError(self._reason)
        keys = [self._tag + name for name in names]
        arguments = [self.salt, *values] if salted else values
        try:
            return self._client.register_script(script)(keys, arguments)
        except FAILURES as error:
            raise self._gone(error) from None

    def _gone(self, error: BaseException) -> BoardGoneError:
        """Return the error in words, without the URL; nothing is asked of the server any more."""
        text = str(error) or type(error).__name__
        self._reason = f"Redis: {self._address.masked(text).removeprefix('GONE ')}"
        return BoardGoneError(self._reason)

    def _facts(self, now: bytes, entries: Sequence[Any]) -> list[BoardFact]:
        found = []
        for number, writer, place, attempt, data in entries:
            try:
                fact = from_bytes(data)
            except JournalFormatError:
                # Of a newer version: it is none of those that this one knows.
                continue
            at = _number(number)
            if isinstance(fact, PlaceDisabled):
                age = timedelta(milliseconds=max(0, int(now) - (at >> SEQUENCE_BITS)))
                fact = evolve(fact, remaining=fact.remaining - age)
            own = writer.decode() == self._writer
            attempts = int(attempt) if own else 0
            found.append(BoardFact(at, place.decode(), fact, own, attempts))
        return found


class _Listener:
    """A blocking read on a connection of its own, in a thread of its own, for as long as it lives."""

    def __init__(self, client: Any, keys: Sequence[str], ring: Callable[[], None]) -> None:
        self.fault: BaseException | None = None
        self.newest = 1 << 100
        """The number of the newest fact on the board; more than any until it is known."""
        self._client = client
        self._facts, self._wakes = keys
        self._ring = ring
        self._stopped = False
        threading.Thread(target=self._run, name="vibe-mux-listener", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True

    def _run(self) -> None:
        try:
            since = {key: self._last(key) for key in (self._facts, self._wakes)}
            self.newest = _number(since[self._facts])
            self._ring()
            while not self._stopped:
                found = self._client.xread(since, block=int(LISTEN_SECONDS * 1000))
                for key, entries in found:
                    since[key.decode()] = entries[-1][0]
                self.newest = _number(since[self._facts])
                if found:
                    self._ring()
        except FAILURES as error:
            self.fault = error
            if not self._stopped:
                self._ring()
        finally:
            self._client.close()

    def _last(self, key: str) -> bytes:
        last = self._client.xrevrange(key, count=1)
        return last[0][0] if last else b"0-0"


def _slot_of(fact: Fact) -> tuple[str, timedelta]:
    """Return the fact's part in the standing of its place, and how long it has an effect."""
    match fact:
        case PlaceDisabled(cause=cause, remaining=remaining):
            is_limit = isinstance(cause, Limit) or cause is Fault.UNPAID
            return LIMITED if is_limit else BROKEN, max(timedelta(), remaining)
        case WindowLearnt():
            return "window", LONGEST_WINDOW
        case RefusalRefuted(kind=kind, conversation=conversation):
            return f"refuted:{kind.value}:{conversation}", LONGEST_EFFECT
        case PlaceRecovered() | PlaceReset():
            return "", timedelta()


def _ended_by(fact: Fact) -> tuple[object, ...]:
    """Return which parts of the standing this fact ends, and up to which number.

    As the script takes it: (ms, sequence, parts...).
    """
    match fact:
        case PlaceRecovered(heard_of=number):
            at, sequence = number >> SEQUENCE_BITS, number & ((1 << SEQUENCE_BITS) - 1)
            return (at, sequence, LIMITED, BROKEN)
        case PlaceReset():
            return (1 << 52, 0, LIMITED, BROKEN)
        case _:
            return ()


def _number(identity: bytes) -> int:
    at, _, sequence = identity.decode().partition("-")
    return (int(at) << SEQUENCE_BITS) + int(sequence)


def _id(number: int) -> str:
    return f"{number >> SEQUENCE_BITS}-{number & ((1 << SEQUENCE_BITS) - 1)}"


@hookimpl
def vibe_mux_register_boards(register: Callable[[str, BoardFactory], None]) -> None:
    register("redis", RedisBoard)
