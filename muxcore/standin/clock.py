"""A stand-in plays another machine, which has a clock of its own."""

from time import monotonic  # noqa: TID251

__all__ = ["monotonic"]
