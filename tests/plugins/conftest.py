"""Fake distributions: a package, and the metadata that pip would have written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution of one module, with one entry point."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install_one(
        name: str,
        code: str,
        *,
        module: str = "",
        entry_points: str | None = None,
        metadata: str | None = None,
        where: Path = site,
    ) -> None:
        module = module or name.replace("-", "_")
        where.mkdir(exist_ok=True)
        (where / f"{module}.py").write_text(code, encoding="utf-8")
        info = where / f"{module}-1.2.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
        (info / "METADATA").write_text(text if metadata is None else metadata)
        points = f"[vibe_mux]\n{module} = {module}\n"
        (info / "entry_points.txt").write_text(
            points if entry_points is None else entry_points
        )

    yield install_one
    for added in set(sys.modules) - before:
        if getattr(sys.modules[added], "__file__", "") and str(tmp_path) in str(
            sys.modules[added].__file__
        ):
            del sys.modules[added]
