"""Estimate the size of a prompt, and limit its answer to the room that is left."""

from __future__ import annotations

import re
from collections.abc import Sequence

from muxcore.chat import Json

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English and code."""
LEAST_ANSWER = 1024
"""Room for an answer in any case: the estimate may be wrong."""

IMAGE_MARK = "data:image/"
IMAGE = re.compile(r"data:image/[a-zA-Z.+-]{1,40};base64,[A-Za-z0-9+/=]*")


def estimated(text: str) -> int:
    """Estimate the tokens of a prompt from its encoded request.

    The bytes of images are left out: they do not show how many tokens an image takes.
    """
    size = len(text)
    if IMAGE_MARK in text:
        size -= sum(len(image[0]) for image in IMAGE.finditer(text))
    return size // CHARACTERS_PER_TOKEN


def clamped(
    settings: Json, names: Sequence[str], window: int | None, prompt: int
) -> tuple[str, ...]:
    """Lower the limit of an answer to what a known window leaves. Return the remark, if any."""
    if window is None:
        return ()
    room = max(window - prompt, min(LEAST_ANSWER, window))
    too_high = [
        name for name in names if type(settings.get(name)) is int and settings[name] > room
    ]
    for name in too_high:
        settings[name] = room
    return (f"max_tokens lowered to {room}",) if too_high else ()
