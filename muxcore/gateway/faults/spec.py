"""What a fire drill is: which fault, for which model, at which of its calls."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from enum import StrEnum

from attrs import field, frozen

from muxcore.config.definitions import known_as
from muxcore.errors import ConfigError


class FaultSpec(StrEnum):
    """The fault of a drill."""

    RATE_LIMIT = "429"
    SERVER_ERROR = "500"
    BAD_KEY = "401"
    REFUSED = "refused"
    CUT = "cut"


_WRITTEN = re.compile(r"(?P<alias>.+)=(?P<fault>[a-z0-9]+)(?:@(?P<at>[0-9]{1,9}))?")


class _Count:
    """Counts the calls of one drill; it outlives a reload of the config."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0

    def next(self) -> int:
        with self._lock:
            self._calls += 1
            return self._calls


@frozen
class Drill:
    """The model `alias` has this fault at its call number `at`; at every call if that is None."""

    alias: str
    fault: FaultSpec
    at: int | None = None
    _count: _Count = field(factory=_Count, repr=False, eq=False)

    def __str__(self) -> str:
        when = "every call" if self.at is None else f"its call number {self.at}"
        return f"Fire drill: {self.alias} has the fault {self.fault} at {when}."

    def expect_known(self, aliases: Collection[str]) -> None:
        if known_as(self.alias, aliases) not in aliases:
            known = ", ".join(sorted(aliases))
            text = (
                f"--break names {self.alias!r}, which is not in the pool (known: {known})"
            )
            raise ConfigError([text])

    def is_due(self) -> bool:
        number = self._count.next()
        return self.at is None or number == self.at


def parse_drill(text: str) -> Drill:
    """Read `ALIAS=FAULT@N`, or `ALIAS=FAULT` for every call. Raise `ValueError`."""
    match = _WRITTEN.fullmatch(text)
    faults = ", ".join(FaultSpec)
    if match is None or match["fault"] not in set(FaultSpec) or match["at"] == "0":
        raise ValueError(f"expected ALIAS=FAULT@N, where FAULT is one of {faults}")
    at = None if match["at"] is None else int(match["at"])
    return Drill(match["alias"], FaultSpec(match["fault"]), at)
