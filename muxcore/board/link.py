"""What connects a pool to a board, step by step: no thread, no clock of its own.

It folds the pool's journal a second time, so it knows which entries are facts for others;
publishes these; records what others published; takes and gives back leases; and writes the
journal. What cannot be sent waits in a bounded queue. A board that is gone is tried again every
few seconds; until then everything works as with `state = "memory"`, and a notice says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from attrs import evolve, frozen

from muxcore.board.file import FileBoard
from muxcore.board.journal_file import JournalFile, JournalPlace
from muxcore.board.leasing import Leasing
from muxcore.core.entries import Configured, Entry, Heard
from muxcore.core.folding.leases import LeaseWanted
from muxcore.core.records import Call, PoolState
from muxcore.core.sharing.facts import (
    LeasesChanged,
    PlaceDisabled,
    PlaceRecovered,
    RefusalRefuted,
)
from muxcore.core.sharing.publishing import Publication, forgotten, publications
from muxcore.core.status import Totals
from muxcore.core.updating import update
from muxcore.journal.recent import Checkpoint, JournalLine
from muxcore.journal.redaction import fingerprint
from muxcore.plugins.board import (
    Board,
    BoardBusyError,
    BoardFact,
    BoardGoneError,
    ListeningBoard,
    PresentStanding,
)
from muxcore.text import printable

WRITE_SECONDS = 0.25
RETRY_SECONDS = 1.0
MOST_UNSENT, MOST_UNWRITTEN, MOST_NUMBERED = 1_000, 20_000, 4_096
BETWEEN_CHECKPOINTS = 1_000
"""In entries: the most that a reader of the journal folds to reach a state between two."""


@frozen
class PoolSide:
    """What a board needs of the pool. All of it may be called from any thread."""

    state: Callable[[], PoolState]
    checkpoint: Callable[[], Checkpoint]
    """The state, with the number of its last entry."""
    record: Callable[[Entry], None]
    follow: Callable[[Callable[[Sequence[JournalLine]], None] | None], None]
    places: Callable[[bytes], Mapping[str, str]]
    """The place of each endpoint, by alias, for the board's salt."""
    now: Callable[[], datetime]
    elapsed: Callable[[], float]
    lacks: Callable[[Call], LeaseWanted | None]
    """Which lease a call lacks for the endpoint that it would pick."""
    wanted: Callable[[], Sequence[LeaseWanted]]
    """The same of the calls that wait."""


@frozen
class _Unsent:
    publication: Publication
    since: float


class BoardLink:
    """A pool's link to a board.

    One thread takes its steps. Any thread may call `follow` and `unshare`, and read the public
    fields.
    """

    def __init__(
        self,
        open_board: Callable[[], Board],
        pool: PoolSide,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        self.notice = ""
        """Why the board is not used, for the status; "" while it is."""
        self.totals: Mapping[str, Totals] = {}
        base = pool.checkpoint()
        self.folded = base.state
        """The state by the entries that were folded so far."""
        self.leasing: Leasing | None = None
        self.heard_at = float("-inf")
        """When all facts were heard, as a time of `PoolSide.elapsed`."""
        self._open_board = open_board
        self._pool = pool
        self._ring = ring
        """Makes the thread take a step soon."""
        self._board: Board | None = None
        self._journal: JournalFile | None = None
        self._places: dict[str, str] = {}
        self._last = base.number
        """The number of the last entry that is folded."""
        self._pending: deque[JournalLine] = deque(maxlen=MOST_UNWRITTEN)
        self._base = base
        """The state before what is unwritten."""
        self._unwritten: list[JournalLine] = []
        self._checkpoints: list[Checkpoint] = []
        """States after some of that."""
        self._mode, self._options = base.mode, base.options
        self._unsent: deque[_Unsent] = deque(maxlen=MOST_UNSENT)
        self._numbers: dict[int, int] = {}
        """The board's numbers of own failures, by attempt."""
        self._own: dict[int, str] = {}
        """The aliases of own facts, by number."""
        self._since = 0
        """The number of the newest fact that the pool has heard."""
        self._written_at = self._retry_at = float("-inf")

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def is_listening(self) -> bool:
        """Whether the board rings when there is something to hear."""
        board = self._board
        return isinstance(board, ListeningBoard) and board.is_listening

    @property
    def recorded_in(self) -> JournalPlace | None:
        """Where the journal is written; None while it is in memory alone."""
        journal = self._journal
        return None if journal is None else journal.place

    def follow(self, lines: Sequence[JournalLine]) -> None:
        """Take new entries of the pool, whose guard is held."""
        self._pending.extend(lines)

    def step(
        self,
        wanted: Callable[[], Sequence[LeaseWanted]],
        ready: Callable[[], None],
        *,
        write: bool = False,
        last: bool = False,
    ) -> None:
        """Do what is due; call `ready` once all facts are heard and leases are taken.

        `wanted` returns the leases that calls wait for. With `write`, the journal is written
        before it returns, and a `last` step opens a board that is not open yet. Raise
        `BoardBusyError` if the next step must go on from here.
        """
        self._fold()
        try:
            if self.leasing is None:
                if self._pool.elapsed() < self._retry_at and not last:
                    return
                self._open()
            self._hear()
            self._lease(wanted)
            ready()
            self._send()
            if write or self._pool.elapsed() - self._written_at >= WRITE_SECONDS:
                self._write()
        except BoardGoneError as error:
            self.lose(str(error))

    def unshare(self) -> None:
        """Count slots and probes within the process, until the board is there again."""
        for candidate in self._pool.state().candidates:
            if candidate.leases is not None:
                alias = candidate.endpoint.alias
                self._pool.record(Heard(alias, LeasesChanged(shared=False)))

    def lose(self, reason: str) -> None:
        """Go on without the board, for a while."""
        self.close()
        self._retry_at = self._pool.elapsed() + RETRY_SECONDS
        self.notice = f"State is kept in memory only: {printable(reason)}"
        self.unshare()

    def close(self) -> None:
        board, self._board, self._journal = self._board, None, None
        self.leasing = None
        if board is not None:
            try:
                board.close()
            except (BoardBusyError, BoardGoneError):
                return

    def after_fork(self) -> None:
        """In a forked child: the board is the parent's."""
        self.notice = "This process was forked: its state is kept in memory."
        board, self._board, self._journal = self._board, None, None
        self.leasing = None
        if board is not None:
            board.after_fork()

    def _open(self) -> None:
        """Open the board, or go on where it was too busy before."""
        if self._board is None:
            self._board = self._open_board()
        board = self._board
        self._places = dict(self._pool.places(board.salt))
        if self._journal is None and isinstance(board, FileBoard):
            self._journal = JournalFile(board.database, board.name, self._pool.now())
        standing = board.standing()
        known = max([self._since, *self._own])
        if known and all(fact.number != known for fact in board.hear(known - 1)):
            self._remind(standing)
        for fact in standing.facts:
            self._record(fact)
        self._since = standing.newest
        if isinstance(board, ListeningBoard):
            board.listen(self._ring)
        self.leasing = Leasing(board, self._pool.record)
        self.notice = ""

    def _remind(self, standing: PresentStanding) -> None:
        """Send again what a board that lost its facts does not know any more."""
        self._fold()
        stated = {
            alias: [fact.fact for fact in standing.facts if fact.place == place]
            for alias, place in self._places.items()
        }
        waiting = {unsent.publication.alias for unsent in self._unsent}
        for one in forgotten(self.folded, stated, self._pool.now()):
            if one.alias not in waiting:
                self._unsent.append(_Unsent(one, self._pool.elapsed()))

    def _fold(self) -> None:
        """Fold the new entries, and collect the facts that they make."""
        while self._pending:
            line = self._pending.popleft()
            if line.number <= self._last:
                continue
            if line.number != self._last + 1:
                # Entries were lost, as this thread was held up: begin again from the state.
                base = self._pool.checkpoint()
                self.folded, self._last = base.state, base.number
                self._mode, self._options = base.mode, base.options
                self._write_from(base)
                continue
            if len(self._unwritten) == MOST_UNWRITTEN:
                self._write_from(self._checkpoint())
            before, self._last = self.folded, line.number
            self.folded = update(before, line.entry, line.now)
            self._unwritten.append(line)
            if isinstance(line.entry, Configured):
                self._mode, self._options = line.entry.mode, line.entry.options
                if self._board is not None:
                    self._places = dict(self._pool.places(self._board.salt))
            if line.number % BETWEEN_CHECKPOINTS == 0:
                self._checkpoints.append(self._checkpoint())
            for one in publications(before, line.entry, self.folded, line.now):
                self._unsent.append(_Unsent(one, self._pool.elapsed()))

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self._last, self.folded, self._mode, self._options)

    def _write_from(self, base: Checkpoint) -> None:
        """Write from this state on: drop what is unwritten before it."""
        self._base = base
        self._unwritten.clear()
        self._checkpoints.clear()

    def _lease(self, wanted: Callable[[], Sequence[LeaseWanted]]) -> None:
        leasing = self.leasing
        if leasing is None:
            return
        now, elapsed = self._pool.now(), self._pool.elapsed()
        wants = wanted()
        self._fold()
        leasing.step(self.folded, self._places, wants, now, elapsed)
        self._fold()

    def _send(self) -> None:
        """Publish what is unsent, oldest first. What waited has that much less of its time left."""
        board = self._reachable()
        while self._unsent:
            unsent = self._unsent[0]
            publication, fact = unsent.publication, unsent.publication.fact
            place = self._places.get(publication.alias)
            if isinstance(fact, PlaceDisabled):
                held_up = timedelta(seconds=self._pool.elapsed() - unsent.since)
                fact = evolve(fact, remaining=fact.remaining - held_up)
            elif isinstance(fact, PlaceRecovered):
                met = [self._numbers.get(attempt, 0) for attempt in publication.after]
                fact = PlaceRecovered(max([fact.heard_of, *met]))
            elif isinstance(fact, RefusalRefuted) and fact.conversation is not None:
                # It is made of what the client sent.
                name = fingerprint(board.salt, fact.conversation)
                fact = evolve(fact, conversation=name)
            if place is not None:
                number = board.publish(place, fact, publication.attempt)
                self._own[number] = publication.alias
                if isinstance(fact, PlaceDisabled):
                    self._numbers[publication.attempt] = number
            self._unsent.popleft()
        for known in (self._own, self._numbers):
            while len(known) > MOST_NUMBERED:
                known.pop(next(iter(known)))

    def _hear(self) -> None:
        board = self._reachable()
        while facts := board.hear(self._since):
            for fact in facts:
                self._record(fact)
                self._since = fact.number
        self.heard_at = self._pool.elapsed()

    def _record(self, fact: BoardFact) -> None:
        publisher = self._own.get(fact.number) if fact.own else None
        for alias, place in self._places.items():
            if place == fact.place:
                attempt = fact.attempt if alias == publisher else 0
                self._pool.record(Heard(alias, fact.fact, fact.number, attempt))

    def _write(self) -> None:
        journal = self._journal
        if journal is None:
            self._write_from(self._checkpoint())
            return
        journal.write(self._unwritten, self._places, (self._base, *self._checkpoints))
        self._write_from(self._checkpoint())
        self.totals = journal.totals(self._places)
        self._written_at = self._pool.elapsed()

    def _reachable(self) -> Board:
        if self._board is None:
            raise BoardGoneError("the board is closed")
        return self._board
