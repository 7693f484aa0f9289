"""Finds the tests that a slow or busy machine could upset, and marks them `timed`.

A test is one of them if it, or a function of the tests that it uses, waits, signals, forks,
counts steps or reads a clock that only runs forward. `tests.repeat` runs them again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

_WAITS = {"wait_until", "PATIENCE", "wait", "wait_for", "park", "sleep", "settimeout"}
_THREADS = {"Thread", "Timer", "Barrier", "ThreadPoolExecutor", "submit", "communicate"}
_SIGNALS = {"kill", "killpg", "pthread_kill", "raise_signal", "send_signal", "setitimer"}
_FORKS = {"fork", "Popen", "subprocess", "get_context", "ProcessPoolExecutor"}
_STEPS = {"monitoring", "settrace", "setprofile"}
_CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "elapsed"}
SIGNS = frozenset(_WAITS | _THREADS | _SIGNALS | _FORKS | _STEPS | _CLOCKS)


def mark(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and any(map(_is_timed, _functions(item))):
            item.add_marker("timed")


def _functions(item: pytest.Function) -> Iterator[Callable[..., Any]]:
    """Return the test and the fixtures that it asks for, but not those that come unasked."""
    yield item.function
    found: dict[str, Any] = item._fixtureinfo.name2fixturedefs
    asked = list(item._fixtureinfo.argnames)
    for name in asked:
        for definition in found.get(name, ()):
            yield definition.func
            asked += [one for one in definition.argnames if one not in asked]


@cache
def _is_timed(function: Callable[..., Any]) -> bool:
    return bool(SIGNS & set(_names(function, set())))


def _names(function: Any, seen: set[int]) -> Iterator[str]:
    """Return all names that a function uses, and those that it reaches within the tests."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    for name in _names_of(function.__code__):
        yield name
        used = function.__globals__.get(name)
        home = getattr(used, "__module__", "") or ""
        if home.startswith("tests.") and not isinstance(used, ModuleType):
            members = vars(used).values() if isinstance(used, type) else (used,)
            for member in members:
                yield from _names(member, seen)


def _names_of(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_of(constant)
