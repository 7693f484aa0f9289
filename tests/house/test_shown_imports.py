"""Every import that README, docs and examples show works, in this and in later versions."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module

import pytest

from tests.house.code import ROOT

SHOWN = {
    "muxcore": """
        Backend Call Candidate ConfigError Endpoint Multiplexer PoolExhaustedError PoolState
        RateLimited RequestRejectedError Started Strategy StreamInterruptedError Succeeded
        explain hookimpl load_config select update
    """,
    "muxcore.chat": "Chat",
    "muxcore.config.resolve": "strategy_named",
    "muxcore.core.entries": "CallResult",
    "muxcore.explaining.replay": "replay",
    "muxcore.explaining.steps": "ModelAnswered",
    "muxcore.explaining.story": "Story",
    "muxcore.gateway": "ConfigFollower Gateway",
    "muxcore.journal.export": "from_lines to_lines",
    "muxcore.observers.calls": "CallObserver",
    "muxcore.plugins.backend": "HttpRequest KeyHeader",
    "muxcore.standin": "Answer Cut Model StandInServer rate_limited refusal",
    "muxcore.testing": "OPENAI_SAMPLES Sample check_backend check_strategy",
    "muxcore.vibe": "PoolBackend through_pool",
    "muxcore_backends.failures": "classify",
    "muxcore_backends.generic": "Generic",
    "muxcore_backends.streaming": "GenericDecoder",
    "muxcore_strategies.failover": "Failover",
}
"""What was shown once stays here, also when the page that showed it is gone."""
NEEDS_VIBE = "muxcore.vibe"
IMPORT = re.compile(
    r"^\s*from (muxcore[\w.]*) import (?:\(([^)]*)\)|([^\n(]+))$", re.MULTILINE
)


def shown() -> set[tuple[str, str]]:
    return {(module, name) for module, text in SHOWN.items() for name in text.split()}


@pytest.mark.parametrize(("module", "name"), sorted(shown()))
def test_imports_in_the_documents_work(module: str, name: str) -> None:
    if module == NEEDS_VIBE:
        # Importing them needs vibe itself; that they are offered does not.
        assert name in import_module(module).__all__
    else:
        assert hasattr(import_module(module), name)


def test_every_import_in_the_documents_is_listed() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    pages += [p for p in (ROOT / "examples").rglob("*") if p.suffix in {".md", ".py"}]
    found = {
        (module, name)
        for page in pages
        for module, several, one in IMPORT.findall(page.read_text("utf-8"))
        for name in re.findall(r"\w+", re.sub("#.*", "", several or one))
    }
    assert found - shown() == set()


def test_the_simulator_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "muxcore.testing.simulate", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "--seed" in done.stdout
