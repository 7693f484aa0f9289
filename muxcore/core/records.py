"""The records that every decision is a function of.

All are frozen, with slots. Times are aware `datetime`s in UTC, durations `timedelta`s, sizes
tokens. A `PoolState` holds everything that is remembered between two calls, so the sequence
of `(now, outcome)` rebuilds it exactly (rule 13).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from attrs import field, frozen

from muxcore.core.outcomes import TRANSIENT_KINDS, Fault, Limit

LAST_RESORT_AFTER_ERROR = tuple(
    timedelta(seconds=seconds) for seconds in (1, 2, *(4,) * 7, 12)
)
"""How long after its first, second and every later failure a model may be a last resort.

Vibe repeats a failed call about 18 times in five minutes. These come to 32 attempts in that
time, however many callers repeat: no provider sees more than twice what vibe would send it.
"""

LAST_RESORT_AFTER_LIMIT = timedelta(seconds=2)
"""The same after a rate limit without a hint; it doubles with every further one."""

MINUTE = timedelta(minutes=1)


class Sticky(StrEnum):
    """For how long the calls of one conversation stay on one model."""

    CALL = "call"
    TURN = "turn"
    SESSION = "session"


@frozen
class Wire:
    """How an endpoint is spoken to. Carried for its backend; nothing in the core reads it.

    `key_variable` names the environment variable of the key ("" for none); the key itself is
    never in a record. Prices are not here: choosing may depend on them.
    """

    api_base: str = ""
    key_variable: str = ""
    extra_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    reasoning_field_name: str = "reasoning_content"
    emits_finish_reason: bool = True
    temperature: float | None = None
    top_p: float | None = None
    thinking: str = "off"
    max_output_tokens: int | None = None
    supports_images: bool = False
    capabilities: tuple[str, ...] = ()


@frozen
class Endpoint:
    """One pool entry, resolved to its model and provider; `alias` names it everywhere.

    Two endpoints never share state, even when their model names are equal. Prices are in
    dollars for a million tokens; None for cached ones means that they cost as others do.
    """

    alias: str
    model: str = ""
    provider: str = ""
    weight: int = 1
    max_concurrent: int | None = None
    is_fallback: bool = False
    context_window: int | None = None
    input_price: float = 0.0
    output_price: float = 0.0
    cached_input_price: float | None = None
    dialect: str = "generic"
    wire: Wire = Wire()


@frozen
class Cooldown:
    """A time `since <= now < until` in which an endpoint is disabled, for one cause.

    An interval, so that a clock set back ends it. It outlives its end as the memory of what
    happened: the endpoint is on probation until a later attempt has `proven` it. A last
    resort proves it before the end; that shortens nothing, but then no probation follows.
    """

    since: datetime
    until: datetime
    cause: Limit | Fault
    newest: int
    """The newest attempt at the time of the last failure; only later ones are evidence."""
    failures: int
    """Consecutive failures of the same gravity; parallel ones of one outage count once."""
    failed_at: datetime
    hint: timedelta | None = None
    proven: bool = False

    def active(self, now: datetime) -> bool:
        return self.since <= now < self.until

    @property
    def permanent(self) -> bool:
        """Whether trying again soon is pointless: quota, payment, key, model, persistent."""
        return self.cause not in TRANSIENT_KINDS

    @property
    def opens_at(self) -> datetime:
        """When the endpoint may be tried, if nobody else can serve: a last resort."""
        if self.permanent:
            return self.until
        if isinstance(self.cause, Fault):
            step = min(self.failures, len(LAST_RESORT_AFTER_ERROR)) - 1
            pause = max(LAST_RESORT_AFTER_ERROR[step], self.hint or timedelta())
        else:
            # 2 ** 12 seconds are more than any hint, so the doubling can stop there.
            pause = self.hint or LAST_RESORT_AFTER_LIMIT * 2 ** min(self.failures - 1, 12)
        return min(self.failed_at + pause, self.until)


@frozen
class Health:
    """Whether an endpoint may be used: two spells kept apart, and its attempts under way.

    `limited` is about its rate or quota, `broken` about errors: the end of one says nothing
    of the other.
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
        """The later end of its spells, past or to come; None without any."""
        return max((cooldown.until for cooldown in self.cooldowns), default=None)

    def active_cooldown(self, now: datetime) -> Cooldown | None:
        """Return the spell that disables it now, the one that ends last, if any does."""
        active = [cooldown for cooldown in self.cooldowns if cooldown.active(now)]
        return max(active, key=lambda cooldown: cooldown.until, default=None)

    @property
    def unproven(self) -> bool:
        """Whether a spell is not yet followed by a response: once over, it is probation."""
        return any(not cooldown.proven for cooldown in self.cooldowns)

    def probed(self, now: datetime) -> bool:
        """Whether an attempt is under way that began after the failure: its probe."""
        if not self.under_way:
            return False
        latest = self.under_way[-1]
        return any(
            latest > cooldown.newest and (not cooldown.proven or cooldown.active(now))
            for cooldown in self.cooldowns
        )

    def opens_at(self, now: datetime) -> datetime:
        """Return the earliest moment, never before `now`, at which it may be a last resort."""
        return max(
            [
                now,
                *(cooldown.opens_at for cooldown in self.cooldowns if cooldown.active(now)),
            ]
        )


@frozen
class Tally:
    """What an endpoint's ended attempts came to. `tokens_in` counts the cached ones too."""

    succeeded: int = 0
    rate_limited: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    first_content: timedelta | None = None
    """Time to first content, as a moving average in which the newest counts an eighth."""
    first_content_at: datetime | None = None
    latest_first_content: timedelta | None = None
    """The newest of these times by itself, for modes that weigh it in their own way."""

    @property
    def ended(self) -> int:
        answered = self.succeeded + self.rate_limited + self.failed
        return answered + self.rejected + self.cancelled


@frozen
class Candidate:
    """An endpoint with what is known of it. What a strategy is shown."""

    endpoint: Endpoint
    health: Health = Health()
    tally: Tally = Tally()

    @property
    def cost(self) -> float:
        """Dollars spent, by the prices of the config."""
        endpoint, tally = self.endpoint, self.tally
        cached_price = endpoint.cached_input_price
        if cached_price is None:
            cached_price = endpoint.input_price
        fresh = tally.tokens_in - tally.tokens_cached
        spent = fresh * endpoint.input_price + tally.tokens_cached * cached_price
        return (spent + tally.tokens_out * endpoint.output_price) / 1_000_000


@frozen
class Pin:
    """The model that served a conversation's last call, and when.

    `tokens` is the size of that call with its answer: what may be cached there now.
    """

    conversation: str
    alias: str
    at: datetime
    tokens: int = 0


@frozen
class Policy:
    """The numbers of the config that the core obeys.

    `direct` is a config without the multiplexer: one attempt, nothing disabled, no waiting.
    """

    rate_limit_disable_duration: timedelta = MINUTE
    persistent_error_disable_duration: timedelta = timedelta(seconds=15)
    max_wait: timedelta = timedelta(seconds=30)
    sticky: Sticky = Sticky.TURN
    direct: bool = False


@frozen
class PoolState:
    """All that is remembered. `attempts` is the number of the last attempt begun.

    `memory` is the mode's own, made of plain JSON values.
    """

    candidates: tuple[Candidate, ...]
    policy: Policy = Policy()
    memory: object = None
    attempts: int = 0
    pins: tuple[Pin, ...] = ()
    last_used: str | None = None

    @classmethod
    def of(cls, *endpoints: Endpoint, policy: Policy = Policy()) -> PoolState:
        """Make the state of a pool that has done nothing yet, in pool order."""
        return cls(tuple(Candidate(endpoint) for endpoint in endpoints), policy)

    def __getitem__(self, alias: str) -> Candidate:
        for candidate in self.candidates:
            if candidate.endpoint.alias == alias:
                return candidate
        raise KeyError(alias)


@frozen
class Call:
    """What is known of the call at hand when a model is chosen for it.

    `tried` holds the alias of each attempt so far, in order. `excluded` are those whose
    answer made another try pointless. `larger_than` is a window that was found too small, and
    `refused_dialects` are dialects whose chat template refused the history. `max_wait` limits
    the sum of its waits where it is less than the policy's. `pin` is for the mode alone:
    `select` fills it in with where this conversation is, if that is still warm.
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
    refused_dialects: tuple[str, ...] = ()
    pin: Pin | None = None

    @property
    def attempts(self) -> int:
        return len(self.tried)

    @property
    def repeats(self) -> int:
        """How many attempts went to an endpoint that this call had tried before."""
        return len(self.tried) - len(set(self.tried))


class PickReason(StrEnum):
    """Why an endpoint was picked."""

    MODE = "the mode's choice"
    FALLBACK = "no primary can serve"
    STICKY = "this turn is there"
    LAST_RESORT = "nobody else can serve"


class WaitReason(StrEnum):
    """What a call waits for, or why it stops."""

    BUSY = "every model that could serve is busy"
    DISABLED = "every model that could serve is disabled"
    TRIED = "every model was tried"
    UNFIT = "no model of the pool can take this request"
    DEADLINE = "the call's time is over"


@frozen
class Picked:
    """Attempt this endpoint. Give `memory` to `Started`."""

    endpoint: Endpoint
    reason: PickReason
    memory: object = field(default=None, repr=False)


@frozen
class Wait:
    """Look again when anything changes, and at `until` at the latest."""

    until: datetime
    reason: WaitReason


@frozen
class Exhausted:
    """No model can serve this call. At `retry_at` one may be tried; None: nobody can say."""

    retry_at: datetime | None
    reason: WaitReason


Choice: TypeAlias = Picked | Wait | Exhausted
