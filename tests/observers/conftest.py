from __future__ import annotations

from collections.abc import Iterator

import pytest

from muxcore.standin import Model, StandInServer


@pytest.fixture
def models() -> Iterator[tuple[str, Model, Model]]:
    """Give the address of a server, and its models large and small."""
    large, small = Model("large-model"), Model("small-model")
    with StandInServer([large, small]) as server:
        yield server.url, large, small
