"""Raises KeyboardInterrupt at every point where CPython may do so."""

from __future__ import annotations

import dis
import sys
import threading
import traceback
from collections.abc import Collection, Generator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

MOST_POINTS = 20_000
"""More points than a call has in any version of Python: only an endless call gets there."""


@cache
def jumps_back(code: CodeType) -> frozenset[int]:
    """The offsets of its jumps backwards."""
    return frozenset(
        instruction.offset
        for instruction in dis.get_instructions(code)
        if instruction.opname.startswith("JUMP_BACKWARD")
    )


monitoring: Any = getattr(sys, "monitoring", None)
"""What `sys` has since Python 3.12."""


class Interrupting:
    """Raises KeyboardInterrupt at the n-th point where CPython looks for signals.

    Those are the beginning of a Python function, a jump backwards, and the return of a
    function in C, such as that of a lock.
    """

    def __init__(self, watched: Collection[str]) -> None:
        self.tool = 0
        self._watched = watched
        self.left = 0
        self.raised = False
        self.interrupted: set[str] = set()
        """The packages in which it raised."""
        self.place = ""
        """Where it raised, for the report of a failure."""

    def start(self, code: CodeType, offset: int) -> object:
        if code.co_filename in self._watched and jumps_back(code):
            # Not the event for jumps: an exception raised there skips `finally`.
            monitoring.set_local_events(self.tool, code, monitoring.events.INSTRUCTION)
        self.code(code, offset)
        return self.call(code, offset)

    def call(self, code: CodeType, _offset: int, *_: Any) -> object:
        """Look at calls in code that is watched, for they report their returns; at no others."""
        return None if code.co_filename in self._watched else monitoring.DISABLE

    def code(self, code: CodeType, _offset: int, *_: Any) -> None:
        if (
            self.left
            and code.co_filename in self._watched
            and threading.current_thread() is threading.main_thread()
        ):
            self.left -= 1
            if not self.left:
                self.raised = True
                self.interrupted.add(Path(code.co_filename).parent.name)
                self.place = "".join(traceback.format_stack(sys._getframe(1), 4))
                raise KeyboardInterrupt

    def instruction(self, code: CodeType, offset: int) -> object:
        if offset not in jumps_back(code):
            return monitoring.DISABLE
        self.code(code, offset)
        return None

    @contextmanager
    def at(self, point: int) -> Generator[None]:
        self.left, self.raised = point, False
        try:
            yield
        finally:
            self.left = 0


@contextmanager
def interrupting(*modules: str) -> Generator[Interrupting]:
    """Interrupt the code of these modules, wherever `Interrupting.at` says."""
    if sys.version_info < (3, 12):
        pytest.skip("these points need sys.monitoring, of Python 3.12")
    files = {str(import_module(module).__file__) for module in modules}
    interrupting = Interrupting(files)
    events = monitoring.events
    callbacks: dict[int, Any] = {
        events.CALL: interrupting.call,
        events.C_RETURN: interrupting.code,
        events.PY_START: interrupting.start,
        events.PY_RESUME: interrupting.code,
        events.INSTRUCTION: interrupting.instruction,
    }
    tool = next(number for number in (4, 3) if monitoring.get_tool(number) is None)
    monitoring.use_tool_id(tool, "interrupting")
    try:
        for event, callback in callbacks.items():
            monitoring.register_callback(tool, event, callback)
        # What was disabled for the last one may be watched by this.
        monitoring.restart_events()
        monitoring.set_events(tool, events.CALL | events.PY_START | events.PY_RESUME)
        interrupting.tool = tool
        yield interrupting
    finally:
        monitoring.set_events(tool, 0)
        for event in callbacks:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)
