"""The shell stays readable: few untyped lines, few frames down to the socket."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import muxcore
from muxcore.shell.call.multiplexer import Multiplexer

PRODUCT = Path(muxcore.__file__).parent


def lines_of_the_shell() -> Iterator[str]:
    for file in sorted((PRODUCT / "shell").rglob("*.py")):
        yield from file.read_text(encoding="utf-8").splitlines()


def test_few_lines_of_the_shell_use_any() -> None:
    lines = [
        line
        for line in lines_of_the_shell()
        if re.search(r"\bAny\b", line) and "import" not in line
    ]
    assert len(lines) <= 10, lines


def test_few_lines_of_the_shell_ignore_a_type() -> None:
    lines = [line for line in lines_of_the_shell() if "type: ignore" in line]
    assert len(lines) <= 6, lines


OWN = tuple(
    f"{PRODUCT.parent / part}{os.sep}" for part in ("muxcore", "strategies", "backends")
)


def depth_of(act: Callable[[], object]) -> list[str]:
    """Return the deepest way through own files that `act` takes in this thread."""
    deepest: list[str] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal deepest
        if event == "call" and frame.f_code.co_filename.startswith(OWN):
            each: FrameType | None = frame
            names = []
            while each is not None:
                if each.f_code.co_filename.startswith(OWN):
                    names.append(each.f_code.co_qualname)
                each = each.f_back
            deepest = max(deepest, names, key=len)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(before)
    return deepest[::-1]


def test_a_call_is_at_most_fourteen_frames_deep(make: Callable[..., Multiplexer]) -> None:
    multiplexer = make("alpha", "beta")
    messages = [{"role": "user", "content": "ping"}]
    # Over a new connection, then over a kept one.
    for _ in range(2):
        deepest = depth_of(partial(multiplexer.complete, messages))
        assert 8 < len(deepest) <= 14, deepest
