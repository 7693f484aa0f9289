"""Signed reasoning of any API as one opaque text, which a client gives back. Pure."""

from __future__ import annotations

import base64

from muxcore import jsontext
from muxcore.chat import SIGNED_REASONING, Json, Message

SEAL = "mux."
"""The beginning of such a text."""


def sealed(message: Message) -> str:
    """Write the signed reasoning of a message or delta, which may be none."""
    signed = {name: message[name] for name in SIGNED_REASONING if message.get(name)}
    return SEAL + base64.b64encode(jsontext.encode(signed).encode()).decode()


def unsealed(text: object) -> Json:
    """Read such a text; what another server has encrypted holds nothing for this one."""
    if not isinstance(text, str) or not text.startswith(SEAL):
        return {}
    try:
        signed = jsontext.decode(base64.b64decode(text.removeprefix(SEAL), validate=True))
    except (ValueError, RecursionError):
        return {}
    return {
        name: value
        for name, value in (signed.items() if isinstance(signed, dict) else ())
        if name in SIGNED_REASONING
        and isinstance(value, list)
        and all(isinstance(each, dict) for each in value)
    }
