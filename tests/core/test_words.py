"""The words of the core that users are shown, as they look."""

from __future__ import annotations

from muxcore.core.outcomes import Fault, Limit, Refusal
from muxcore.core.records import Reason, Sticky, Why
from muxcore.core.selection import Standing


def test_the_words_that_users_are_shown() -> None:
    words = (Limit, Fault, Refusal, Standing, Why, Reason, Sticky)
    assert {one.__name__: [str(member) for member in one] for one in words} == {
        "Limit": ["rate limited", "quota spent", "budget in use"],
        "Fault": [
            "error",
            "persistent error",
            "key refused",
            "model not found",
            "payment required",
        ],
        "Refusal": [
            "request refused",
            "prompt too long",
            "chat template refused it",
            "content filtered",
        ],
        "Standing": [
            "open",
            "at max_concurrent",
            "on probation, its probe is under way",
            "disabled",
            "tried in this call",
            "unfit for this request",
        ],
        "Why": [
            "the mode's choice",
            "no primary can serve",
            "this turn is there",
            "nobody else can serve",
        ],
        "Reason": [
            "every model that could serve is busy",
            "every model that could serve is disabled",
            "every model was tried",
            "no model of the pool can take this request",
            "the call's time is over",
        ],
        "Sticky": ["call", "turn", "session"],
    }
