"""The stand-ins' clock: they play another machine, so they do not use the caller's."""

from time import monotonic  # noqa: TID251

__all__ = ["monotonic"]
