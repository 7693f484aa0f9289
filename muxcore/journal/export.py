"""Journals as JSON Lines: to attach to an issue, and to keep as a test. Pure.

A file has one or more journals. Each begins with a header, which holds the state before the
first entry; then come entries in the form of `codec`, and digests of states between them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import define, field

from muxcore.errors import MultiplexerError
from muxcore.journal.codec import (
    JournalFormatError,
    canonical,
    checkpoint_of,
    encode,
    encode_checkpoint,
    line_of,
)
from muxcore.journal.recent import Checkpoint, Journal, JournalLine

HEADER, DIGEST = "journal", "digest"


class JournalGapError(MultiplexerError):
    """Entries of a journal are missing."""


def to_lines(journal: Journal) -> Iterator[bytes]:
    """Yield the lines of a file, each with its line break."""
    checkpoint = json.loads(encode_checkpoint(journal.base))
    yield canonical({HEADER: checkpoint}) + b"\n"
    for line in journal.lines:
        yield encode(line) + b"\n"
        digest = journal.digests.get(line.number)
        if digest is not None:
            yield canonical({DIGEST: digest, "n": line.number}) + b"\n"


def from_lines(lines: Iterable[bytes]) -> tuple[Journal, ...]:
    """Return the journals of a file. A torn last line is ignored.

    Raise `JournalFormatError` for any other line that cannot be read, and `JournalGapError`
    where entries are missing.
    """
    found: list[_Reading] = []
    torn: tuple[int, Exception] | None = None
    for number, data in enumerate(lines, 1):
        if torn is not None:
            place, error = torn
            text = f"line {place} is no line of a journal ({error})"
            raise JournalFormatError(text) from error
        try:
            _read(data, found)
        except JournalGapError as error:
            raise JournalGapError(f"line {number}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            torn = number, error
        except JournalFormatError as error:
            raise JournalFormatError(f"line {number}: {error}") from error
    if not found:
        raise JournalFormatError("the file holds no journal: its first line is no header")
    return tuple(Journal(one.base, tuple(one.lines), one.digests) for one in found)


@define
class _Reading:
    base: Checkpoint
    lines: list[JournalLine] = field(factory=list)
    digests: dict[int, str] = field(factory=dict)

    @property
    def last(self) -> int:
        return self.lines[-1].number if self.lines else self.base.number


def _read(data: bytes, found: list[_Reading]) -> None:
    plain: dict[str, Any] = json.loads(data)
    if HEADER in plain:
        found.append(_Reading(checkpoint_of(plain[HEADER])))
    elif not found:
        raise JournalFormatError("a journal begins with a header, and this line is none")
    elif DIGEST in plain:
        found[-1].digests[plain["n"]] = plain[DIGEST]
    else:
        line, last = line_of(plain), found[-1].last
        if line.number != last + 1:
            raise JournalGapError(
                f"entry {line.number} follows entry {last}: entries are missing"
            )
        found[-1].lines.append(line)
