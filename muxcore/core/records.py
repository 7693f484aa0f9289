"""The records: what every decision is a function of.

All are frozen, with slots. Times are aware `datetime`s in UTC, durations are `timedelta`s,
sizes are tokens. A `PoolState` holds everything that is kept between two calls, so the
sequence of `(now, outcome)` rebuilds it exactly (rule 13).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from attrs import field, frozen

from muxcore.core.allowance import Demand, Headroom
from muxcore.core.endpoints import AnnouncedLimits as AnnouncedLimits
from muxcore.core.endpoints import Endpoint as Endpoint
from muxcore.core.endpoints import Policy as Policy
from muxcore.core.endpoints import Sticky as Sticky
from muxcore.core.endpoints import Wire as Wire
from muxcore.core.endpoints import expect_distinct as expect_distinct
from muxcore.core.outcomes import TRANSIENT_KINDS, Fault, Limit, PickReason
from muxcore.errors import InvalidArgumentError

LAST_RESORT_AFTER_ERROR = tuple(
    timedelta(seconds=seconds) for seconds in (1, 2, *(4,) * 7, 12)
)
"""How long after its first, second and every later failure a model may be a last resort.

Vibe repeats a failed call about 18 times in five minutes. This schedule comes to 33 attempts
in that time, however many callers repeat, so no provider sees more than twice what vibe by
itself would send.
"""

LAST_RESORT_AFTER_LIMIT = timedelta(seconds=2)
"""The same after a rate limit without a hint; it doubles with each further one."""

ESTIMATES_ARE_LOW = 1.25
"""Four bytes for a token are up to a quarter too many, in code above all."""
LARGE_GROWTH = 3000
"""By how many tokens a conversation may grow from one call to the next: a file, mostly."""
AVERAGE_OVER = 8
"""The newest time to first content counts one part in this many."""


def expect_aware(now: datetime) -> None:
    """Raise `InvalidArgumentError` if `now` is no moment with a time zone."""
    if getattr(now, "tzinfo", None) is None:
        raise InvalidArgumentError(
            f"now is {now!r}, which has no time zone, expected an aware datetime, such as"
            " datetime.now(UTC)"
        )


@frozen
class Cooldown:
    """An interval `since <= now < until` in which an endpoint is disabled, for one cause.

    It is an interval so that a clock set back ends it. It is kept after it ends: until a
    later attempt responds (`proven`), the endpoint is on probation. A last resort which
    responds during the cooldown skips the probation but does not shorten the cooldown.
    """

    since: datetime
    until: datetime
    cause: Limit | Fault
    newest: int
    """The newest attempt at the time of the last failure. Only later ones are evidence."""
    failures: int
    """Consecutive failures, all permanent or all transient. Parallel ones count once."""
    failed_at: datetime
    hint: timedelta | None = None
    proven: bool = False
    fact: int = 0
    """The newest fact of the board in it, by number; 0 if the board has none."""
    unnumbered: int = 0
    """The last own attempt whose failure has no number on the board yet; 0 for none."""

    def active(self, now: datetime) -> bool:
        return self.since <= now < self.until

    @property
    def permanent(self) -> bool:
        """Whether another try soon is pointless: quota, payment, key, model, persistent."""
        return self.cause not in TRANSIENT_KINDS

    @property
    def opens_at(self) -> datetime:
        """When the endpoint may be a last resort: tried because no other can serve."""
        if self.permanent:
            return self.until
        if isinstance(self.cause, Fault):
            step = min(self.failures, len(LAST_RESORT_AFTER_ERROR)) - 1
            pause = max(LAST_RESORT_AFTER_ERROR[step], self.hint or timedelta())
        else:
            # 2 ** 12 seconds exceed the longest hint, so the doubling can stop there.
            pause = self.hint or LAST_RESORT_AFTER_LIMIT * 2 ** min(self.failures - 1, 12)
        return min(self.failed_at + pause, self.until)


@frozen
class Health:
    """Whether an endpoint may be used: two separate cooldowns, and its attempts under way.

    `limited` is about its rate or quota, `broken` about errors. The end of one says nothing
    about the other.
    """

    limited: Cooldown | None = None
    broken: Cooldown | None = None
    under_way: tuple[int, ...] = ()
    """The numbers of the attempts in flight, ascending."""

    @property
    def in_flight(self) -> int:
        return len(self.under_way)

    @property
    def cooldowns(self) -> tuple[Cooldown, ...]:
        return tuple(s for s in (self.limited, self.broken) if s is not None)

    @property
    def disabled_until(self) -> datetime | None:
        """The later end of its cooldowns, past or to come; None without any."""
        return max((cooldown.until for cooldown in self.cooldowns), default=None)

    def active_cooldown(self, now: datetime) -> Cooldown | None:
        """Return the cooldown which disables it now (of two, the one that ends later)."""
        active = [cooldown for cooldown in self.cooldowns if cooldown.active(now)]
        return max(active, key=lambda cooldown: cooldown.until, default=None)

    @property
    def unproven(self) -> bool:
        """Whether no response has followed a cooldown yet: after its end, it is probation."""
        return any(not cooldown.proven for cooldown in self.cooldowns)

    def probed(self, now: datetime) -> bool:
        """Whether its probe is under way: an attempt which began after the failure."""
        if not self.under_way:
            return False
        latest = self.under_way[-1]
        return any(
            latest > cooldown.newest and (not cooldown.proven or cooldown.active(now))
            for cooldown in self.cooldowns
        )

    def opens_at(self, now: datetime) -> datetime:
        """Return the earliest moment, `now` or later, at which it may be a last resort."""
        return max(
            [
                now,
                *(cooldown.opens_at for cooldown in self.cooldowns if cooldown.active(now)),
            ]
        )

    def due_since(self, now: datetime) -> datetime:
        """Return since when it may be a last resort: of several, the earliest goes first."""
        cooldowns = [c.opens_at for c in self.cooldowns if c.active(now)]
        return max(cooldowns, default=now)

    def frees_itself_at(self, now: datetime) -> datetime | None:
        """Return when its cooldown ends without a probe, because one has already responded."""
        cooldown = self.active_cooldown(now)
        return None if cooldown is None or self.unproven else cooldown.until


@frozen
class Tally:
    """Counts of an endpoint's ended attempts. `tokens_in` includes the cached tokens."""

    succeeded: int = 0
    rate_limited: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    first_content: timedelta | None = None
    """Time to first content: a moving average in which the newest counts one eighth."""
    first_content_at: datetime | None = None
    latest_first_content: timedelta | None = None
    """The newest of these times by itself, for modes that weigh it in their own way."""
    refuted: int = 0
    """How many of the rejected requests another model took."""
    newest_success: int = 0
    """The highest number of a successful attempt."""

    @property
    def ended(self) -> int:
        answered = self.succeeded + self.rate_limited + self.failed
        return answered + self.rejected + self.cancelled

    def counted(
        self,
        *,
        rate_limited: int = 0,
        failed: int = 0,
        rejected: int = 0,
        cancelled: int = 0,
    ) -> Tally:
        """Return the tally with these added."""
        # Written out: a quarter of the time of `evolve`.
        return Tally(
            self.succeeded,
            self.rate_limited + rate_limited,
            self.failed + failed,
            self.rejected + rejected,
            self.cancelled + cancelled,
            self.tokens_in,
            self.tokens_cached,
            self.tokens_out,
            self.first_content,
            self.first_content_at,
            self.latest_first_content,
            self.refuted,
            self.newest_success,
        )

    def first_contents(
        self, after: timedelta | None, now: datetime
    ) -> tuple[timedelta | None, datetime | None, timedelta | None]:
        """Return the times of first contents with one more: the average, its time, the newest."""
        average = self.first_content
        if after is None:
            return average, self.first_content_at, self.latest_first_content
        moved = after if average is None else average + (after - average) / AVERAGE_OVER
        return moved, now, after


@frozen
class Refutation:
    """An attempt whose refusal another model refuted, and the conversation it was for."""

    attempt: int
    conversation: str | None


@frozen
class FreeLeases:
    """Leases of the board that are free to use: slots below the cap, and probes."""

    slots: int = 0
    probes: int = 0


@frozen
class Candidate:
    """An endpoint and what is known about it. A strategy is shown these.

    `learnt_window` is the context window that the server has named in a refusal.
    `refutations` are the newest since its last success, by attempt number. `headroom` is what
    is left of its limits, None if it announces none.
    """

    endpoint: Endpoint
    health: Health = Health()
    tally: Tally = Tally()
    learnt_window: int | None = None
    refutations: tuple[Refutation, ...] = ()
    headroom: Headroom | None = None
    leases: FreeLeases | None = None
    """None where no board shares this place: the cap counts within the process."""

    @property
    def is_full(self) -> bool:
        """Whether attempts under way take every slot, here or in other processes."""
        cap = self.endpoint.max_concurrent
        if cap is None:
            return False
        leases = self.leases
        return len(self.health.under_way) >= cap or (
            leases is not None and not leases.slots
        )

    def needs_probe_lease(self, now: datetime) -> bool:
        """Whether its probe is due, and the board has not granted it to this process."""
        leases, health = self.leases, self.health
        return (
            leases is not None
            and not leases.probes
            and health.unproven
            and health.active_cooldown(now) is None
        )

    @property
    def context_window(self) -> int | None:
        """The smaller of the configured and the learnt window, in tokens; None if unknown."""
        learnt, configured = self.learnt_window, self.endpoint.context_window
        if learnt is None or configured is None:
            return learnt or configured
        return min(learnt, configured)

    def occupied(self, now: datetime) -> bool:
        """Whether attempts under way keep others out: its probe, or as many as its cap."""
        return self.health.probed(now) or self.needs_probe_lease(now) or self.is_full

    def demand(self, call: Call, now: datetime) -> Demand | None:
        """Estimate what the call takes of its limits at `now`; None if it announces none."""
        if self.headroom is None:
            return None
        pin, tally = call.pin, self.tally
        # A call that waits until there is just enough must not be larger than expected.
        prompt, cached = int((call.prompt_tokens or 0) * ESTIMATES_ARE_LOW), 0
        if pin is not None and pin.tokens:
            # The last call was counted, which is better than an estimate.
            prompt = max(call.prompt_tokens or 0, pin.tokens + LARGE_GROWTH)
            cached = pin.tokens
            if pin.alias != self.endpoint.alias:
                cached = self.headroom.cached(call.conversation, pin.tokens, now)
        answer = tally.tokens_out // tally.succeeded if tally.succeeded else 0
        return Demand(prompt, prompt - cached, answer)

    def has_room_at(self, call: Call, now: datetime) -> datetime:
        """Return when its limits have room for the call; `now` if they have."""
        demand = self.demand(call, now)
        if self.headroom is None or demand is None:
            return now
        return self.headroom.fits_at(demand, now)

    @property
    def cost(self) -> float:
        """Dollars spent, by the prices of the config."""
        tally = self.tally
        return self.endpoint.cost_of(tally.tokens_in, tally.tokens_cached, tally.tokens_out)


@frozen
class Pin:
    """The model which served a conversation's last call, and when.

    `tokens` is the size of that call with its answer: what may be cached there now. `refusers`
    are the models which refused in the same turn what another model took.
    """

    conversation: str
    alias: str
    at: datetime
    tokens: int = 0
    refusers: tuple[str, ...] = ()


@frozen
class PoolState:
    """All that is kept between calls. `attempts` is the number of the newest attempt.

    `memory` belongs to the mode and is made of plain JSON values.
    """

    candidates: tuple[Candidate, ...]
    policy: Policy = Policy()
    memory: object = None
    attempts: int = 0
    pins: tuple[Pin, ...] = ()
    last_used: str | None = None

    @classmethod
    def of(cls, *endpoints: Endpoint, policy: Policy = Policy()) -> PoolState:
        """Make the initial state of a pool, in pool order.

        Raise `InvalidArgumentError` for what is no endpoint, or two of the same alias.
        """
        expect_distinct(endpoints)
        return cls(tuple(Candidate(endpoint) for endpoint in endpoints), policy)

    def find(self, alias: str) -> Candidate | None:
        """Return the candidate of this alias, None if the pool has none."""
        for candidate in self.candidates:
            if candidate.endpoint.alias == alias:
                return candidate
        return None

    def __getitem__(self, alias: str) -> Candidate:
        candidate = self.find(alias)
        if candidate is None:
            raise KeyError(alias)
        return candidate


@frozen
class Call:
    """What is known about the call at hand when a model is chosen for it.

    `tried` holds the alias of each attempt so far, in order. `excluded` are those that are not
    tried again. `refused` are those that refused the request for another reason than its
    length; `outgrown` are those for which it was too long, and `larger_than` is the largest
    window that was too small. `max_wait` limits the waits for a disabled model, if it is less
    than the policy's; waits for a slot of a busy one keep the policy's limit.

    `select` fills in the rest: `pin`, where this conversation is, for the mode; and
    `passed_over`, the models that refused in this turn what another model took.
    """

    only: str | None = None
    conversation: str | None = None
    new_turn: bool = True
    prompt_tokens: int | None = None
    deadline: datetime | None = None
    tried: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    waited: timedelta = timedelta()
    max_wait: timedelta | None = None
    larger_than: int | None = None
    refused: tuple[str, ...] = ()
    outgrown: tuple[str, ...] = ()
    pin: Pin | None = None
    passed_over: tuple[str, ...] = ()

    @property
    def attempts(self) -> int:
        return len(self.tried)

    @property
    def refusers(self) -> tuple[str, ...]:
        """All models that refused the request."""
        return (*self.refused, *self.outgrown)

    def pinned(self, pin: Pin, passed_over: tuple[str, ...]) -> Call:
        """Return the call with what `select` fills in."""
        # Written out: `evolve` takes twice the time, and this is part of nearly every call.
        return Call(
            self.only,
            self.conversation,
            self.new_turn,
            self.prompt_tokens,
            self.deadline,
            self.tried,
            self.excluded,
            self.waited,
            self.max_wait,
            self.larger_than,
            self.refused,
            self.outgrown,
            pin,
            passed_over,
        )

    @property
    def repeats(self) -> int:
        """How many attempts went to an endpoint which this call had tried before."""
        return len(self.tried) - len(set(self.tried))


class WaitReason(StrEnum):
    """What a call waits for, or why it stops."""

    BUSY = "every model that could serve is busy"
    DISABLED = "every model that could serve is disabled"
    TRIED = "every model was tried"
    UNFIT = "no model of the pool can take this request"
    DEADLINE = "the call's time is over"
    SPENT = "every model that could serve has spent its announced limit"


@frozen
class Picked:
    """Attempt this endpoint; hand `memory` and `demand` on to `Started`."""

    endpoint: Endpoint
    reason: PickReason
    memory: object = field(default=None, repr=False)
    demand: Demand | None = field(default=None, repr=False)


@frozen
class Wait:
    """Look again when anything changes, and at `until` at the latest."""

    until: datetime
    reason: WaitReason


@frozen
class Exhausted:
    """No model can serve this call. One may be tried at `retry_at`, if that is known."""

    retry_at: datetime | None
    reason: WaitReason


Choice: TypeAlias = Picked | Wait | Exhausted
