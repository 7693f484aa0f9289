"""Import modules on first use, safely under forks and without free file descriptors.

A child that is forked while another thread imports would wait for ever for a module that no
thread of the child completes. And a failed import may leave a broken module behind: some
libraries treat a module that cannot be opened as not installed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Generator
from importlib import import_module

from muxcore.errors import MultiplexerError

NEEDED_DESCRIPTORS = 8
"""An import opens few files at once; other threads may open some meanwhile."""

LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The `errno` of an `OSError` when this machine is out of something."""

_lock = threading.RLock()


def imported(module: str, name: str) -> object:
    """Return `name` of a module. Raise `MultiplexerError` if the machine cannot import it now."""
    with _lock:
        before = set(sys.modules)
        try:
            with _spare_descriptors():
                pass
            return getattr(import_module(module), name)
        except (ImportError, OSError) as error:
            for half in set(sys.modules) - before:
                # It may be incomplete, so the next import must load it again.
                sys.modules.pop(half, None)
            if isinstance(error, OSError) or is_short_of_descriptors():
                reason = getattr(error, "strerror", None) or str(error)
                text = f"{module} cannot be imported now: {reason}"
                raise MultiplexerError(text) from None
            raise


def is_lacking(error: BaseException) -> bool:
    """Whether this error means that the machine, not the other side, lacks something."""
    return isinstance(error, OSError) and error.errno in LACKING


def is_short_of_descriptors() -> bool:
    """Whether no file can be opened now."""
    try:
        with _spare_descriptors(1):
            return False
    except OSError as error:
        return is_lacking(error)


@contextlib.contextmanager
def _spare_descriptors(number: int = NEEDED_DESCRIPTORS) -> Generator[None]:
    """Hold this many descriptors. Raise `OSError` if fewer are free."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


if hasattr(os, "register_at_fork"):
    # A fork waits for the import under way. In the child, the forking thread holds the lock.
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_lock.release,
    )
