"""Detect what a pure function must not do: read a clock, roll dice, do I/O.

Python's own profiling hook reports every call, of C functions too. So it finds a clock that
was imported under another name, and changes nothing that the traced code can see. What the
hook itself runs is hidden from tracers, and so from the measuring of coverage.
"""

from __future__ import annotations

import builtins
import gc
import os
import random  # noqa: TID251 - this is what it detects
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from types import BuiltinFunctionType, FrameType, ModuleType
from typing import Any, Generic, TypeVar

from attrs import frozen

T = TypeVar("T")

TIME_CONVERSIONS = frozenset(
    [
        "asctime",
        "ctime",
        "get_clock_info",
        "gmtime",
        "localtime",
        "mktime",
        "strftime",
        "strptime",
        "tzset",
    ]
)
"""Functions of `time` that convert what they are given. All others read a clock or sleep."""

_TEXT_TYPES = {str, bytes, bytearray, re.Pattern, re.Match}
_COLLECTIONS = {dict, list, tuple, set, frozenset}
PLAIN_TYPES = frozenset(_TEXT_TYPES | _COLLECTIONS | {int, float, datetime, timedelta})
"""Types whose methods have no effects. Nine of ten calls are of one of them."""

HARMLESS_IN_OS = frozenset({"fspath"})
IMPORTS = "<frozen importlib"
SYSTEM = frozenset({"posix", "nt"})


@frozen
class Traced(Generic[T]):
    """What a function returned or raised, and its first effect beyond that ("" for none)."""

    value: T | None = None
    error: Exception | None = None
    effect: str = ""


def trace(act: Callable[[], T]) -> Traced[T]:
    """Run `act` under the hook. It then takes about three times as long."""
    effects: list[str] = []

    def hook(
        frame: FrameType, event: str, called: Any
    ) -> None:  # pragma: no cover - run by the hook itself
        if event == "c_call":
            effect = _effect_of(called)
        elif event == "call":
            effect = _EFFECTS_OF_CODE.get(frame.f_code, "")
        else:
            return
        if effect and not _is_import(frame):
            effects.append(effect)

    previous, collects = sys.getprofile(), gc.isenabled()
    # A collection may start at any moment, and runs finalizers and callbacks of others.
    gc.disable()
    sys.setprofile(hook)
    try:
        traced = run_untraced(act)
    finally:
        sys.setprofile(previous)
        if collects:
            gc.enable()
    return Traced(traced.value, traced.error, effects[0] if effects else "")


def run_untraced(act: Callable[[], T]) -> Traced[T]:
    """Run `act` without the hook, to compare what it returns or raises."""
    try:
        return Traced(act())
    except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything
        return Traced(error=error)


def _is_import(frame: FrameType | None) -> bool:  # pragma: no cover - run by the hook
    """Whether this is part of an import: a late one does not make a function impure."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTS):
            return True
        frame = frame.f_back
    return False


def _effect_of(called: Any) -> str:  # pragma: no cover - run by the hook itself
    """Describe the effect of a function written in C; "" if it has none."""
    owner = getattr(called, "__self__", None)
    if type(owner) in PLAIN_TYPES:
        return ""
    name = called.__name__
    if type(owner) is ModuleType:
        if called.__module__ in SYSTEM and name not in HARMLESS_IN_OS:
            return f"asks the operating system (os.{name})"
        return _EFFECTS_IN_C.get(called, "")
    if isinstance(owner, random.Random):
        return f"rolls dice ({type(owner).__name__}.{name})"
    if isinstance(owner, type) and issubclass(owner, date) and name in _NOW:
        return f"reads the clock ({owner.__name__}.{name})"
    return ""


_NOW = frozenset({"now", "utcnow", "today"})
_EFFECTS_IN_C: dict[Any, str] = {
    **{
        function: f"reads the clock (time.{name})"
        for name, function in vars(time).items()
        if isinstance(function, BuiltinFunctionType) and name not in TIME_CONVERSIONS
    },
    time.sleep: "sleeps",  # noqa: TID251 - as above
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
