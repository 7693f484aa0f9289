"""Context windows and compaction thresholds that every vibe accepts. Pure.

From 3.0.3 on, vibe does not start with a threshold outside the range of its model's window;
earlier ones take any number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from muxcore.vibe.release import Release

WINDOW = "max_context_length"
THRESHOLD = "auto_compact_threshold"

SMALLEST_WINDOW = 13_334
"""Vibe does not start with a smaller one."""

UNKNOWN_WINDOW = 262_144
"""The window that vibe assumes if none is given."""

USUAL_THRESHOLD = 200_000
"""Where vibe compacts a conversation if it does not know the window."""

SHARE_OF_WINDOW = 0.8
"""The share of a window at which vibes before 3.0.3 compact a conversation."""

_LEAST, _MOST_OF_LEAST, _SHARE_OF_LEAST = 10_000, 50_000, 0.5
_MOST_RESERVED, _SHARE_RESERVED = 24_000, 0.25


def lowest_threshold(window: int) -> int:
    return max(_LEAST, min(_MOST_OF_LEAST, math.floor(window * _SHARE_OF_LEAST)))


def highest_threshold(window: int) -> int:
    return window - min(_MOST_RESERVED, math.ceil(window * _SHARE_RESERVED))


def accepted_threshold(threshold: int, window: int) -> int:
    """Return the nearest threshold that vibe accepts for a window."""
    return max(lowest_threshold(window), min(threshold, highest_threshold(window)))


def usual_threshold(window: int) -> int:
    """Return where a conversation is compacted by default, as every vibe accepts it."""
    return accepted_threshold(int(SHARE_OF_WINDOW * window), window)


def narrowed(
    model: Mapping[str, Any], pool_window: int | None, threshold: object, release: Release
) -> dict[str, int]:
    """Return the window and threshold to override so that a conversation fits the pool.

    `threshold` is what the user has set for the model, or for all.
    """
    own = _number(model.get(WINDOW))
    made: dict[str, int] = {}
    if pool_window is not None and _is_narrower(pool_window, own):
        made[WINDOW] = max(pool_window, SMALLEST_WINDOW)
    elif release.needs_room and own is not None and own < SMALLEST_WINDOW:
        made[WINDOW] = SMALLEST_WINDOW
    window = made.get(WINDOW, own or UNKNOWN_WINDOW)
    wanted = _number(threshold)
    if wanted == 0:
        # It turns compaction off in earlier ones, and later ones refuse it.
        return (
            {**made, THRESHOLD: usual_threshold(window)}
            if release.checks_thresholds
            else {}
        )
    if wanted is None or wanted < 0:
        return made
    fitting = min(wanted, usual_threshold(window)) if made else wanted
    if release.checks_thresholds:
        fitting = accepted_threshold(fitting, window)
    elif release.needs_room:
        fitting = max(fitting, _LEAST)
    return made if fitting == wanted else {**made, THRESHOLD: fitting}


def _is_narrower(window: int, own: int | None) -> bool:
    return usual_threshold(window) < USUAL_THRESHOLD if own is None else window < own


def accepted(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model without a threshold or window that some vibe refuses."""
    window = _number(model.get(WINDOW))
    threshold = _number(model.get(THRESHOLD))
    made = dict(model)
    if window is not None and window < SMALLEST_WINDOW:
        made[WINDOW] = window = SMALLEST_WINDOW
    if threshold is None or threshold <= 0:
        made.pop(THRESHOLD, None)
    else:
        made[THRESHOLD] = accepted_threshold(threshold, window or UNKNOWN_WINDOW)
    return made


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
