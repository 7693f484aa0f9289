"""The operating system's keyring, where vibe's own setup stores keys. It needs an extra.

`import keyring` is slow and may find no keyring, so it happens only for a key that is in no
other place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeAlias

Look: TypeAlias = Callable[[str, str], str | None]
"""Find the secret of a service and a name, as `keyring.get_password` does."""

SERVICES = ("ai.mistral.vibe", "vibe")
"""The services under which vibe stores its keys, the present one first."""

OFF = "VIBE_TEST_DISABLE_KEYRING"
"""Vibe's own switch for tests and other uses without a keyring."""

NAME = "the system's keyring"
HINT = "if vibe keeps it in the system's keyring, pip install 'vibe-mux[keyring]'"


class Keyring:
    """The keyring as a place of keys. `fault` is the reason if the last search failed."""

    def __init__(self, look: Look | None = None) -> None:
        self._look = look
        self.fault = ""

    def find(self, variable: str) -> str | None:
        try:
            look = self._look or _system()
            found = (look(service, variable) for service in SERVICES)
            secret = next((text for text in found if text), None)
        except Exception as error:  # noqa: BLE001 - its backends raise as they please
            self.fault = _describe_failure(error)
            return None
        self.fault = ""
        return secret


def is_wanted() -> bool:
    """Whether the keyring is searched at all."""
    return os.environ.get(OFF) != "1"


def is_installed() -> bool:
    return find_spec("keyring") is not None


def _system() -> Look:
    import keyring  # noqa: PLC0415 - an extra, and slow

    return keyring.get_password


def _describe_failure(error: Exception) -> str:
    """Describe an error by its type: the text of a keyring backend may hold anything."""
    match type(error).__name__:
        case "NoKeyringError" | "InitError" | "ImportError" | "ModuleNotFoundError":
            return "there is none here"
        case "KeyringLocked":
            return "it is locked"
        case name:
            return name
