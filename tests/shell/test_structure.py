"""What keeps the shell readable: one loop, few untyped lines, a short way to the socket."""

from __future__ import annotations

import ast
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


def modules(under: Path) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(under.rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def test_one_module_steps_through_a_call() -> None:
    callers = [
        file.relative_to(PRODUCT).as_posix()
        for file, tree in modules(PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and "call_steps" in {getattr(node.func, "id", ""), getattr(node.func, "attr", "")}
    ]
    assert callers == ["shell/call/loop.py"]


def test_no_module_of_the_product_uses_mocks() -> None:
    users = [
        file
        for file, tree in modules(PRODUCT)
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unittest"))
        or (
            isinstance(node, ast.Import)
            and any(name.name.startswith("unittest") for name in node.names)
        )
    ]
    assert users == []


def lines_of_the_shell() -> Iterator[str]:
    for file in sorted((PRODUCT / "shell").rglob("*.py")):
        yield from file.read_text(encoding="utf-8").splitlines()


def test_any_stands_on_few_lines_of_the_shell() -> None:
    lines = [
        line
        for line in lines_of_the_shell()
        if re.search(r"\bAny\b", line) and "import" not in line
    ]
    assert len(lines) <= 10, lines


def test_few_types_of_the_shell_are_ignored() -> None:
    lines = [line for line in lines_of_the_shell() if "type: ignore" in line]
    assert len(lines) <= 6, lines


def test_a_shell_package_has_at_most_twelve_modules() -> None:
    for package in (PRODUCT / "shell").rglob("__init__.py"):
        modules = [file.name for file in package.parent.glob("*.py")]
        assert len(modules) - 1 <= 12, modules


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
