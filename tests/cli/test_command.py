"""What every subcommand shares: usage, exit codes, and how little is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.cli import chat, main
from muxcore.standin import Answer, Model
from tests.processes import PYTHONPATH
from tests.waiting import PATIENCE

Run = Callable[..., subprocess.CompletedProcess[str]]
Configure = Callable[..., Path]
NEEDED = {"whatif": ("new.toml",)}
"""The arguments without which a command has nothing to do."""


def test_without_a_command_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 0
    out = capsys.readouterr().out
    for command in ("demo", "check", "chat", "modes"):
        assert command in out


@pytest.mark.parametrize("command", list(main.COMMANDS))
def test_each_command_describes_its_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as caught:
        main.main([command, "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: vibe-mux {command} [-h]")
    longest = max(output.splitlines(), key=len)
    # Choices are not broken.
    assert len(longest) <= 60 or "legacy-removal" in longest
    assert main.parser().parse_args([command, *NEEDED.get(command, ())])


@pytest.mark.parametrize(
    ("said", "terminal", "columns"),
    [
        ("100", None, 100),
        ("1", None, 20),
        ("nonsense", None, 80),
        ("", os.terminal_size((120, 40)), 120),
        ("", os.terminal_size((0, 0)), 80),
    ],
)
def test_help_is_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    terminal: os.terminal_size | None,
    columns: int,
) -> None:
    def measured(*_: object) -> os.terminal_size:
        if terminal is None:
            raise OSError
        return terminal

    monkeypatch.setenv("COLUMNS", said)
    monkeypatch.setattr(os, "get_terminal_size", measured)
    assert main._columns() == columns


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["help", "nonsense"],
        ["modes", "--config", "x"],
        ["--config", "x", "modes"],
        ["check", "--nonsense"],
        ["modes", "extra"],
        ["check", "--config"],
    ],
)
def test_wrong_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: vibe-mux")


@pytest.mark.parametrize(
    ("arguments", "usage", "hint"),
    [
        (["chekc"], "", "there is no command 'chekc'; did you mean \"check\"?"),
        (["check", "--jsn"], " check", '; did you mean "--json"?'),
        (["run", "--quite"], " run", '; did you mean "--quiet"?'),
        (["run", "-p", "hi"], " run", "behind `--`: vibe-mux run -- vibe -p hi"),
        (["serve", "--port", "99999"], " serve", "'99999' is no port: a number from 0 to"),
        (["serve", "--port", "-1"], " serve", "'-1' is no port"),
        (["serve", "--port", "http"], " serve", "'http' is no port"),
        (["chat", "--phase"], " chat", "'--phase' is not expected here\n"),
    ],
)
def test_a_mistyped_word_shows_the_right_usage_and_what_may_be_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], usage: str, hint: str
) -> None:
    with pytest.raises(SystemExit):
        main.main(arguments)
    err = capsys.readouterr().err
    assert err.startswith(f"usage: vibe-mux{usage} [-h]")
    assert hint in err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["check", "--jsn"], "did you mean"),
        (["serve", "--port", "-1"], "'-1' is no port"),
    ],
)
def test_wrong_usage_is_json_for_programs(
    capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main([*arguments, "--json"])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)["problems"]
    assert problem in found
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--host", "192.0.2.1"], 2), (["--break", "a=b"], 2), (["--host", "203.0.113.7"], 1)],
)
def test_a_server_that_cannot_start_says_so_in_json(
    configure: Configure,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
) -> None:
    if code == 1:
        monkeypatch.setenv("VIBE_MUX_TOKEN", "x" * 16)
    given = ["serve", "--json", "--config", str(configure()), *arguments]
    assert main.main(given) == code
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_the_config_may_be_named_before_the_command(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--config", str(configure()), "check"]) == 0
    assert "alpha" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "usage"), [(["help"], ""), (["help", "run"], " run")]
)
def test_help_is_a_command_too(
    capsys: pytest.CaptureFixture[str], arguments: list[str], usage: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: vibe-mux{usage} [-h]")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize("command", ["modes", "--version", "help", "run --help"])
def test_a_full_output_is_one_line(run: Run, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(
            *command.split(), stdout=full, stderr=subprocess.PIPE, capture_output=False
        )
    assert done.returncode == 1
    assert done.stderr == "vibe-mux: No space left on device: the output is not whole\n"


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX closes the output")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["modes", "init --uninstall", "chat --config"])
def test_a_closed_stream_causes_no_traceback(
    configure: Configure, arguments: str, closed: str
) -> None:
    config = configure() if "--config" in arguments else ""
    # Standard error tells of a traceback by the exit status, where it is closed itself.
    command = f'exec "{sys.executable}" -m muxcore {arguments} {config} </dev/null {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_version_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxcore.plugins.catalogue.version", lambda: "1.2.3")
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == "vibe-mux 1.2.3\n"


@pytest.mark.parametrize("module", ["muxcore", "muxcore.cli.main"])
def test_the_package_runs_as_a_module(run: Run, module: str) -> None:
    done = run("--version", module=module)
    assert done.returncode == 0
    assert done.stdout.startswith("vibe-mux")


def test_ctrl_c_has_the_exit_status_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "run", interrupted)
    assert main.main(["chat", "hi"]) == 130


def test_a_broken_pipe_is_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def left(_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(chat, "run", left)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main.main(["chat", "hi"]) == 1
        # What is still written goes nowhere.
        print("more")
    assert (tmp_path / "out").read_text() == ""


def test_a_reader_that_leaves_causes_no_traceback(
    run: Run, configure: Configure, alpha: Model
) -> None:
    alpha.default = Answer("word " * 40_000, pieces=200)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        for arguments in (
            ["chat", "hi", "--config", str(configure())],
            ["check", "--config", str(configure())],
            ["modes"],
        ):
            done = run(
                *arguments, stdout=gone, stderr=subprocess.PIPE, capture_output=False
            )
            assert done.returncode == 1
            assert "Traceback" not in done.stderr
            assert "BrokenPipe" not in done.stderr


def test_letters_that_the_locale_lacks_are_printed(
    run: Run, configure: Configure, alpha: Model
) -> None:
    alpha.default = Answer("é → 😀")
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = run("chat", "hi", "--config", str(configure()), env=env)
    assert (done.returncode, done.stdout) == (0, "é → 😀\n")


def test_a_stream_that_cannot_be_reconfigured_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Plain:
        def write(self, _: str) -> None: ...
        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stdout", Plain())
    assert main.main([]) == 0


IMPORTED = """
import sys
{what}
heavy = {{"requests", "urllib3", "ssl", "cattrs", "tomli", "pluggy", "http.client", "asyncio"}}
heavy |= {{"muxcore.dialects", "muxcore.explaining", "muxcore_backends"}}
print(*sorted(heavy & set(sys.modules)))
"""


def imported_by(what: str, *path: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(what=what)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, *sys.path])},
    )
    return done.stdout.splitlines()[-1].split()


def test_importing_the_library_imports_next_to_nothing() -> None:
    assert imported_by("import muxcore") == []


def test_importing_the_public_names_imports_no_http_and_no_config() -> None:
    names = "Multiplexer, PoolState, Endpoint, Call, select, update, MultiplexerError"
    assert imported_by(f"from muxcore import {names}") == []


def test_making_a_multiplexer_imports_no_http(configure: Configure) -> None:
    what = f"import muxcore; muxcore.Multiplexer.from_config({str(configure())!r}).close()"
    brought = imported_by(what)
    assert not {"requests", "urllib3", "http.client"} & set(brought)


def test_checking_a_config_imports_no_http_and_no_backend(configure: Configure) -> None:
    what = f"from muxcore.cli.main import main; main(['check', '--config', {str(configure())!r}])"
    brought = imported_by(what)
    unwanted = {"requests", "urllib3", "http.client", "asyncio", "muxcore_backends"}
    unwanted |= {"muxcore.gateway.discovery"}
    assert not unwanted & set(brought)


def test_run_and_serve_import_no_api_and_no_story_before_they_need_them() -> None:
    unwanted = {"muxcore.dialects", "muxcore.explaining", "muxcore_backends"}
    assert not unwanted & set(imported_by("import muxcore.cli.run"))
    assert "muxcore.explaining" not in imported_by("import muxcore.cli.serve")


def test_every_public_name_can_be_imported() -> None:
    import muxcore

    for name in muxcore.__all__:
        assert getattr(muxcore, name) is not None
    assert set(muxcore.__all__) <= set(dir(muxcore))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(muxcore, "nonsense")  # noqa: B009 - as a program may ask
