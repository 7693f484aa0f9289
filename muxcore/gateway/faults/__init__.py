"""The fire drill: faults that users inject into their own pool.

`wrappings` is imported on first use: it imports requests, which takes longer than all else, and
a server without drills is ready before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muxcore.gateway.faults.inject import wrappings as wrappings

__all__ = ["wrappings"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from muxcore.gateway.faults.inject import wrappings  # noqa: PLC0415 - see above

    return wrappings
