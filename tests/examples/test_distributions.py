"""The examples, really built and installed beside this package, and chosen by a config."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
SOURCES = ("muxcore", "strategies", "backends", "setup.cfg", "pyproject.toml", "LICENSE")

Run = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
[[providers]]
name = "here"
api_base = "http://127.0.0.1:1/v1"
backend = "{backend}"

[[models]]
name = "model-a"
provider = "here"
alias = "a"

[[models]]
name = "model-b"
provider = "here"
alias = "b"

[multiplexer]
enabled = true
mode = "{mode}"
options = {options}

[[multiplexer.pool]]
model = "a"

[[multiplexer.pool]]
model = "b"
weight = 2
"""

CALLS = """
import json, sys, threading
from muxcore import Multiplexer
from muxcore.standin import Model, StandInServer

SAY = [{"role": "user", "content": "x"}]
first, second = Model("model-a"), Model("model-b")
with StandInServer([first, second]) as server:
    table = json.loads(sys.argv[1])
    table["providers"][0]["api_base"] = server.url
    with Multiplexer.from_config(table, env={}) as mux:
        first.hold()
        held = threading.Thread(target=mux.complete, args=(SAY,), daemon=True)
        held.start()
        first.wait_for(lambda model: model.in_flight)
        answers = [mux.complete(SAY).model for _ in range(2)]
        first.release()
        held.join()
print(json.dumps(answers))
"""


CALL = """
import json, sys
from muxcore import Multiplexer

table = json.loads(sys.argv[1])
table["providers"][0]["api_base"] = "http://127.0.0.1:1/v1"
with Multiplexer.from_config(table, env={}) as mux:
    mux.complete([])
"""


def environment(**more: str) -> dict[str, str]:
    """Return this environment without what would let the checkout be imported."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.fullmatch(r"PYTHON.*|VIRTUAL_ENV|VIBE_.*|.*_API_KEY|COV_.*", name)
    }
    return kept | more


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with this package, both examples."""
    folder = tmp_path_factory.mktemp("installed")
    # Building writes into the sources, so it is done with a copy of them.
    for name in (*SOURCES, "README.md"):
        source = ROOT / name
        if source.is_dir():
            leave = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
            shutil.copytree(source, folder / "project" / name, ignore=leave)
        elif source.exists():
            shutil.copy(source, folder / "project" / name)
    copies = [
        shutil.copytree(
            example, folder / example.name, ignore=shutil.ignore_patterns("build")
        )
        for example in EXAMPLES
    ]
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run(
        [
            scripts / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            folder / "project",
            *copies,
        ],
        check=True,
        env=environment(),
    )
    return scripts


@pytest.fixture
def run(tools: Path, tmp_path: Path) -> Run:
    def run(*command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        more = {} if path is None else {"PYTHONPATH": str(path)}
        program, *arguments = command
        return subprocess.run(
            [tools / program, *arguments],
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=environment(PYTHONUTF8="1", VIBE_HOME=str(tmp_path), **more),
            timeout=PATIENCE,
            check=False,
        )

    return run


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    def config(
        mode: str = "least_busy", backend: str = "generic", options: str = "{}"
    ) -> str:
        file = tmp_path / "config.toml"
        text = CONFIG.format(mode=mode, backend=backend, options=options)
        file.write_text(text, encoding="utf-8")
        return str(file)

    return config


def distribution(folder: Path, name: str, code: str) -> Path:
    """Put a distribution with one plugin on a path, as an installer would leave it."""
    module = name.replace("-", "_")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(
        f"[vibe_mux]\nplugin = {module}\n", encoding="utf-8"
    )
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    return folder


def table(mode: str) -> str:
    """Return a config as JSON whose server is filled in later."""
    models = [{"name": f"model-{x}", "provider": "here", "alias": x} for x in "ab"]
    pool = [{"model": "a"}, {"model": "b"}]
    multiplexer: dict[str, Any] = {"enabled": True, "mode": mode, "pool": pool}
    providers = [{"name": "here", "api_base": ""}]
    return json.dumps(
        {"providers": providers, "models": models, "multiplexer": multiplexer}
    )


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_its_own_test_passes(example: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(example, tmp_path / example.name)
    places = [copy, ROOT, ROOT / "strategies", ROOT / "backends"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        encoding="utf-8",
        cwd=copy,
        env=environment(PYTHONPATH=os.pathsep.join(map(str, places))),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_modes_lists_plugins_with_their_distribution(run: Run) -> None:
    found = json.loads(run("vibe-mux", "modes", "--json").stdout)
    assert found["problems"] == []
    modes = {entry["name"]: entry for entry in found["modes"]}
    assert modes["least_busy"] == {
        "name": "least_busy",
        "distribution": "vibe-mux-strategy-least-busy",
        "version": "0.1.0",
        "summary": "The model with the fewest calls under way.",
    }
    assert modes["failover"]["distribution"] == "vibe-mux"
    assert modes["failover"]["version"]
    backends = {entry["name"]: entry["distribution"] for entry in found["backends"]}
    assert backends["azure"] == "vibe-mux-backend-azure"


def test_a_config_chooses_the_mode(run: Run, config: Callable[..., str]) -> None:
    ignored = run("vibe-mux", "check", "--config", config())
    assert 'weight: 2, which mode "least_busy" ignores' in ignored.stderr
    done = run("vibe-mux", "check", "--config", config(options="{by_weight = true}"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Mode: least_busy" in done.stdout


def test_its_options_are_checked(run: Run, config: Callable[..., str]) -> None:
    done = run("vibe-mux", "check", "--config", config(options="{by_wieght = true}"))
    assert done.returncode == 1
    assert (
        'multiplexer.options.by_wieght: an unknown option; did you mean "by_weight"?'
        in (done.stderr)
    )
    done = run("vibe-mux", "check", "--config", config(options='{by_weight = "yes"}'))
    assert done.returncode == 1
    assert 'multiplexer.options.by_weight: "yes", expected true or false' in done.stderr


def test_a_config_chooses_the_backend(run: Run, config: Callable[..., str]) -> None:
    done = run("vibe-mux", "check", "--json", "--config", config(backend="azure"))
    assert done.returncode == 0, done.stdout
    assert {entry["backend"] for entry in json.loads(done.stdout)["pool"]} == {"azure"}


def test_the_mode_decides(run: Run) -> None:
    done = run("python", "-c", CALLS, table("least_busy"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["b", "b"]


BROKEN = {
    "does-not-import": "import nothing_like_this",
    "leaves-python": "raise SystemExit(3)",
    "misspells": """
from muxcore import hookimpl
@hookimpl
def vibe_mux_register_strategy(register): ...
""",
    "forgets-the-mark": "def vibe_mux_register_strategies(register): ...",
    "takes-ours": """
from muxcore import hookimpl
@hookimpl
def vibe_mux_register_strategies(register):
    register("failover", dict)
    register(None, None)
""",
    "zz-again": """
from muxcore import hookimpl
@hookimpl
def vibe_mux_register_strategies(register):
    register("least_busy", dict)
""",
}
PROBLEMS = {
    "does-not-import": "No module named 'nothing_like_this'",
    "leaves-python": "SystemExit: 3",
    "misspells": "unknown hook 'vibe_mux_register_strategy'",
    "forgets-the-mark": "registers nothing; is @hookimpl missing on its hook?",
    "takes-ours": "registers the mode 'failover', which vibe-mux has registered already",
    "zz-again": (
        "registers the mode 'least_busy', which vibe-mux-strategy-least-busy has registered"
        " already: the first one counts"
    ),
}


def test_broken_plugins_are_named_and_break_no_other(
    run: Run, config: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "broken"
    for name, code in BROKEN.items():
        distribution(path, name, code)
    found = json.loads(run("vibe-mux", "modes", "--json", path=path).stdout)
    for name, text in PROBLEMS.items():
        assert [p for p in found["problems"] if name in p and text in p], (name, found)
    assert {e["name"] for e in found["modes"]} >= {"failover", "least_busy"}

    by_weight = config(options="{by_weight = true}")
    used = run("vibe-mux", "check", "--config", by_weight, path=path)
    assert used.returncode == 0
    assert used.stderr.count("warning: ") == len(found["problems"])
    # Built-in ones alone: no plugin is imported, so there is nothing to report.
    unused = run("vibe-mux", "check", "--config", config("load_balance"), path=path)
    assert (unused.returncode, unused.stderr) == (0, "")


def test_a_plugin_that_hangs_is_given_up(run: Run, tmp_path: Path) -> None:
    path = distribution(
        tmp_path / "slow", "hangs", "import threading\nthreading.Event().wait()"
    )
    code = "from muxcore.plugins.listing import listing; print(listing(2.0)['problems'])"
    done = run("python", "-c", code, path=path)
    assert "a plugin took longer than 2 s to import; only built-in ones" in done.stdout


def test_a_plugin_that_raises_in_pick_is_named(run: Run, tmp_path: Path) -> None:
    code = """
from muxcore import hookimpl

class Raising:
    def pick(self, candidates, memory, call, now):
        return candidates[9].endpoint, memory

@hookimpl
def vibe_mux_register_strategies(register):
    register("raising", Raising)
"""
    path = distribution(tmp_path / "raising", "raises-in-pick", code)
    done = run("python", "-c", CALL, table("raising"), path=path)
    assert "StrategyError: the mode raises_in_pick.Raising raised IndexError" in done.stderr
    assert "(mode raising of raises-in-pick 1.2)" in done.stderr
