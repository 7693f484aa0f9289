"""Images that no model of a call can see: a refusal instead of a guess at what they show. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus
from itertools import takewhile
from typing import Any

from muxcore.chat import Chat
from muxcore.core.records import Endpoint
from muxcore.gateway.http.wire import ErrorResponse, RefusedError
from muxcore.text import printable

IMAGE = "image_url"
"""The type of a part that is an image."""


def refuse_unseen(chat: Chat, endpoints: Collection[Endpoint]) -> None:
    """Raise `RefusedError` if there is a new image, and none of these models takes any.

    An older image was refused when it was new: a session that holds one goes on without it.
    """
    if any(endpoint.wire.supports_images for endpoint in endpoints):
        return
    new = takewhile(
        lambda message: message.get("role") != "assistant", reversed(chat.messages)
    )
    if not any(map(_shows_image, new)):
        return
    names = ", ".join(printable(endpoint.alias) for endpoint in endpoints)
    text = (
        f"No model here can see the image ({names}): set supports_images = true in the entry"
        ' of one that can, or unseen_images = "leave_out" in [multiplexer].'
    )
    raise RefusedError(ErrorResponse(HTTPStatus.BAD_REQUEST, text, code="image_not_seen"))


def _shows_image(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return any(part.get("type") == IMAGE for part in parts)
