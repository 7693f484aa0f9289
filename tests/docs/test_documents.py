"""Every example in the documents holds: Python runs, in its document's order; configs load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from muxcore import load_config

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CONFIGS = {"multiplexer.md", "multiplexer-examples.md", "migration-guide.md"}
RENAMED = 'is now "mistral-medium-3.5" in [[models]], because vibe renamed it'


def load(example: Example) -> None:
    """Load a config without a fault or warning; the next Python sees it as `config`."""
    text = str(example.parsed)
    variables = {"MISTRAL_API_KEY", *re.findall(r'api_key_env_var = "(\w+)"', text)}
    config = load_config(tomli.loads(text), env=dict.fromkeys(variables, "k"))
    assert [warning for warning in config.warnings if RENAMED not in warning] == []
    example.namespace["config"] = config


sybil = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()])
sybil_with_configs = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser(), CodeBlockParser("toml", load)]
)


@pytest.mark.unmeasured
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_examples_hold(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that what a document sets is unset again, whatever it raises.
    for name in ("VIBE_HOME", "MISTRAL_API_KEY", "VIBE_ACTIVE_MODEL"):
        monkeypatch.setenv(name, "")
    parser = sybil_with_configs if path.name in WITH_CONFIGS else sybil
    for example in parser.parse(path).examples():
        example.evaluate()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_links_have_targets(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{path.name} links to {target}"


def test_every_page_is_listed_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = {path.name for path in DOCUMENTS} - {"README.md", "index.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def anchors(file: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
