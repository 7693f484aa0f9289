"""Every Python example in the documents runs, in its document's order."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

sybil = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_examples_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that what a document sets is unset again, whatever it raises.
    for name in ("VIBE_HOME", "MISTRAL_API_KEY"):
        monkeypatch.setenv(name, "")
    document = sybil.parse(path)
    for example in document.examples():
        example.evaluate()
