"""The house stays in order: sizes, names, and a place for everything in the documents."""

from __future__ import annotations

import ast
import configparser
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.house.code import (
    ROOT,
    files,
    imports,
    lines_of_logic,
    module_of,
    packages,
    parsed,
)

MOST_LINES = 400
MOST_MODULES = 12
VERBS_OF_SPEECH = {"tell", "tells", "told", "say", "says", "said", "speak", "spoken"}
"""They do not say what a function does: it describes, reports, raises or returns."""
DESIGN = (ROOT / "docs" / "design.md").read_text("utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")
EXPLAINED = ("muxcore.core", "muxcore.shell", "muxcore.gateway")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("file", files(), ids=module_of)
def test_a_file_holds_at_most_400_lines_of_logic(file: Path) -> None:
    assert lines_of_logic(file) <= MOST_LINES


@pytest.mark.parametrize(("package", "folder"), packages().items(), ids=packages())
def test_a_package_holds_at_most_twelve_modules(package: str, folder: Path) -> None:
    modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    assert len(modules) <= MOST_MODULES, sorted(modules)


def test_no_modules_import_each_other_in_a_circle() -> None:
    # It raises a `CycleError`, which names the circle.
    assert list(TopologicalSorter(imports()).static_order())


def test_no_two_classes_have_the_same_name() -> None:
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files():
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(file)
    assert {name: names(at) for name, at in found.items() if len(at) > 1} == {}


def test_no_two_modules_of_a_package_have_the_same_name() -> None:
    found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files():
        if file.name != "__init__.py":
            *room, name = module_of(file).split(".")
            found[(*room[:2], name)].append(file)
    assert [names(at) for at in found.values() if len(at) > 1] == []


def test_no_function_is_named_by_a_verb_of_speech() -> None:
    assert [
        f"{module_of(file)}.{node.name}"
        for file in files()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.FunctionDef)
        if VERBS_OF_SPEECH.intersection(node.name.split("_"))
    ] == []


def test_a_call_has_one_text_and_one_caller() -> None:
    """The shell and the simulator drive the same loop."""
    callers = [
        module_of(file)
        for file in files()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Name | ast.Attribute)
        if (node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
        == "call_steps"
    ]
    assert len(callers) == 1, callers


def test_the_product_does_not_patch_its_own_code() -> None:
    """A seam is an argument; `unittest.mock` is for tests."""
    assert [
        module_of(file)
        for file in files()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Import | ast.ImportFrom)
        if "unittest" in ast.unparse(node)
    ] == []


@pytest.mark.parametrize("package", packages())
def test_the_design_has_a_row_for_every_package(package: str) -> None:
    assert re.search(rf"^\| .*`{re.escape(package)}`.* \|", DESIGN, re.MULTILINE)


def test_every_package_is_installed() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", "utf-8")
    assert sorted(settings["options"]["packages"].split()) == sorted(packages())


def public_classes() -> dict[str, str]:
    """Return the names of all public classes that the glossary explains, by their module."""
    return {
        node.name: module_of(file)
        for file in files()
        if module_of(file).startswith(EXPLAINED)
        for node in parsed(file).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def test_the_glossary_explains_every_public_class() -> None:
    """Of the core, the shell and the gateway."""
    assert [name for name in public_classes() if f"`{name}`" not in GLOSSARY] == []


def test_the_glossary_explains_no_removed_class() -> None:
    written = re.findall(r"^\| `(\w+)` \|", GLOSSARY, re.MULTILINE)
    assert set(written) - set(public_classes()) == set()
    assert len(written) == len(set(written))
