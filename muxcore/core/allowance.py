"""Allowances: how much of their limits providers say is left, and whether a call fits.

An answer announces `Allowance`s. `Headroom` keeps the newest of each limit with what calls that
began later are expected to take, and says when there is room for a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from attrs import evolve, frozen

NO_TIME = timedelta()
MINUTE = timedelta(minutes=1)
TRUSTED_FOR = timedelta(minutes=15)
"""How long an announcement counts, as long as a spent quota: then the endpoint is tried again,
and its answer announces anew. So a limit of a month disables nothing for a month."""
FIRST_MARGIN, LARGEST_MARGIN = 50, 500
"""The part of a limit, in thousandths, that is kept free after a first surprise, and at most."""
MARGIN_LASTS = 32
"""Each success takes one part in this many off the margin."""
CACHE_LASTS = timedelta(minutes=5)
"""Providers keep a prompt cache for about as long."""
MOST_PROMPTS = 256
"""How many prompts are remembered for one endpoint: the newest."""


class AllowanceKind(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input tokens"
    UNCACHED_INPUT_TOKENS = "uncached input tokens"
    UNCACHED_TOKENS = "uncached tokens"
    """Input that no cache served, and output."""
    OUTPUT_TOKENS = "output tokens"


UNCACHED = (AllowanceKind.UNCACHED_INPUT_TOKENS, AllowanceKind.UNCACHED_TOKENS)


@frozen
class Allowance:
    """How much of a limit is left, as one answer announced it.

    `limit` is the size of the bucket, at least 1 and at least `remaining`. `resets_at` is
    when it is full again; providers with a token bucket refill it continuously until then.
    `window` is the period that the limit applies to. Each is None where it is not announced.
    Kind and window together identify a limit: a provider may count tokens by the minute and
    by the month.
    """

    kind: AllowanceKind
    remaining: int
    limit: int | None = None
    resets_at: datetime | None = None
    window: timedelta | None = None


@frozen
class Demand:
    """What one call is expected to take, in tokens.

    `uncached` is the part of its prompt that no cache serves.
    """

    prompt: int = 0
    uncached: int = 0
    answer: int = 0

    def of(self, kind: AllowanceKind) -> int:
        """Return what it takes of a limit of this kind."""
        match kind:
            case AllowanceKind.REQUESTS:
                return 1
            case AllowanceKind.TOKENS:
                return self.prompt + self.answer
            case AllowanceKind.INPUT_TOKENS:
                return self.prompt
            case AllowanceKind.UNCACHED_INPUT_TOKENS:
                return self.uncached
            case AllowanceKind.UNCACHED_TOKENS:
                return self.uncached + self.answer
            case AllowanceKind.OUTPUT_TOKENS:
                return self.answer
            case _ as never:
                assert_never(never)


@frozen
class Charge:
    """What an attempt, begun at `at` and still under way, is expected to take."""

    attempt: int
    demand: Demand
    at: datetime


@frozen
class CachedPrompt:
    """The tokens that a conversation's last call here may have left in the cache, at `at`."""

    conversation: str
    tokens: int
    at: datetime


@frozen
class Announcement:
    """The newest allowance of one limit: the answer to `attempt` announced it at `at`.

    `resets_at` is when it is full again, assumed where the provider does not announce it.
    `gradual` is whether it is known to be refilled continuously, and not all at once.
    """

    allowance: Allowance
    attempt: int
    at: datetime
    resets_at: datetime
    gradual: bool = False

    def is_of(self, allowance: Allowance) -> bool:
        """Whether both are of the same limit."""
        own = self.allowance
        return own.kind is allowance.kind and own.window == allowance.window

    def left(self, now: datetime) -> int | None:
        """Return how much is left at `now`, without what began since; None if unknown."""
        allowance, limit = self.allowance, self.allowance.limit
        if now >= self.resets_at:
            return limit
        if not self.gradual or limit is None:
            return allowance.remaining
        passed = (now - self.at) / (self.resets_at - self.at)
        return allowance.remaining + int(passed * (limit - allowance.remaining))

    def holds_at(self, amount: int) -> datetime:
        """Return when this much is left. For more than the limit, that is when it is full."""
        allowance, limit = self.allowance, self.allowance.limit
        if amount <= allowance.remaining:
            return self.at
        if not self.gradual or limit is None or amount >= limit:
            return self.resets_at
        missing = (amount - allowance.remaining) / (limit - allowance.remaining)
        return self.at + (self.resets_at - self.at) * missing


@frozen
class Headroom:
    """What is left of an endpoint's limits.

    `charges` are of attempts which began after the newest announcement, by attempt number.
    `margin` is the part of each limit that is kept free, in thousandths: estimates are rough,
    and others may share the limit. `prompts` are those that may be cached, the newest last,
    where a limit counts only what no cache serves.
    """

    announcements: tuple[Announcement, ...]
    charges: tuple[Charge, ...] = ()
    margin: int = 0
    prompts: tuple[CachedPrompt, ...] = ()

    def fits_at(self, demand: Demand, now: datetime) -> datetime:
        """Return when there is room for a call of this demand; `now` if there is."""
        moments = [self._fits_at(one, demand) for one in self.trusted(now)]
        return max([now, *moments])

    def trusted(self, now: datetime) -> tuple[Announcement, ...]:
        """Return the announcements that are young enough to count."""
        return tuple(
            one for one in self.announcements if one.at <= now < one.at + TRUSTED_FOR
        )

    def left(self, announcement: Announcement, now: datetime) -> int | None:
        """Return what is left of a limit, less what calls under way take; None if unknown."""
        left = announcement.left(now)
        return None if left is None else max(left - self._taken(announcement), 0)

    def _fits_at(self, announcement: Announcement, demand: Demand) -> datetime:
        allowance = announcement.allowance
        kind, limit = allowance.kind, allowance.limit
        needed = demand.of(kind)
        if limit is not None:
            # What is larger than the limit is tried when it is full.
            needed = min(needed + limit * self.margin // 1000, limit)
        taken = self._taken(announcement)
        moment = announcement.holds_at(needed + taken)
        if taken and limit is not None and needed + taken > limit:
            # Even a full one is taken by calls under way: one period after the last began,
            # at the latest, it is full again.
            period = allowance.window or announcement.resets_at - announcement.at
            moment = max(moment, self.charges[-1].at + period)
        return min(moment, announcement.at + TRUSTED_FOR)

    def _taken(self, announcement: Announcement) -> int:
        """Return what attempts which began after this announcement are expected to take."""
        kind = announcement.allowance.kind
        later = (c for c in self.charges if c.attempt > announcement.attempt)
        return sum(charge.demand.of(kind) for charge in later)

    def cached(self, conversation: str | None, size: int, now: datetime) -> int:
        """Return how many tokens of a conversation, of this size by now, may be cached."""
        for prompt in reversed(self.prompts):
            if prompt.conversation == conversation:
                # One that was larger has been compacted since, which changes its beginning.
                warm = prompt.at <= now < prompt.at + CACHE_LASTS and prompt.tokens <= size
                return prompt.tokens if warm else 0
        return 0

    def after_serving(self, conversation: str, tokens: int, now: datetime) -> Headroom:
        """Return the headroom after an answer to a conversation, of this size by now."""
        if all(one.allowance.kind not in UNCACHED for one in self.announcements):
            return self
        cold = now - CACHE_LASTS
        others = [p for p in self.prompts if p.at > cold and p.conversation != conversation]
        prompts = (*others[1 - MOST_PROMPTS :], CachedPrompt(conversation, tokens, now))
        # Written out: a quarter of the time of `evolve`.
        return Headroom(self.announcements, self.charges, self.margin, prompts)

    def after_start(self, attempt: int, demand: Demand, now: datetime) -> Headroom:
        """Return the headroom after an attempt began."""
        return evolve(self, charges=(*self.charges, Charge(attempt, demand, now)))

    def after_end(self, attempt: int) -> Headroom:
        """Return the headroom after an attempt ended: no later answer counts on it."""
        charges = tuple(c for c in self.charges if c.attempt != attempt)
        return self if charges == self.charges else evolve(self, charges=charges)

    def after_success(self) -> Headroom:
        """Return the headroom with a smaller margin."""
        return evolve(self, margin=self.margin - -(-self.margin // MARGIN_LASTS))

    def after_limit(self, attempt: int) -> Headroom:
        """Return the headroom with a larger margin, if there seemed to be room for this attempt."""
        if all(charge.attempt != attempt for charge in self.charges):
            return self
        margin = min(max(FIRST_MARGIN, 2 * self.margin), LARGEST_MARGIN)
        return evolve(self, margin=margin)


def announced(
    headroom: Headroom | None,
    allowances: Sequence[Allowance],
    attempt: int,
    now: datetime,
    age: timedelta = NO_TIME,
) -> Headroom | None:
    """Return the headroom after the answer to `attempt` announced these allowances.

    `age` is how long before `now` the server counted: most do when they take a request, and
    send what was left with the first content.

    The newest of each limit is kept. Attempts have the order of their numbers: a server has
    counted those which began before the one that it answers.
    """
    if not allowances:
        return headroom
    if headroom is None:
        headroom = Headroom(())
    announcements = list(headroom.announcements)
    for allowance in allowances:
        if allowance.resets_at is not None and age:
            allowance = evolve(allowance, resets_at=allowance.resets_at - age)  # noqa: PLW2901
        former = next((one for one in announcements if one.is_of(allowance)), None)
        if former is None:
            announcements.append(_announcement(None, allowance, attempt, now - age))
        elif former.attempt <= attempt:
            place = announcements.index(former)
            announcements[place] = _announcement(former, allowance, attempt, now - age)
    charges = tuple(c for c in headroom.charges if c.attempt > attempt)
    return Headroom(tuple(announcements), charges, headroom.margin, headroom.prompts)


def _announcement(
    former: Announcement | None, allowance: Allowance, attempt: int, now: datetime
) -> Announcement:
    if allowance.resets_at is not None:
        gradual = former is not None and _is_gradual(former, allowance, now)
        return Announcement(allowance, attempt, now, allowance.resets_at, gradual)
    # Without a reset, a limit is full again one period after it was last seen to be refilled.
    resets_at = now + (allowance.window or MINUTE)
    refilled = former is None or allowance.remaining > former.allowance.remaining
    if former is not None and not refilled and former.resets_at > now:
        resets_at = former.resets_at
    return Announcement(allowance, attempt, now, resets_at)


def _is_gradual(former: Announcement, allowance: Allowance, now: datetime) -> bool:
    """Whether the time until it is full is in proportion to what is missing.

    Only two different amounts can show it; one that is refilled all at once is full at the
    same moment, whatever is missing.
    """
    before, limit = former.allowance, allowance.limit
    if limit is None or before.limit != limit or allowance.resets_at is None:
        return False
    missing, missed = limit - allowance.remaining, limit - before.remaining
    if min(missing, missed) * 10 > max(missing, missed) * 9 or not min(missing, missed):
        return former.gradual
    expected = (former.resets_at - former.at) / missed * missing
    return abs(allowance.resets_at - now - expected) <= expected / 10
