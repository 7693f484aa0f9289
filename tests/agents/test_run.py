"""`vibe-mux run`, with small programs in vibe's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from muxcore.board.state_dir import default_path
from muxcore.cli.run import advice_on_section, receipt_line
from muxcore.config import load
from muxcore.gateway import find
from muxcore.standin import Model, Stall, StandInServer, rate_limited
from muxcore.vibe.release import Release
from tests.gateway.conftest import as_toml, config
from tests.processes import COMMAND, ROOT, environment
from tests.waiting import PATIENCE, wait_until

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
WELCOME_AND_RECEIPT = 3
"""The lines of a first run: the pool, the file of its state, and the receipt."""

ASK = """
import json, os, sys, urllib.request
def ask(alias="large"):
    models = {m["alias"]: m for m in json.loads(os.environ["VIBE_MODELS"])}
    providers = {p["name"]: p for p in json.loads(os.environ["VIBE_PROVIDERS"])}
    model = models[alias]
    provider = providers[model["provider"]]
    request = urllib.request.Request(
        provider["api_base"] + "/chat/completions",
        json.dumps({"model": model["name"],
                    "messages": [{"role": "user", "content": "ping"}]}).encode(),
        {"Authorization": "Bearer " + os.environ[provider["api_key_env_var"]],
         "Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        # To the end of the connection: the server has counted the call by then.
        return json.loads(answer.fp.read())["choices"][0]["message"]["content"]
"""


@frozen(eq=False)
class Place:
    """A config over two stand-ins, and programs that are run through it."""

    file: Path
    large: Model
    small: Model
    env: dict[str, str]
    stack: ExitStack

    def command(self, script: str, *options: str) -> list[str]:
        program = [sys.executable, "-c", ASK + script]
        return [*COMMAND, "run", *options, "--", *program]

    def run(
        self, script: str, *options: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(script, *options),
            env={**self.env, **env},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, script: str, *options: str, **env: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            self.command(script, *options),
            env={**self.env, **env},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.stack.callback(started.communicate)
        self.stack.callback(started.kill)
        return started

    def is_served(self) -> bool:
        return find(self.file, self.env) is not None

    def rewrite(self, **section: Any) -> None:
        made = config("http://127.0.0.1:9/v1", "large", "small", **section)
        self.file.write_text(as_toml(made))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    large, small = Model("large-model"), Model("small-model")
    with ExitStack() as stack:
        upstream = stack.enter_context(StandInServer([large, small]))
        file = tmp_path / "config.toml"
        file.write_text(as_toml(config(upstream.url, "large", "small")))
        env = environment(tmp_path, VIBE_HOME=str(tmp_path))
        made = Place(file, large, small, env, stack)
        yield made
        # The last one out has stopped it.
        wait_until(lambda: not made.is_served())


def test_the_active_model_is_the_pool(place: Place) -> None:
    place.large.default = rate_limited()
    done = place.run("print(ask()); sys.exit(7)")
    assert (done.returncode, done.stdout) == (7, "pong from small-model\n")
    first, kept, last = done.stderr.splitlines()
    assert first == "vibe-mux: failover; on this machine: large, small"
    assert kept == f"vibe-mux: what the pool learns is kept in {default_path(place.env)}"
    assert last.startswith("vibe-mux: 1 interruption avoided, ")
    assert last.endswith("of waiting saved; 1 call (small 1), 0% cached")
    # The file is named once, when it is made.
    assert len(place.run("print(ask())").stderr.splitlines()) == WELCOME_AND_RECEIPT - 1


def test_no_file_is_named_where_none_can_be_made(place: Place, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    done = place.run("print(ask())", XDG_STATE_HOME=str(tmp_path / "taken"))
    assert done.stdout == "pong from large-model\n"
    assert "is kept in" not in done.stderr


def test_a_line_for_each_call_is_appended_to_a_file(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "calls.log"
    for _ in range(2):
        place.run("print(ask())", "--log", str(log))
    # The server writes it, and may end after the run.
    wait_until(lambda: log.exists() and log.read_text().count("\n") == 2)
    lines = log.read_text().splitlines()
    assert all(" served by large in " in line for line in lines)


def test_another_alias_is_that_model_alone(place: Place) -> None:
    assert place.run("print(ask('small'))").stdout == "pong from small-model\n"
    assert not place.large.requests


def test_any_other_program_gets_the_variables_of_openais_libraries(place: Place) -> None:
    script = """
import http.client
address = urllib.parse.urlsplit(os.environ["OPENAI_BASE_URL"])
connection = http.client.HTTPConnection(address.netloc)
body = json.dumps({"model": "gpt-5", "input": "ping"})
headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"],
           "Content-Type": "application/json", "Connection": "close"}
connection.request("POST", address.path + "/responses", body, headers)
print(json.loads(connection.getresponse().read())["output"][0]["content"][0]["text"])
"""
    done = place.run(script)
    assert done.stdout == "pong from large-model\n", done.stderr
    assert "1 call (large 1)" in done.stderr


def test_quiet_prints_nothing(place: Place) -> None:
    assert place.run("ask()", "--quiet").stderr == ""


def test_the_skill_exists_while_the_program_runs(place: Place) -> None:
    script = """
folder, = json.loads(os.environ["VIBE_SKILL_PATHS"])
print(folder); print(open(folder + "/mux/SKILL.md").read())
"""
    folder, text = place.run(script, "--quiet").stdout.split("\n", 1)
    assert "name: mux" in text
    assert not Path(folder).exists()


@POSIX
def test_the_programs_arguments_are_its_own(place: Place) -> None:
    script = "print(sys.argv[1:])"
    command = [*place.command(script), "--quiet", "--", "--config", "x"]
    done = subprocess.run(
        command, env=place.env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['--quiet', '--', '--config', 'x']\n"


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_program(place: Place, number: signal.Signals) -> None:
    script = f"""
import signal
signal.signal({int(number)}, lambda *_: sys.exit(33))
print("ready", flush=True)
signal.pause()
"""
    started = place.start(script)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    started.send_signal(number)
    assert started.wait(PATIENCE) == 33


@POSIX
def test_an_end_by_a_signal_has_the_exit_status_of_a_shell(place: Place) -> None:
    done = place.run("os.kill(os.getpid(), 9)", "--quiet")
    assert done.returncode == 128 + 9


@POSIX
def test_a_program_that_stops_itself_stops_the_command(place: Place) -> None:
    script = """
import signal
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print("again", flush=True)
"""
    started = place.start(script, "--quiet")
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    _, status = os.waitpid(started.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    started.send_signal(signal.SIGCONT)
    assert started.stdout.readline() == "again\n"
    assert started.wait(PATIENCE) == 0


def test_several_runs_share_a_server_that_ends_with_the_last(place: Place) -> None:
    script = "print(ask(), flush=True); sys.stdin.readline()"
    place.large.then(rate_limited())
    first = place.start(script, "--quiet")
    assert first.stdout is not None
    assert first.stdout.readline() == "pong from small-model\n"
    second = place.start(script, "--quiet")
    assert second.stdout is not None
    assert second.stdout.readline() == "pong from small-model\n"
    # What one has met, the other need not.
    assert len(place.large.requests) == 1
    first.communicate("\n", timeout=PATIENCE)
    assert place.is_served()
    second.communicate("\n", timeout=PATIENCE)
    wait_until(lambda: not place.is_served())


@POSIX
def test_a_killed_server_is_replaced_and_the_program_continues(place: Place) -> None:
    started = place.start("print(ask(), flush=True); sys.stdin.readline(); print(ask())")
    assert started.stdout is not None
    assert started.stdout.readline() == "pong from large-model\n"
    server = find(place.file, place.env)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    out, errors = started.communicate("\n", timeout=PATIENCE)
    assert out == "pong from large-model\n"
    *_, end, receipt = errors.splitlines()
    assert end == (
        "vibe-mux: the server has ended (by signal SIGKILL);"
        " a new one is started in its place"
    )
    assert receipt.startswith("vibe-mux: 0 interruptions avoided; 1 call")
    assert started.returncode == 0


@POSIX
@pytest.mark.parametrize(("code", "status"), [(0, 1), (7, 7)])
def test_a_call_that_is_lost_with_its_server_shows_in_the_exit_status(
    place: Place, code: int, status: int
) -> None:
    place.large.then(Stall(1))
    script = f"""
try:
    ask()
except OSError:
    print("broke", flush=True)
sys.exit({code})
"""
    started = place.start(script)
    place.large.wait_for(lambda model: model.in_flight == 1)
    server = find(place.file, place.env)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    out, errors = started.communicate(timeout=PATIENCE)
    place.large.release()
    assert out == "broke\n"
    assert errors.splitlines()[-1] == "vibe-mux: 1 call lost when the server ended"
    assert started.returncode == status


@POSIX
def test_a_killed_run_leaves_its_agent_served_while_another_run_is_there(
    place: Place,
) -> None:
    script = "print(ask(), flush=True); sys.stdin.readline(); print(ask(), flush=True)"
    first = place.start(script)
    assert first.stdout is not None
    assert first.stdout.readline() == "pong from large-model\n"
    second = place.start(script)
    assert second.stdout is not None
    assert second.stdout.readline() == "pong from large-model\n"
    first.kill()
    first.wait(PATIENCE)
    server = find(place.file, place.env)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    assert first.stdin is not None
    # The agent of the killed run still has its pipes.
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.stdout.readline() == "pong from large-model\n"
    second.communicate("\n", timeout=PATIENCE)
    assert second.returncode == 0


@POSIX
def test_a_taken_runtime_directory_is_one_line(place: Place, tmp_path: Path) -> None:
    (tmp_path / "vibe-mux").mkdir(mode=0o777)
    (tmp_path / "vibe-mux").chmod(0o777)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (temporary / f"vibe-mux-{os.getuid()}").symlink_to(tmp_path)
    done = place.run("print(ask())", TMPDIR=str(temporary))
    assert (done.returncode, done.stdout) == (0, "pong from large-model\n")
    first, *others = done.stderr.splitlines()
    assert first.startswith(
        "vibe-mux: this run has a server of its own: no place for the file"
    )
    assert "open to others" in first
    assert "not this user's own" in first
    assert len(others) == WELCOME_AND_RECEIPT


@POSIX
@pytest.mark.parametrize("umask", [0o777, 0o277])
def test_any_umask_is_served(place: Place, umask: int) -> None:
    done = subprocess.run(
        place.command("print(ask()); print(os.environ['VIBE_SKILL_PATHS'])"),
        env=place.env,
        cwd=ROOT,
        umask=umask,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.startswith("pong from large-model\n"), done.stderr
    assert len(done.stderr.splitlines()) == WELCOME_AND_RECEIPT
    (folder,) = json.loads(done.stdout.splitlines()[1])
    assert not Path(folder).exists()


@POSIX
def test_files_of_a_killed_run_are_removed_by_the_next(
    place: Place, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    started = place.start(
        "print('here', flush=True); sys.stdin.readline()", TMPDIR=str(temporary)
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "here\n"
    (left,) = temporary.glob("vibe-mux-skills-*")
    started.kill()
    started.communicate(timeout=PATIENCE)
    assert left.exists()
    os.utime(left, (0, 0))  # As if a minute had passed.
    wait_until(lambda: not place.is_served())
    assert place.run("print(ask())", TMPDIR=str(temporary)).returncode == 0
    assert list(temporary.iterdir()) == []
    assert list((tmp_path / "vibe-mux").iterdir()) == []


def test_a_server_with_a_drill_is_not_shared(place: Place) -> None:
    script = "print(ask(), flush=True); sys.stdin.readline()"
    drilled = place.start(script, "--quiet", "--break", "large=429")
    assert drilled.stdout is not None
    assert drilled.stdout.readline() == "pong from small-model\n"
    assert not place.is_served()
    assert place.run("print(ask())", "--quiet").stdout == "pong from large-model\n"
    drilled.communicate("\n", timeout=PATIENCE)


@pytest.mark.parametrize(
    ("drill", "code", "words"),
    [
        ("large=worse", 2, "--break: expected ALIAS=FAULT@N"),
        ("unknown=429", 1, "'unknown', which is not in the pool (known: large, small)"),
    ],
)
def test_an_invalid_drill_is_one_line(
    place: Place, drill: str, code: int, words: str
) -> None:
    done = place.run("print('ran')", "--break", drill)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disabled_multiplexer_shows_the_lines_that_switch_it_on(place: Place) -> None:
    text = place.file.read_text().splitlines()
    place.file.write_text("\n".join(line for line in text if "multiplexer" not in line))
    done = place.run("print('VIBE_MODELS' in os.environ)")
    assert done.stdout == "False\n"
    name = Path(sys.executable).stem
    assert f"the multiplexer is off; {name} runs as it is" in done.stderr
    assert "vibe-mux init" in done.stderr
    assert '[[multiplexer.pool]]\nmodel = "large"' in done.stderr
    assert place.run("", "--quiet").stderr == ""


def test_a_multiplexer_disabled_by_the_user_is_one_line(place: Place) -> None:
    place.rewrite(enabled=False)
    assert len(place.run("").stderr.splitlines()) == 1
    assert place.run("", "--break", "large=429").returncode == 1


def test_an_invalid_config_is_reported_even_when_quiet(place: Place) -> None:
    place.rewrite(mode="failovr")
    done = place.run("print('VIBE_MODELS' in os.environ)", "--quiet")
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert 'did you mean "failover"?' in done.stderr
    assert "runs as it is, without the pool" in done.stderr


@pytest.mark.parametrize(
    ("program", "hint"),
    [
        ("no-such-vibe", ""),
        ("vibe", "; `uv tool install mistral-vibe` installs it"),
        ("codex", "; `npm install -g @openai/codex` installs it"),
    ],
)
def test_a_missing_program_is_one_line_and_says_how_to_get_one_that_is_known(
    place: Place, tmp_path: Path, program: str, hint: str
) -> None:
    command = [sys.executable, "-m", "muxcore", "run", "--", program]
    env = {**place.env, "PATH": str(tmp_path)}
    done = subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    expected = f"vibe-mux: {program}: not found{hint}\n"
    assert (done.returncode, done.stderr) == (127, expected)


def test_modules_in_the_working_directory_are_not_imported(
    place: Place, tmp_path: Path
) -> None:
    evil = tmp_path / "attrs"
    evil.mkdir()
    (evil / "__init__.py").write_text("raise SystemExit('taken')")
    script = f"import sys; sys.path[:0] = {place.env['PYTHONPATH'].split(os.pathsep)!r};"
    script += "from muxcore.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", script, "run", "--", sys.executable]
    env = {name: value for name, value in place.env.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "-c", ASK + "print(ask())"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "pong from large-model\n"


RECEIPT: dict[str, Any] = {
    "calls": {"large": 11, "small": 3},
    "failed_calls": 0,
    "interruptions_avoided": 3,
    "refuted": {},
    "waiting_saved_ms": 100_400,
    "tokens_in": 1000,
    "cached_share": 0.914,
    "cost": 0.384,
}


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {},
            (
                "3 interruptions avoided, 1 min 40 s of waiting saved;"
                " 14 calls (large 11, small 3), 91% cached, $0.38"
            ),
        ),
        (
            {"interruptions_avoided": 1, "waiting_saved_ms": 7_300_000, "cost": 0},
            (
                "1 interruption avoided, 2 h 1 min of waiting saved;"
                " 14 calls (large 11, small 3), 91% cached"
            ),
        ),
        (
            {
                "calls": {},
                "failed_calls": 2,
                "waiting_saved_ms": 0,
                "tokens_in": 0,
                "cost": 0,
            },
            "3 interruptions avoided; 0 calls, 2 failed",
        ),
    ],
)
def test_the_receipt_is_one_line(changed: dict[str, Any], line: str) -> None:
    assert receipt_line(json.loads(json.dumps({**RECEIPT, **changed}))) == line


SECTION = '[multiplexer]\nenabled = true\nmode = "failover"\npool = [{model = "local"}]\n'


@pytest.mark.parametrize(
    ("name", "number", "is_advised"),
    [
        ("config.toml", (3, 0, 3), True),
        ("config.toml", (3, 1), True),
        ("config.toml", (3, 0, 2), False),
        ("config.toml", None, False),
        ("multiplexer.toml", (3, 0, 3), False),
    ],
)
def test_a_vibe_that_complains_about_the_section_gets_the_command_that_moves_it(
    tmp_path: Path, name: str, number: tuple[int, ...] | None, is_advised: bool
) -> None:
    (tmp_path / name).write_text(SECTION)
    config = load(env={"VIBE_HOME": str(tmp_path)})
    advice = advice_on_section(config, tmp_path / "config.toml", Release(number))
    assert (
        advice
        == [
            (
                "this vibe complains about [multiplexer] in config.toml; `vibe-mux init --move` moves it"
                " to multiplexer.toml beside it"
            )
        ]
        * is_advised
    )
    another = tmp_path / "another" / "config.toml"
    assert not advice_on_section(config, another, Release(number))
