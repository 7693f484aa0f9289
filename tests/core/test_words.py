"""The texts of the core that users see."""

from __future__ import annotations

from muxcore.core.allowance import AllowanceKind
from muxcore.core.entries import CallResult
from muxcore.core.outcomes import CancelReason, Fault, Limit, PickReason, Refusal
from muxcore.core.phases import Phase, Section, Use, advice
from muxcore.core.records import AnnouncedLimits, Sticky, WaitReason
from muxcore.core.selection import Standing


def test_the_texts_that_users_see() -> None:
    words = (
        *(Limit, Fault, Refusal, Standing, PickReason, WaitReason, Sticky, Phase, Use),
        *(CallResult, CancelReason, AllowanceKind, AnnouncedLimits),
    )
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
            "too little is left of a limit that it announces",
            "tried in this call",
            "unfit for this request",
        ],
        "PickReason": [
            "the mode's choice",
            "no primary can serve",
            "this turn is there",
            "nobody else can serve",
            "another model refused it",
            "nobody else can serve, though it refused in this turn",
            "nobody else can serve, though its announced limit may be too small",
        ],
        "WaitReason": [
            "every model that could serve is busy",
            "every model that could serve is disabled",
            "every model was tried",
            "no model of the pool can take this request",
            "the call's time is over",
            "every model that could serve has spent its announced limit",
        ],
        "Sticky": ["call", "turn", "session"],
        "Phase": ["opt-in", "soft-default", "hard-default", "legacy-removal"],
        "Use": [
            "the active model alone, called as without a multiplexer",
            "a pool of the active model alone",
            "the pool, by its mode",
        ],
        "CallResult": [
            "served",
            "refused",
            "no model could serve it",
            "cancelled",
            "broke off in the middle of its answer",
            "the mode failed",
        ],
        "CancelReason": [
            "the caller left",
            "the call's time is over",
            "closed",
            "this machine has no more files, memory or threads to give",
            "it belongs to the process that this one was forked from",
        ],
        "AnnouncedLimits": ["heed", "ignore"],
        "AllowanceKind": [
            "requests",
            "tokens",
            "input tokens",
            "uncached input tokens",
            "uncached tokens",
            "output tokens",
        ],
    }


def test_the_default_config_has_no_section() -> None:
    said = advice(Section(), Phase.HARD_DEFAULT)
    assert "add the line [multiplexer] and below it the line enabled = false" in said
