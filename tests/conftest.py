"""What every test needs: no keyring, signals or settings of the user who runs it.

And what many need: a server of two stand-in models.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any
from uuid import uuid4

import coverage
import freezegun
import pytest
from hypothesis import HealthCheck, settings

from muxcore.config.keyring import OFF
from muxcore.standin import Model, StandInServer
from tests import timed

# No test depends on the speed of the machine: not on that of one example, nor of making it.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# It looks through all that is loaded each time that it stops the clock: not through these.
freezegun.configure(extend_ignore_list=["anthropic", "mistralai", "openai", "selenium"])

# For the processes that tests start, too.
os.environ[OFF] = "1"
# No test writes to the state file of whoever runs it.
_STATE = tempfile.TemporaryDirectory(prefix="vibe-mux-tests-", ignore_cleanup_errors=True)
os.environ["XDG_STATE_HOME"] = _STATE.name

# In the background, a shell has its programs ignore some of these, and so their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
if os.name != "nt":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage in a test marked `unmeasured`, which takes half the time then."""
    measuring = coverage.Coverage.current()
    if measuring is None or item.get_closest_marker("unmeasured") is None:
        return (yield)
    measuring.stop()
    try:
        return (yield)
    finally:
        measuring.start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    timed.mark(items)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name each kind of test that was not run, for `.ci/check.py` to collect."""
    stats = terminalreporter.stats
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in stats.get("skipped", ())
    )
    for item in stats.get("deselected", ()):
        if item.get_closest_marker("slow"):
            reasons[
                f"slow: {(item.module.__doc__ or item.name).partition(chr(10))[0]}"
            ] += 1
        else:
            reasons["left out by a choice of tests"] += 1
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"NOT RUN: {reason} [{count}]")


@pytest.fixture(scope="module", autouse=True)
def _collect_quickly() -> None:
    # A test that collects garbage then looks only at what the tests of its module have made.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _state_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test remembers what another met."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / uuid4().hex))


@pytest.fixture
def alpha() -> Model:
    return Model("model-a")


@pytest.fixture
def beta() -> Model:
    return Model("model-b")


@pytest.fixture
def server(alpha: Model, beta: Model) -> Iterator[StandInServer]:
    with StandInServer([alpha, beta]) as server:
        yield server
