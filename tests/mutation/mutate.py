"""Mutation testing: `python -m tests.mutation.mutate`. POSIX only, as it forks.

Every module under test is changed in one place at a time, and its tests are run until one
fails. A change that none notices is a survivor: the tests miss something, or the change makes
no difference. `docs/testing.md` explains those that are left.

The tests run inside forked children of one process that has all libraries at hand, the quick
files first; so a change costs the time of the first test that notices it.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib.abc
import importlib.util
import itertools
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT, ROOT / "strategies", ROOT / "backends")
MOST_WORK, LONGEST_WAIT = 120, 1200
"""Seconds of computing, and of waiting, for the tests of one mutant.

What takes longer does not end, and is noticed.
"""

CORE = (
    *sorted(ROOT.joinpath("muxcore", "core").rglob("[!_]*.py")),
    ROOT / "muxcore" / "text.py",
)
CLASSIFICATION = tuple(
    ROOT / "backends" / "muxcore_backends" / f"{name}.py"
    for name in ("failures", "words", "hints", "complaints", "shapes", "toolcalls")
)


def _module(path: Path) -> str:
    source = max((s for s in SOURCES if path.is_relative_to(s)), key=lambda s: len(s.parts))
    return ".".join(path.relative_to(source).with_suffix("").parts)


PATHS = {
    _module(path): path.relative_to(ROOT).as_posix() for path in (*CORE, *CLASSIFICATION)
}
TEXTS = {module: (ROOT / path).read_text() for module, path in PATHS.items()}
"""Their text at the beginning, in case of an edit meanwhile."""

OWN_TESTS = {
    "selection": "core/test_selecting",
    "cooldowns": "core/test_updating",
    "publishing": "core/test_hearing",
    "phases": "transition/test_phases",
    "endpoints": "core/test_records",
    "entries": "core/test_hearing",
    "facts": "core/test_hearing",
    "outcomes": "core/test_updating",
    "strategy": "core/test_strategies",
    "text": "test_text",
    "words": "backends/test_wordings",
    "shapes": "backends/test_replies",
    "toolcalls": "backends/test_tool_calls",
}
"""What notices most changes of a module comes first. Others have a file of their own name."""
LONG_TESTS = ("core/test_rules", "core/test_hearing", "backends/test_allowances")
MORE_TESTS = {
    "selection": ("simulation/test_model", "simulation/test_worlds"),
    "updating": ("simulation/test_model", "simulation/test_worlds"),
    "protocol": ("simulation/test_worlds",),
    "allowance": ("simulation/test_worlds",),
    "leases": ("simulation/test_processes",),
    "hearing": ("simulation/test_processes",),
    "publishing": ("simulation/test_processes",),
    # The core only carries these, its users test them.
    "endpoints": (
        "config/test_options",
        "config/test_vibe_files",
        "backends/test_requests",
    ),
}


def tests_of(module: str) -> tuple[str, ...]:
    """Return the files of the tests that may notice a change, in the order to run them in."""
    name = module.rpartition(".")[2]
    folder = "core" if module.startswith("muxcore.") else "backends"
    own = OWN_TESTS.get(name, f"{folder}/test_{name}")
    whole = {
        f"{folder}/{path.stem}" for path in (ROOT / "tests" / folder).glob("test_*.py")
    }
    others = sorted(whole - {own}, key=lambda test: (test in LONG_TESTS, test))
    tests = (own, *others, *MORE_TESTS.get(name, ()))
    return tuple(f"tests/{test}.py" for test in tests)


UNUSED_PLUGINS = ("cacheprovider", "warnings", "unraisableexception", "threadexception")

# -- Changes ----------------------------------------------------------------------------------

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.Pow: ast.Mult,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@frozen
class Mutant:
    """One module, changed in one place: its `node`, in the `way`, of all that could be."""

    module: str
    node: int
    way: int
    line: int
    change: str

    def code(self) -> ast.Module:
        tree = _parsed(self.module)
        _change(tree, self.node, self.way)
        return ast.fix_missing_locations(tree)

    def __str__(self) -> str:
        return f"{PATHS[self.module]}:{self.line}: {self.change}"


def mutants_of(module: str) -> Iterator[Mutant]:
    for position, node in enumerate(_mutable(_parsed(module))):
        for way in range(len(_changes(node))):
            change = f"{ast.unparse(node)}  ->  {_change(_parsed(module), position, way)}"
            line = getattr(node, "lineno", 0)
            yield Mutant(module, position, way, line, " ".join(change.split()))


def _parsed(module: str) -> ast.Module:
    return ast.parse(TEXTS[module])


def _change(tree: ast.Module, position: int, way: int) -> str:
    """Change this node of a tree; return how it reads then."""
    node = next(itertools.islice(_mutable(tree), position, None))
    for name, value in _changes(node)[way].items():
        setattr(node, name, value)
    return ast.unparse(ast.fix_missing_locations(node))


def _mutable(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk through all that runs: no annotations, documentation, or notes for type checkers."""
    for name, value in ast.iter_fields(tree):
        if name in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        if name == "keys" and isinstance(tree, ast.Dict) and _are_labels(tree):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if not isinstance(child, ast.AST) or _is_for_people(child):
                continue
            yield child
            yield from _mutable(child)


def _are_labels(table: ast.Dict) -> bool:
    """Whether the keys of a table only say whose wordings its values are."""
    return all(isinstance(value, ast.Tuple) for value in table.values)


def _is_for_people(node: ast.AST) -> bool:
    """Whether it says something, and does nothing."""
    match node:
        case (
            ast.Expr(value=ast.Constant())
            | ast.Import()
            | ast.ImportFrom()
            | ast.Assert()
            | ast.AnnAssign(annotation=ast.Name(id="TypeAlias"))
            | ast.Expr(value=ast.Call(func=ast.Name(id="assert_never")))
            | ast.Call(func=ast.Name(id="cast" | "TypeVar"))
            | ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")])
            | ast.match_case(pattern=ast.MatchAs(pattern=None, name="never"))
        ):
            return True
        case _:
            return False


def _changes(node: ast.AST) -> list[dict[str, object]]:  # noqa: C901, PLR0912 - a table
    """Return the ways in which to change this node: the fields that are then other ones."""
    ways: list[dict[str, object]] = []

    def way(**fields: object) -> None:
        ways.append(fields)

    match node:
        case ast.Compare(ops=[op]):
            for other in COMPARISONS.get(type(op), ()):
                way(ops=[other()])
        case ast.Compare(ops=[first, second]):
            for other in COMPARISONS.get(type(first), ())[:1]:
                way(ops=[other(), second])
            for other in COMPARISONS.get(type(second), ())[:1]:
                way(ops=[first, other()])
        case ast.BoolOp(op=ast.And()):
            way(op=ast.Or())
        case ast.BoolOp(op=ast.Or()):
            way(op=ast.And())
        case ast.UnaryOp(op=ast.Not()):
            way(operand=ast.UnaryOp(ast.Not(), node.operand))
        case ast.BinOp(op=op) if type(op) in OPERATORS and not _joins_types(node):
            way(op=OPERATORS[type(op)]())
        case ast.If(test=test) | ast.IfExp(test=test):
            way(test=ast.BoolOp(ast.Or(), [test, ast.Constant(True)]))
            way(test=ast.BoolOp(ast.And(), [test, ast.Constant(False)]))
        case ast.Constant(value=bool() as value):
            way(value=not value)
        case ast.Constant(value=int() | float() as value):
            way(value=value + 1)
        case ast.Constant(value=str() as value) if value:
            way(value=f"XX{value}XX")
        case ast.Name(id=name) if name in NAMES:
            way(id=NAMES[name])
        case ast.Return(value=value) if value is not None and not _is_none(value):
            way(value=ast.Constant(None))
        case _:
            pass
    return ways


def _joins_types(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.BitOr)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


# -- Running the tests of one ------------------------------------------------------------------


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the changed module in the place of the one on the disk."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        origin = str(ROOT / PATHS[fullname])
        return importlib.util.spec_from_loader(fullname, self, origin=origin)

    def exec_module(self, module: ModuleType) -> None:
        path = str(ROOT / PATHS[self._mutant.module])
        exec(compile(self._mutant.code(), path, "exec"), module.__dict__)  # noqa: S102


def survives(mutant: Mutant | None, tests: Sequence[str]) -> bool:
    """Whether all tests pass; in a child, so that nothing of it stays."""
    child = os.fork()
    if not child:
        _run(mutant, tests)
    limit = time.perf_counter() + LONGEST_WAIT
    while time.perf_counter() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        # Without a handler, no signal reports the end of a child.
        time.sleep(0.01)  # noqa: TID251
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run(mutant: Mutant | None, tests: Sequence[str]) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_WORK, MOST_WORK))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        if mutant is not None:
            sys.meta_path.insert(0, _Finder(mutant))
        import pytest
        from hypothesis.internal.conjecture.engine import ConjectureRunner

        # One failure is enough, and its report is not read, so it need not be shrunk.
        ConjectureRunner.shrink_interesting_test_cases = _leave  # type: ignore[assignment,method-assign]
        quiet = ["-x", "-q", "--tb=no", "--assert=plain"]
        for plugin in UNUSED_PLUGINS:
            quiet += ["-p", f"no:{plugin}"]
        # One file after the other: nothing of a later one is read if an earlier one notices.
        code = 0
        for test in tests:
            if not code:
                ended = int(pytest.main([*quiet, str(ROOT / test)]))
                code = 0 if ended == pytest.ExitCode.NO_TESTS_COLLECTED else ended
    finally:
        os._exit(code)


def _leave(_: object) -> None:
    """Leave a failure as large as it is."""


def _prepare() -> None:
    """Import what all children need, but nothing that is to be changed."""
    sys.path[:0] = [str(path) for path in SOURCES]
    sys.dont_write_bytecode = True
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import attrs  # noqa: F401
    import cattrs  # noqa: F401
    import hypothesis.stateful  # noqa: F401
    import pytest  # noqa: F401
    import requests  # noqa: F401

    gc.freeze()


def _work(mutants: Sequence[Mutant], part: int, parts: int, report: int) -> None:
    """Go through every Nth mutant, and write the numbers of the survivors."""
    with os.fdopen(report, "w") as out:
        for number, mutant in enumerate(mutants):
            if number % parts == part:
                tests = tests_of(mutant.module)
                alive = survives(mutant, tests)
                out.write(f"{number} {int(alive)}\n")
                out.flush()
                if alive:
                    print(f"not noticed: {mutant}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("tests.mutation.mutate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("modules", nargs="*", default=list(PATHS), metavar="MODULE")
    parser.add_argument("--every", type=int, default=1, help="only every Nth change")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(arguments)
    _prepare()
    began = time.perf_counter()
    everything = sorted({test for m in asked.modules for test in tests_of(m)})
    if not survives(None, everything):
        print("the tests fail before anything is changed")
        return 2
    mutants = [m for module in asked.modules for m in mutants_of(module)][:: asked.every]
    readers = []
    for part in range(asked.processes):
        read, write = os.pipe()
        if not os.fork():
            os.close(read)
            _work(mutants, part, asked.processes, write)
            os._exit(0)
        os.close(write)
        readers.append(os.fdopen(read))
    alive: set[int] = set()
    for reader in readers:
        alive |= {int(line.split()[0]) for line in reader if line.split()[1] == "1"}
    _report(mutants, alive, time.perf_counter() - began)
    return 0 if len(alive) <= 0.05 * len(mutants) else 1


def _report(mutants: Sequence[Mutant], alive: set[int], seconds: float) -> None:
    for module in dict.fromkeys(mutant.module for mutant in mutants):
        numbers = [n for n, mutant in enumerate(mutants) if mutant.module == module]
        killed = len(numbers) - len(alive.intersection(numbers))
        print(f"{module}: {killed} of {len(numbers)} noticed ({killed / len(numbers):.1%})")
    killed = len(mutants) - len(alive)
    print(
        f"in all: {killed} of {len(mutants)} ({killed / len(mutants):.1%}), {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
