"""`trace` detects what a pure function must not do, whichever way it is done."""

from __future__ import annotations

import gc
import importlib
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from muxcore.testing.purity import trace

now, monotonic = datetime.now, time.monotonic

EFFECTS: dict[str, tuple[Callable[[], object], str]] = {
    "time.time": (time.time, "reads the clock (time.time)"),
    "by another name": (lambda: 1 + monotonic(), "reads the clock (time.monotonic)"),
    "a sleep": (lambda: time.sleep(0), "sleeps"),
    "datetime.now": (lambda: now(UTC), "reads the clock (datetime.now)"),
    "date.today": (date.today, "reads the clock (date.today)"),
    "random": (lambda: random.randint(1, 2), "rolls dice (Random."),
    "dice of its own": (lambda: random.Random(4).random(), "rolls dice (Random."),
    "secrets": (secrets.token_hex, "asks the operating system (os.urandom)"),
    "uuid": (uuid.uuid4, "asks the operating system (os.urandom)"),
    "environ": (lambda: os.environ.get("PATH"), "reads the environment"),
    "getenv": (lambda: os.getenv("PATH"), "reads the environment"),
    "all of environ": (lambda: dict(os.environ), "reads the environment"),
    "a file": (lambda: Path(os.devnull).read_bytes(), "opens a file"),
    "a path": (lambda: Path(os.devnull).exists(), "asks the operating system (os."),
    "a socket": (lambda: socket.socket().close(), "opens a socket"),
    "a thread": (lambda: threading.Thread(target=int).start(), "starts a thread"),
    "a program": (
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        "starts a program",
    ),
}


@pytest.mark.parametrize(("act", "effect"), EFFECTS.values(), ids=EFFECTS)
def test_an_effect_is_detected(act: Callable[[], object], effect: str) -> None:
    assert trace(act).effect.startswith(effect)


@pytest.mark.skipif(not hasattr(time, "clock_gettime"), reason="this system has none")
def test_a_clock_that_is_named_by_number_is_detected() -> None:
    traced = trace(lambda: time.clock_gettime(time.CLOCK_MONOTONIC))
    assert traced.effect == "reads the clock (time.clock_gettime)"


def test_a_conversion_of_a_time_is_no_effect() -> None:
    assert trace(lambda: time.gmtime(0)).effect == ""


def test_a_pure_function_has_no_effect() -> None:
    def act() -> str:
        return (
            f"{sum(map(int, '123'))} {datetime(2026, 1, 1, tzinfo=UTC):%Y} {os.fspath('a')}"
        )

    traced = trace(act)
    assert (traced.value, traced.error, traced.effect) == ("6 2026 a", None, "")


def test_a_late_import_is_no_effect() -> None:
    sys.modules.pop("colorsys", None)
    assert trace(lambda: importlib.import_module("colorsys")).effect == ""


def test_an_exception_is_returned_with_the_effect_before_it() -> None:
    traced = trace(lambda: time.time() / 0)
    assert isinstance(traced.error, ZeroDivisionError)
    assert traced.effect == "reads the clock (time.time)"


def test_the_hook_and_the_collector_are_restored() -> None:
    def profile(*_: object) -> None:
        pass

    def interrupts() -> None:
        raise KeyboardInterrupt

    for collects in (True, False):
        (gc.enable if collects else gc.disable)()
        sys.setprofile(profile)
        try:
            trace(int)
            with pytest.raises(KeyboardInterrupt):
                trace(interrupts)
            assert sys.getprofile() is profile
            assert gc.isenabled() is collects
        finally:
            sys.setprofile(None)
            gc.enable()
