"""The sdist holds what its readers need, and is the same wherever it is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.waiting import PATIENCE

pytest.importorskip("setuptools")

COPIED = ("muxcore", "strategies", "backends", "docs")
BUILD = "from setuptools import build_meta; print(build_meta.build_sdist({target!r}))"


def built(tree: Path, **env: str) -> Path:
    """Build an sdist from a copy of this checkout, with times and a umask of its own."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.pyc"))
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, tree / file.name)
    shutil.copy(ROOT / "LICENSE", tree)
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(target=str(tree))],
        cwd=tree,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return tree / done.stdout.split()[-1]


@pytest.mark.slow
def test_it_is_the_same_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    one = built(tmp_path / "one")
    other = built(tmp_path / "elsewhere" / "other", TZ="Asia/Tokyo")
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert {m.mtime for m in archive.getmembers()} == {315532800}
    wanted = {"CHANGELOG.md", "SECURITY.md", "README.md", "LICENSE", "docs/threat-model.md"}
    assert wanted <= names
    assert "muxcore/py.typed" in names
