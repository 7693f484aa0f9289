"""The types of the official clients, as judges. A missing client is reported loudly."""

from __future__ import annotations

from typing import Any

import pytest


def need(name: str) -> Any:
    """Import an official client, or skip and say what is not being tested."""
    return pytest.importorskip(
        name, reason=f"NOT TESTED: the official {name} client is not installed"
    )
