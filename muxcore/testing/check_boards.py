"""`check_board`: whether a board keeps what the shell relies on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

from muxcore.core.outcomes import Fault, Limit, Refusal
from muxcore.core.sharing.facts import (
    Fact,
    PlaceDisabled,
    PlaceRecovered,
    PlaceReset,
    RefusalRefuted,
    WindowLearnt,
)
from muxcore.plugins.board import Board, BoardFact, BoardGoneError
from muxcore.testing.faults import FaultyPluginError

MINUTE = timedelta(minutes=1)
FACTS: tuple[Fact, ...] = (
    PlaceDisabled(Limit.RATE, MINUTE, 2, MINUTE),
    PlaceDisabled(Fault.AUTH, MINUTE),
    PlaceRecovered(3),
    WindowLearnt(8000),
    RefusalRefuted(Refusal.REQUEST, "conversation"),
    PlaceReset(),
)
SLACK = timedelta(seconds=30)
"""A fact grows older while it is checked; no machine is slower than this."""
MOST_PAGES = 10_000


def check_board(make: Callable[[], Board]) -> None:
    """Give a board facts and leases, and a second and a third board that share with it.

    Each call of `make` returns another board which shares with all those before, as another
    process would. The first must be empty. Raise a `FaultyPluginError` for the first fault.
    """
    with ExitStack() as stack:

        def made() -> Board:
            board = make()
            stack.callback(_close, board)
            return board

        one, two = made(), made()
        _expect(
            one.salt == two.salt and len(one.salt) > 0, "the salts of two boards differ"
        )
        _check_facts(one, two)
        _check_newcomer(one, made())
        _check_leases(one, two)
        _check_caps_that_differ(one, two)
        _check_end(one, two)
        _check_return(one, two, made)


def _check_facts(one: Board, two: Board) -> None:
    _expect(not _heard(one, 0), "a new board has facts already")
    numbers = [one.publish("here", fact, 5) for fact in FACTS]
    numbers.append(two.publish("there", FACTS[0], 6))
    _expect(numbers == sorted(set(numbers)), f"numbers do not grow: {numbers}")
    _expect(numbers[0] > 0, "numbers begin below 1")
    for board, own in ((one, "here"), (two, "there")):
        heard = _heard(board, 0)
        _expect([f.number for f in heard] == numbers, "facts are lost or out of order")
        for fact, original in zip(heard, (*FACTS, FACTS[0]), strict=True):
            _expect(_is_like(fact.fact, original), f"{original} came back as {fact.fact}")
            _expect(fact.own == (fact.place == own), f"own is wrong for {fact}")
            wanted = 0 if not fact.own else 5 if own == "here" else 6
            _expect(fact.attempt == wanted, f"the attempt of {fact} is not {wanted}")
        later = _heard(board, numbers[2])
        _expect([f.number for f in later] == numbers[3:], "`since` is not heeded")


def _check_newcomer(one: Board, newcomer: Board) -> None:
    standing = newcomer.standing()
    last = max(fact.number for fact in _heard(one, 0))
    _expect(standing.newest == last, "the standing does not name the newest fact")
    disabled = [f for f in standing.facts if isinstance(f.fact, PlaceDisabled)]
    _expect(bool(disabled), "the standing lacks a limit that still holds")
    _expect(not any(f.own for f in standing.facts), "a newcomer has facts of its own")
    _expect(not _heard(newcomer, standing.newest), "facts after the newest one")


def _check_leases(one: Board, two: Board) -> None:
    first, second = one.take("slots", 2), two.take("slots", 2)
    _expect(first.granted and second.granted, "two slots of two are not granted")
    third, fourth = one.take("slots", 2), two.take("slots", 2)
    _expect(
        not third.granted and not fourth.granted, "more slots are granted than there are"
    )
    elsewhere = one.take("elsewhere", 1)
    _expect(elsewhere.granted, "the slots of two places are mixed up")
    one.renew()
    two.renew()
    one.give_back(first)
    one.give_back(first)
    _expect(not two.take("slots", 2, fourth.ticket).granted, "a later request comes first")
    third = one.take("slots", 2, third.ticket)
    _expect(third.granted, "a slot that was given back is not granted")
    two.give_back(second)
    fourth = two.take("slots", 2, fourth.ticket)
    _expect(fourth.granted, "a waiting request is forgotten")
    for board, lease in ((one, third), (two, fourth), (one, elsewhere)):
        board.give_back(lease)
    _expect(two.take("elsewhere", 1).granted, "a slot is lost")


def _check_caps_that_differ(one: Board, two: Board) -> None:
    held = [one.take("differ", 3) for _ in range(3)]
    _expect(all(lease.granted for lease in held), "three slots of three are not granted")
    small = two.take("differ", 1)
    _expect(not small.granted, "a smaller cap is not kept")
    for lease in held:
        one.give_back(lease)
    small = two.take("differ", 1, small.ticket)
    _expect(small.granted, "a smaller cap never gets a slot")
    two.give_back(small)


def _check_end(one: Board, two: Board) -> None:
    held = two.take("ending", 1)
    waiting = one.take("ending", 1)
    _expect(held.granted and not waiting.granted, "one slot of one is granted twice")
    two.close()
    waiting = one.take("ending", 1, waiting.ticket)
    _expect(waiting.granted, "the leases of a closed board do not end")
    one.give_back(waiting)
    try:
        two.publish("here", FACTS[0])
    except BoardGoneError:
        return
    raise FaultyPluginError("a closed board takes facts")


def _check_return(one: Board, two: Board, made: Callable[[], Board]) -> None:
    two.close()
    known = one.standing().newest
    number = one.publish("here", FACTS[0])
    back = made()
    heard = [fact.number for fact in _heard(back, known)]
    _expect(heard == [number], "a board that comes back has missed a fact")


def _heard(board: Board, since: int) -> list[BoardFact]:
    found: list[BoardFact] = []
    for _ in range(MOST_PAGES):
        page = board.hear(since)
        if not page:
            return found
        found.extend(page)
        _expect(page[-1].number > since, "a page does not go on")
        since = page[-1].number
    raise FaultyPluginError("hearing has no end")


def _is_like(heard: Fact, original: Fact) -> bool:
    """Whether they are equal, but for the time that has passed."""
    if isinstance(heard, PlaceDisabled) and isinstance(original, PlaceDisabled):
        passed = original.remaining - heard.remaining
        same = (heard.cause, heard.failures, heard.hint) == (
            original.cause,
            original.failures,
            original.hint,
        )
        return same and timedelta() <= passed <= SLACK
    return heard == original


def _expect(truth: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not truth:
        raise FaultyPluginError(otherwise)


def _close(board: Board) -> None:
    board.close()
