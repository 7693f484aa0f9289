"""What keeps the shell readable: one loop, few untyped lines, a short way to the socket."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import muxcore

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
