"""The source files of the product, parsed, for the tests of its structure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT, ROOT / "strategies", ROOT / "backends")
PACKAGES = ("muxcore", "muxcore_strategies", "muxcore_backends")
_LITERALS = (ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Constant, ast.JoinedStr)
_COMPOUND = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.If,
    ast.For,
    ast.While,
    ast.With,
    ast.Try,
)


@cache
def files() -> tuple[Path, ...]:
    """Return every Python file of the product."""
    roots = (s / p for s in SOURCES for p in PACKAGES if (s / p).is_dir())
    return tuple(file for root in roots for file in sorted(root.rglob("*.py")))


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def module_of(file: Path) -> str:
    """Return a file's dotted name, a package's for its `__init__.py`."""
    source = next(s for s in reversed(SOURCES) if file.is_relative_to(s))
    parts = file.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages() -> dict[str, Path]:
    """Return the folder of every package by its dotted name."""
    return {module_of(f): f.parent for f in files() if f.name == "__init__.py"}


def imports() -> dict[str, set[str]]:
    """Return the modules that each module imports, for any purpose. Faces of packages are none."""
    modules = {module_of(f): f for f in files() if f.name != "__init__.py"}
    return {module: _imported(file) & modules.keys() for module, file in modules.items()}


def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(f"{node.module}")
            found.update(f"{node.module}.{each.name}" for each in node.names)
    return found


def lines_of_logic(file: Path) -> int:
    """Count lines of code: no blanks, comments or docstrings, and no tables.

    A table is a literal of several lines that a module or a class assigns to a name.
    """
    counted: set[int] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.match_case):
            counted.add(node.pattern.lineno)
        for statement in _body_of(node):
            if not _is_text(statement) and not _is_table(node, statement):
                counted.update(_own_lines(statement))
    return len(counted)


def _body_of(node: ast.AST) -> Iterator[ast.stmt]:
    for name in ("body", "orelse", "finalbody"):
        part = getattr(node, name, ())
        if isinstance(part, list):
            yield from (one for one in part if isinstance(one, ast.stmt))


def _is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring: a text that nothing uses."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_table(parent: ast.AST, statement: ast.stmt) -> bool:
    if not isinstance(parent, ast.Module | ast.ClassDef):
        return False
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return False
    value = statement.value
    if isinstance(value, ast.Call) and len(value.args) == 1:
        value = value.args[0]
    return isinstance(value, _LITERALS) and statement.end_lineno != statement.lineno


def _own_lines(statement: ast.stmt) -> range:
    """Return the lines of a statement, of a block only those of its head."""
    assert statement.end_lineno is not None
    end = statement.end_lineno + 1
    if isinstance(statement, ast.Match):
        end = statement.cases[0].pattern.lineno
    elif isinstance(statement, _COMPOUND):
        end = max(statement.body[0].lineno, statement.lineno + 1)
    return range(statement.lineno, end)
