"""The story of a call, as a record and in words. Times in words are local."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, assert_never

from attrs import fields, frozen

from muxcore.core.entries import CallResult
from muxcore.core.outcomes import PickReason
from muxcore.core.records import Call, WaitReason
from muxcore.core.selection import Standing
from muxcore.explaining.steps import (
    Alternatives,
    CallWaited,
    ModelAnswered,
    ModelAsked,
    NobodyLeft,
    PassedOver,
    ProvedWrong,
    StoryStep,
)
from muxcore.text import printable, short_count

STANDINGS = {
    Standing.BUSY: "has as many calls under way as its max_concurrent allows",
    Standing.PROBED: "is on probation, and another call is trying it out",
    Standing.SPENT: "has too little left of a limit that it announces",
    Standing.TRIED: "was tried in this call",
    Standing.DISABLED: "is disabled",
}
CENT, LEAST = 0.01, 0.0001


@frozen
class Story:
    """One call. `result` is None while it is under way, or if its process was killed."""

    call_id: str
    began: datetime
    mode: str
    call: Call
    steps: tuple[StoryStep, ...]
    ended: datetime | None = None
    result: CallResult | None = None

    def __str__(self) -> str:
        return story_text(self)

    @property
    def answers(self) -> tuple[ModelAnswered, ...]:
        return tuple(step for step in self.steps if isinstance(step, ModelAnswered))

    @property
    def served_by(self) -> str | None:
        """The alias of the model that answered."""
        served = self.result is CallResult.SERVED and self.answers
        return served[-1].alias if served else None

    @property
    def waited(self) -> timedelta:
        """How long no model was at work for it."""
        waits = zip(self.steps, self.steps[1:], strict=False)
        times = [
            following.at - step.at
            for step, following in waits
            if isinstance(step, CallWaited)
        ]
        return sum(times, timedelta())

    @property
    def cost(self) -> float:
        return sum(answer.cost for answer in self.answers)

    def concerns(self, alias: str) -> bool:
        """Whether this model was asked, or could not be."""
        return any(_concerns(step, alias) for step in self.steps)


def _concerns(step: StoryStep, alias: str) -> bool:
    if isinstance(step, CallWaited | NobodyLeft):
        # No model of the pool could be asked then.
        return True
    return isinstance(step, ModelAsked) and (
        step.alias == alias
        or any(
            one.alias == alias and one.standing is not Standing.OPEN
            for one in step.alternatives
        )
    )


def story_text(story: Story) -> str:
    """Return the story as lines: the call, then what happened, in the order of time."""
    return "\n".join([_title(story), *(f"  {line}" for line in _lines(story))])


def story_line(story: Story) -> str:
    """Return the story as one line: when it ended, which call, who was passed over, and what came."""
    ended = story.ended or story.began
    head = f"{_time(ended)} {printable(story.call_id)} {_result(story)}"
    answers = map(_answer, story.answers)
    return "; ".join([head, *dict.fromkeys(_passed_over(story)), *answers])


def story_json(story: Story) -> dict[str, Any]:
    """Return the story for programs: times in ISO 8601, durations in seconds."""
    return {
        "call_id": story.call_id,
        "began": _plain(story.began),
        "ended": _plain(story.ended),
        "mode": story.mode,
        "result": story.result,
        "served_by": story.served_by,
        "waited": _plain(story.waited),
        "cost": story.cost,
        "prompt_tokens": story.call.prompt_tokens,
        "only": story.call.only,
        "conversation": story.call.conversation,
        "new_turn": story.call.new_turn,
        "steps": [{"type": type(one).__name__, **_plain(one)} for one in story.steps],
    }


def _plain(value: Any) -> Any:
    match value:
        case None | str() | int() | float():
            return value
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case tuple() | Alternatives():
            return [_plain(one) for one in value]
        case _:
            members = fields(type(value))
            return {member.name: _plain(getattr(value, member.name)) for member in members}


def _passed_over(story: Story) -> Iterator[str]:
    """Yield why models could not be chosen. A turn that stays on its model passes none over."""
    if story.call.only is not None:
        return
    for step in story.steps:
        if isinstance(step, ModelAnswered | ProvedWrong):
            continue
        if isinstance(step, ModelAsked) and step.reason is PickReason.STICKY:
            continue
        is_primary = isinstance(step, ModelAsked) and step.reason is PickReason.MODE
        for one in step.alternatives:
            came_first = not (is_primary and one.is_fallback)
            if came_first and one.standing not in {Standing.OPEN, Standing.TRIED}:
                yield _standing(one, story)


def _title(story: Story) -> str:
    call = story.call
    parts = [
        f"Call {printable(story.call_id)}, {story.began.astimezone():%Y-%m-%d %H:%M:%S}"
    ]
    if call.only is not None:
        parts.append(f"for {printable(call.only)} alone")
    if call.prompt_tokens is not None:
        parts.append(f"about {short_count(call.prompt_tokens)} tokens")
    return f"{', '.join(parts)}: {_result(story)}"


def _result(story: Story) -> str:
    if story.ended is None or story.result is None:
        return "it has not ended, as far as the journal goes"
    took = _seconds(story.ended - story.began)
    if (alias := story.served_by) is not None:
        return f"served by {printable(alias)} in {took}"
    return f"{story.result} after {took}"


def _lines(story: Story) -> Iterator[str]:
    for step in story.steps:
        head, *more = _step_lines(step, story)
        yield f"{_time(step.at)}  {head}"
        yield from (f"{' ' * 12}  {line}" for line in more)
    answers = story.answers
    if len(story.steps) > 2:  # noqa: PLR2004 - more than one attempt: asked, answered
        spent = [f"{len(answers)} attempt{'' if len(answers) == 1 else 's'}"]
        if story.waited:
            spent.append(f"{_seconds(story.waited)} of waiting")
        if story.cost:
            spent.append(_dollars(story.cost))
        yield f"In all: {', '.join(spent)}"


def _step_lines(step: StoryStep, story: Story) -> Iterator[str]:
    match step:
        case ModelAsked():
            reason = f": {_reason(step, story)}" if step.reason is not None else ""
            yield f"asked {printable(step.alias)}{reason}"
            yield from (_standing(one, story) for one in step.alternatives)
        case ModelAnswered():
            yield _answer(step)
            if step.disabled_until is not None:
                until = _at(step.disabled_until)
                yield f"{printable(step.alias)} is disabled until {until}"
        case CallWaited():
            yield f"waits until {_at(step.until)} at the latest: {_wait_reason(step)}"
            yield from (_standing(one, story) for one in step.alternatives)
        case NobodyLeft():
            again = step.retry_at and f"; one may be tried at {_at(step.retry_at)}"
            yield f"gave up: {step.reason}{again or ''}"
            yield from (_standing(one, story) for one in step.alternatives)
        case ProvedWrong():
            by, alias = printable(step.by), printable(step.alias)
            yield f"{by} took what {alias} had refused, so {alias} was wrong"
        case _ as never:
            assert_never(never)


def _wait_reason(step: CallWaited) -> str:
    is_open = any(one.standing is Standing.OPEN for one in step.alternatives)
    if step.reason is WaitReason.BUSY and is_open:
        return "every primary that could serve is busy"
    return str(step.reason)


def _reason(step: ModelAsked, story: Story) -> str:
    match step.reason:
        case PickReason.MODE | PickReason.FALLBACK if story.call.only is not None:
            return "the caller asked for it"
        case PickReason.MODE:
            return f"the choice of the mode {printable(story.mode)}"
        case PickReason.STICKY:
            return "this turn of the conversation is there"
        case PickReason.LAST_RESORT:
            return "the last resort, as nobody else can serve"
        case _:
            return str(step.reason)


def _standing(one: PassedOver, story: Story) -> str:
    alias = printable(one.alias)
    if one.standing is Standing.OPEN:
        return f"{alias} is open, " + ("but a fallback" if one.is_fallback else "too")
    if one.standing is Standing.UNFIT:
        if story.call.only is not None:
            return f"{alias} is not what the caller asked for"
        if one.window is None:
            return f"{alias} refused the prompt as too long"
        return f"{alias} is too small for the prompt: {short_count(one.window)} tokens"
    words = STANDINGS.get(one.standing, str(one.standing))
    if one.standing is Standing.TRIED and one.until is not None:
        words += f", and {STANDINGS[Standing.DISABLED]}"
    until = "" if one.until is None else f" until {_at(one.until)}"
    cause = f" ({one.cause})" if one.cause else ""
    return f"{alias} {words}{until}{cause}"


def _answer(step: ModelAnswered) -> str:
    took = _seconds(step.took)
    text = f"{printable(step.alias)}: {step.outcome} after {took}"
    if step.first_content is not None and step.first_content < step.took:
        text += f", the first content after {_seconds(step.first_content)}"
    if step.asked_for is not None:
        text += f", its server asks for {_seconds(step.asked_for)}"
    if step.message:
        text += f": {printable(step.message)}"
    if step.tokens_in or step.tokens_out:
        cached = ""
        if step.tokens_cached and step.tokens_in:
            cached = f" ({step.tokens_cached / step.tokens_in:.0%} cached)"
        read, written = short_count(step.tokens_in), short_count(step.tokens_out)
        text += f"; {read} tokens in{cached}, {written} out"
    return text + (f", {_dollars(step.cost)}" if step.cost else "")


def _dollars(cost: float) -> str:
    if cost < LEAST:
        return f"less than ${LEAST}"
    return f"${cost:.2f}" if cost >= CENT else f"${cost:.4f}"


def _seconds(time: timedelta) -> str:
    seconds = time.total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _time(moment: datetime) -> str:
    # A log writes it for each call; `strftime` takes three times as long.
    local = moment.astimezone()
    hour, minute, second = local.hour, local.minute, local.second
    return f"{hour:02}:{minute:02}:{second:02}.{local.microsecond // 1000:03}"


def _at(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M:%S}"
