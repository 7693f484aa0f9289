"""Notice what no pure function does, while it does it.

By Python's own profiling hook, which tells of each call, in C or not: that finds the clock
also where it was imported by name, and changes nothing that the watched code could see.
What the hook itself runs is hidden from tracers, and so from the measuring of coverage.
"""

from __future__ import annotations

import builtins
import gc
import os
import random  # noqa: TID251 - it is what is looked for
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from types import FrameType
from typing import Any, Generic, TypeVar

from attrs import frozen

T = TypeVar("T")

CLOCKS = (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "process_time",
    "process_time_ns",
    "thread_time",
    "sleep",
)
HARMLESS_IN_OS = frozenset({"fspath"})
IMPORTS = "<frozen importlib"
SYSTEM = frozenset({"posix", "nt"})


@frozen
class Watched(Generic[T]):
    """What a function gave or raised, and its first effect beyond that ("" for none)."""

    value: T | None = None
    error: Exception | None = None
    effect: str = ""


def watch(act: Callable[[], T]) -> Watched[T]:
    """Run `act` and say what it did that no pure function does."""
    effects: list[str] = []

    def look(
        frame: FrameType, event: str, called: Any
    ) -> None:  # pragma: no cover - run by the hook itself
        if event == "call":
            effect = _EFFECTS_OF_CODE.get(frame.f_code, "")
        elif event == "c_call":
            effect = _effect_of(called)
        else:
            return
        if effect and not _imports(frame):
            effects.append(effect)

    value = error = None
    previous, collects = sys.getprofile(), gc.isenabled()
    # A collection may come at any moment, and calls what others have asked it to.
    gc.disable()
    sys.setprofile(look)
    try:
        value = act()
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is what came of it
        error = raised
    finally:
        sys.setprofile(previous)
        if collects:
            gc.enable()
    return Watched(value, error, effects[0] if effects else "")


def _imports(frame: FrameType | None) -> bool:  # pragma: no cover - run by the hook itself
    """Whether this is part of an import: one that is done late is nobody's impurity."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTS):
            return True
        frame = frame.f_back
    return False


def _effect_of(called: Any) -> str:  # pragma: no cover - run by the hook itself
    """Return what a function in C does to or learns from the world; "" if nothing."""
    owner = getattr(called, "__self__", None)
    name = called.__name__
    if isinstance(owner, random.Random):
        return f"rolls dice ({type(owner).__name__}.{name})"
    if isinstance(owner, type) and issubclass(owner, date):
        return f"reads the clock ({owner.__name__}.{name})" if name in _NOW else ""
    if called in _EFFECTS_IN_C:
        return _EFFECTS_IN_C[called]
    if called.__module__ in SYSTEM and name not in HARMLESS_IN_OS:
        return f"asks the operating system (os.{name})"
    return ""


_NOW = frozenset({"now", "utcnow", "today"})
_EFFECTS_IN_C: dict[Any, str] = {
    **{getattr(time, name): f"reads the clock (time.{name})" for name in CLOCKS},
    builtins.open: "opens a file",
    builtins.print: "prints",
    builtins.input: "asks for input",
}
_EFFECTS_OF_CODE = {
    function.__code__: effect
    for function, effect in (
        (type(os.environ).__getitem__, "reads the environment"),
        (type(os.environ).__iter__, "reads the environment"),
        (socket.socket.__init__, "opens a socket"),
        (subprocess.Popen.__init__, "starts a program"),
        (threading.Thread.start, "starts a thread"),
    )
}
