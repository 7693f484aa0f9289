"""`vibe-mux init`: what it proposes, shows, writes, and undoes byte for byte."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli

from muxcore import load_config
from muxcore.setup import files
from muxcore.setup import proposal as choosing
from muxcore.setup import unknown_servers as finding
from muxcore.setup.section_edit import ProposedEntry, Wanted, edited

User = Any
Say = Callable[..., None]
Captured = pytest.CaptureFixture[str]

SECTION = """\
[multiplexer]
enabled = true
mode = "failover"

[[multiplexer.pool]]
model = "large"

[[multiplexer.pool]]
model = "small"
is_fallback = true
"""


def pool_of(user: User) -> list[tuple[str, bool]]:
    config = load_config(user.config)
    assert config.enabled
    return [(e.alias, e.is_fallback) for e in config.endpoints]


def test_models_that_are_ready_are_proposed_shown_and_written_beside_the_config(
    user: User, capsys: Captured
) -> None:
    before = user.config.read_text()
    assert user.init("--yes") == 0
    assert user.section.read_text() == SECTION
    assert user.config.read_text() == before
    assert user.files() == [
        "config.toml",
        "multiplexer.toml",
        "multiplexer.toml.vibe-mux-init.json",
    ]
    assert pool_of(user) == [("large", False), ("small", True)]
    out, err = capsys.readouterr()
    assert "\n+[multiplexer]\n+enabled = true\n" in out
    assert "vibe-mux run --break large=429@3 -- vibe" in out
    assert "left out: far: " in err
    assert "Missing API key: OTHER_KEY" in err
    assert "left out: local at 127.0.0.1:8080: no server answers there" in err


def test_no_other_line_of_the_file_is_shown(user: User, capsys: Captured) -> None:
    """Rule 9: a config may hold secrets."""
    secret = '\n[providers_of_mine]\nheader = "very-secret"\n'
    user.config.write_text(user.config.read_text() + secret)
    assert user.init("--dry-run") == 0
    assert "very-secret" not in "".join(capsys.readouterr())


def test_a_local_server_that_answers_is_proposed(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(api_base: str) -> object:
        asked.append(api_base)
        return {}

    monkeypatch.setattr(choosing, "list_at", answer)
    assert user.init("--yes") == 0
    assert pool_of(user) == [("large", False), ("small", True), ("local", True)]
    assert asked == ["http://127.0.0.1:8080/v1"]


def says(window: int | None = None, *modalities: str) -> dict[str, Any]:
    """Write the list of models of a llama.cpp server."""
    entry = {"id": "/models/devstral.gguf", "meta": {"n_ctx": window}}
    return {"data": [{**entry, "architecture": {"input_modalities": list(modalities)}}]}


def windows(user: User) -> dict[str, int | None]:
    pool = tomli.loads(user.section.read_text())["multiplexer"]["pool"]
    return {entry["model"]: entry.get("context_window") for entry in pool}


def test_the_window_that_a_local_server_names_is_written(
    user: User, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(choosing, "list_at", lambda _: says(8_192, "text", "image"))
    assert user.init("--yes") == 0
    assert windows(user) == {"large": None, "small": None, "local": 8_192}
    assert "local: its server takes images; write supports_images = true" in (
        capsys.readouterr().err
    )
    # What the user has written stays, whatever the server says by now.
    monkeypatch.setattr(choosing, "list_at", lambda _: says(4_096))
    assert user.init("--yes", "--model", "local", "--fallback", "large") == 0
    assert windows(user) == {"local": 8_192, "large": None}


def test_an_unknown_server_is_reported_with_the_lines_to_add(
    user: User, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    models = {"http://127.0.0.1:11434/v1": ("qwen3-coder:30b", "gemma3:4b")}
    monkeypatch.setattr(finding, "served_models", lambda base: models.get(base, ()))
    assert user.init("--dry-run") == 0
    reported = capsys.readouterr().err
    assert "ollama answers on this machine with qwen3-coder:30b (and gemma3:4b)" in reported
    assert "forgets its own models" not in reported
    lines = reported.partition("run this again:")[2]
    # The lines that it says to add are then proposed.
    user.config.write_text(user.config.read_text() + lines)
    monkeypatch.setattr(choosing, "list_at", lambda base: {} if "11434" in base else None)
    assert user.init("--yes") == 0
    assert ("qwen3-coder", True) in pool_of(user)
    assert "answers on this machine" not in capsys.readouterr().err


def test_it_is_reported_before_any_question(
    user: User, say: Say, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(finding, "served_models", lambda _: ("mine",))
    say()
    # A user who prefers to edit the config leaves at the first question.
    assert user.init() == 1
    assert "ollama answers" in capsys.readouterr().err


def test_a_user_of_vibes_own_models_is_warned(
    user: User, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    user.config.unlink()
    monkeypatch.setenv("MISTRAL_API_KEY", "key-of-mistral")
    monkeypatch.setattr(finding, "served_models", lambda _: ("mine",))
    assert user.init("--dry-run") == 0
    reported = capsys.readouterr().err
    assert "ollama answers" in reported
    assert "lmstudio answers" in reported
    assert "forgets its own models" in reported


def test_a_pool_that_is_on_is_left_alone_and_nothing_is_asked(
    user: User, say: Say, capsys: Captured
) -> None:
    assert user.init("--yes") == 0
    before = user.section.read_bytes(), user.files()
    capsys.readouterr()
    assert user.init("--yes") == 0
    out = f"The multiplexer is on already: large, small, in {user.section}.\n"
    assert capsys.readouterr().out == out
    say()
    assert user.init() == 0
    assert (user.section.read_bytes(), user.files()) == before
    assert user.init("--yes", "--mode", "failover") == 0
    assert "has this pool already" in capsys.readouterr().out


def test_a_pool_that_is_on_in_vibes_file_is_left_alone(
    user: User, capsys: Captured
) -> None:
    user.config.write_text(user.config.read_text() + SECTION)
    assert user.init("--yes") == 0
    assert f"on already: large, small, in {user.config}" in capsys.readouterr().out
    assert user.files() == ["config.toml"]


def test_its_own_file_is_changed_without_tomlkit(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    assert user.init("--yes") == 0
    assert user.init("--yes", "--model", "small") == 0
    assert pool_of(user) == [("small", False)]
    assert user.init("--uninstall") == 0
    assert user.files() == ["config.toml"]


@pytest.mark.parametrize(
    ("options", "pool", "mode"),
    [
        (["--model", "small"], [("small", False)], "failover"),
        (
            ["--model", "small", "--model", "large"],
            [("small", False), ("large", False)],
            "failover",
        ),
        (
            ["--model", "large", "--fallback", "small"],
            [("large", False), ("small", True)],
            "failover",
        ),
        (["--fallback", "small"], [("large", False), ("small", True)], "failover"),
        (
            ["--mode", "load_balance"],
            [("large", False), ("small", False)],
            "load_balance",
        ),
        (["--mode", "single"], [("large", False)], "single"),
    ],
)
def test_flags(
    user: User, options: list[str], pool: list[tuple[str, bool]], mode: str
) -> None:
    assert user.init("--yes", *options) == 0
    assert pool_of(user) == pool
    assert load_config(user.config).mode == mode


def test_a_pool_that_is_there_is_kept_and_switched_on(user: User) -> None:
    kept = '[multiplexer]\npool = [{model = "small", max_concurrent = 2}] # two\n'
    user.config.write_text(user.config.read_text() + kept)
    before = user.config.read_text()
    assert user.init("--yes") == 0
    assert pool_of(user) == [("small", False)]
    assert "max_concurrent = 2}] # two\n" in user.section.read_text()
    assert user.config.read_text() == before
    (warning,) = load_config(user.config).warnings
    assert "does not count" in warning
    assert "init --move" in warning


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--model", "nobody"], 'pool[0].model: "nobody", an unknown model alias'),
        (["--model", "far"], "Missing API key: OTHER_KEY"),
        (["--mode", "fail"], 'multiplexer.mode: "fail", expected a mode'),
    ],
)
def test_an_invalid_section_is_not_written(
    user: User, capsys: Captured, options: list[str], problem: str
) -> None:
    before = user.config.read_bytes()
    assert user.init("--yes", *options) == 1
    assert user.config.read_bytes() == before
    assert user.files() == ["config.toml"]
    err = capsys.readouterr().err
    assert problem in err
    # There is no file yet that has these lines.
    assert not re.search(r"multiplexer\.toml:\d", err)
    assert err.endswith("Nothing was written.\n")


def test_without_a_terminal_it_writes_only_with_yes(user: User, capsys: Captured) -> None:
    before = user.config.read_bytes()
    assert user.init() == 2
    assert user.config.read_bytes() == before
    out, err = capsys.readouterr()
    assert "+[multiplexer]" in out
    assert "add --yes to write it" in err
    assert user.init("--dry-run") == 0
    assert user.files() == ["config.toml"]


def test_a_broken_config_is_reported_with_its_line(user: User, capsys: Captured) -> None:
    user.config.write_text("a = \n")
    assert user.init("--yes") == 1
    assert f"{user.config}:1: not valid TOML" in capsys.readouterr().err


def test_no_model_is_ready(
    user: User, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_KEY")
    assert user.init("--yes") == 1
    assert "no model is ready to be in a pool" in capsys.readouterr().err


def test_where_no_model_is_ready_nothing_is_asked(
    user: User, say: Say, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_KEY")
    say()
    assert user.init() == 1
    out, errors = capsys.readouterr()
    assert "LAB_KEY" in out + errors
    assert "no model is ready to be in a pool" in errors


def test_without_a_config_there_is_one_with_vibes_own_models(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    user.config.unlink()
    assert user.init("--yes") == 0
    assert [e.alias for e in load_config().endpoints] == [
        "mistral-medium-3.5",
        "devstral-small",
    ]
    assert user.init("--uninstall") == 0
    assert user.files() == []


# --- the dialogue --------------------------------------------------------------------------


def test_a_dialogue(user: User, say: Say, capsys: Captured) -> None:
    say("2 1", "load_balance", "y")
    assert user.init() == 0
    assert pool_of(user) == [("small", False), ("large", False)]
    out = capsys.readouterr().out
    assert "  1. large at lab.example: ready\n" in out
    assert "Which of them, in order of preference? [1 2] " in out


def test_enter_accepts_the_proposal(user: User, say: Say) -> None:
    say("", "", "")
    assert user.init() == 0
    assert pool_of(user) == [("large", False), ("small", True)]


def test_it_repeats_a_question_after_an_invalid_answer(user: User, say: Say) -> None:
    say("large", "7", "2, 1", "some", "failover", "yes")
    assert user.init() == 0
    assert pool_of(user) == [("small", False), ("large", True)]


def test_nothing_is_written_when_declined(user: User, say: Say) -> None:
    before = user.config.read_bytes()
    say("", "", "n")
    assert user.init() == 0
    assert user.config.read_bytes() == before
    assert user.files() == ["config.toml"]


def test_a_pool_may_be_kept(user: User, say: Say) -> None:
    user.config.write_text(
        user.config.read_text() + '[multiplexer]\npool = [{model = "small"}]\n'
    )
    say("", "y")
    assert user.init() == 0
    assert pool_of(user) == [("small", False)]


def test_leaving_the_dialogue_writes_nothing(user: User, say: Say) -> None:
    before = user.config.read_bytes()
    say("1")
    assert user.init() == 1
    assert user.config.read_bytes() == before


# --- moving it -----------------------------------------------------------------------------

WITH_SECTION = """\
active_model = "small" # mine
# Of my own.
[multiplexer] # the pool
enabled = true
mode = "failover"

[multiplexer.options]

[[multiplexer.pool]] # first
model = "small"

[[providers]]
name = "lab"
api_base = "https://lab.example/v1"
api_key_env_var = "LAB_KEY"

[[models]]
name = "small-1"
provider = "lab"
alias = "small"

[[models]]
name = "large-1"
provider = "lab"
alias = "large"

[[multiplexer.pool]]
model = "large"
is_fallback = true
"""


def test_a_section_moves_with_its_comments(user: User, capsys: Captured) -> None:
    user.config.write_text(WITH_SECTION)
    before = load_config(user.config)
    assert user.init("--move", "--yes") == 0
    assert user.section.read_text().startswith(
        "# Of my own.\n[multiplexer] # the pool\nenabled = true\n"
    )
    assert "multiplexer" not in user.config.read_text()
    after = load_config(user.config)
    assert after.endpoints == before.endpoints
    assert after.warnings == ()
    out = capsys.readouterr().out
    assert "\n-[multiplexer] # the pool\n" in out
    assert "\n+[multiplexer] # the pool\n" in out
    assert user.init("--uninstall") == 0
    assert user.config.read_text() == WITH_SECTION
    assert user.files() == ["config.toml"]


@pytest.mark.parametrize(
    "section",
    [
        'multiplexer = {enabled = true, mode = "failover", pool = [{model = "small"}]}\n',
        'multiplexer.enabled = true\nmultiplexer.pool = [{model = "small"}]\n',
    ],
)
def test_a_section_in_one_line_moves_too(user: User, section: str) -> None:
    rest = user.config.read_text()
    user.config.write_text(section + rest)
    assert user.init("--move", "--yes") == 0
    assert (user.section.read_text(), user.config.read_text()) == (section, rest)


def test_moving_is_shown_first_and_may_be_declined(user: User, say: Say) -> None:
    user.config.write_text(WITH_SECTION)
    assert user.init("--move", "--dry-run") == 0
    assert user.init("--move") == 2
    say("n")
    assert user.init("--move") == 0
    assert user.config.read_text() == WITH_SECTION
    assert user.files() == ["config.toml"]


def test_a_section_without_effect_is_removed(user: User) -> None:
    assert user.init("--yes", "--model", "large") == 0
    section = user.section.read_text()
    user.config.write_text(WITH_SECTION)
    assert user.init("--move", "--yes") == 0
    assert user.section.read_text() == section
    assert load_config(user.config).warnings == ()


def test_nothing_to_move(user: User, capsys: Captured) -> None:
    assert user.init("--move", "--yes") == 0
    assert "has no [multiplexer] section: nothing to move" in capsys.readouterr().out


# --- undoing it ----------------------------------------------------------------------------


def older_init(user: User, *models: str) -> None:
    """Write into vibe's own file, as `init` did before there was a `multiplexer.toml`."""
    wanted = Wanted("failover", tuple(map(ProposedEntry, models or ("large", "small"))))
    text = files.text_of(user.config.read_bytes())
    files.install(user.config, edited(text, wanted))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_change_by_an_older_init_is_undone_byte_for_byte(
    user: User, newline: str, mark: bytes
) -> None:
    before = mark + user.config.read_text().replace("\n", newline).encode()
    user.config.write_bytes(before)
    user.config.chmod(0o600)
    older_init(user)
    older_init(user, "small")
    assert user.config.read_bytes().startswith(mark)
    assert user.config.read_bytes() != before
    # It may have been moved since, or a newer one may have written another pool.
    assert user.init("--yes", "--model", "small") == 0
    assert user.init("--yes", "--move") == 0
    assert user.init("--uninstall") == 0
    assert user.config.read_bytes() == before
    assert stat.S_IMODE(user.config.stat().st_mode) == 0o600
    assert user.files() == ["config.toml"]


def test_a_file_of_the_users_own_is_put_back_byte_for_byte(user: User) -> None:
    user.section.write_text('# Mine.\n[multiplexer]\nsticky = "call"\n')
    before = user.section.read_bytes()
    assert user.init("--yes") == 0
    assert 'sticky = "call"' in user.section.read_text()
    assert user.init("--uninstall") == 0
    assert user.section.read_bytes() == before
    assert user.files() == ["config.toml", "multiplexer.toml"]


def test_a_new_file_that_was_changed_since_goes_and_a_copy_stays(
    user: User, capsys: Captured
) -> None:
    assert user.init("--yes") == 0
    changed = user.section.read_text() + "weight = 3\n"
    user.section.write_text(changed)
    assert user.init("--uninstall") == 0
    assert "was changed since, and is removed" in capsys.readouterr().out
    assert user.files() == ["config.toml", "multiplexer.toml.before-vibe-mux"]
    assert files.backup_of(user.section).read_text() == changed


def test_uninstall_keeps_later_changes(user: User, capsys: Captured) -> None:
    before = user.config.read_text()
    older_init(user)
    user.config.write_text(user.config.read_text() + "\n[later]\nx = 1 # later\n")
    assert user.init("--uninstall") == 0
    after = user.config.read_text()
    assert after.startswith(before)
    assert "[later]\nx = 1 # later\n" in after
    assert "multiplexer" not in after
    assert "only [multiplexer] was put back" in capsys.readouterr().out
    assert user.files() == ["config.toml", "config.toml.before-vibe-mux"]


def test_changes_between_two_runs_are_kept(user: User) -> None:
    older_init(user)
    user.config.write_text(user.config.read_text() + "\n[later]\nx = 1\n")
    older_init(user, "small")
    assert user.init("--uninstall") == 0
    after = user.config.read_text()
    assert "[later]\nx = 1\n" in after
    assert "multiplexer" not in after


def test_a_config_that_was_put_back_by_hand(user: User) -> None:
    before = user.config.read_bytes()
    older_init(user)
    user.config.write_bytes(before)
    assert user.init("--uninstall") == 0
    assert user.config.read_bytes() == before
    assert user.files() == ["config.toml"]


def test_a_file_that_has_gone(user: User, capsys: Captured) -> None:
    assert user.init("--yes") == 0
    user.section.unlink()
    assert user.init("--uninstall") == 0
    assert "is gone; nothing was put back" in capsys.readouterr().out


def test_nothing_to_undo(user: User, capsys: Captured) -> None:
    assert user.init("--uninstall") == 0
    assert capsys.readouterr().out == f"There is nothing to undo for {user.config}.\n"


def test_undoing_has_a_dry_run(user: User, capsys: Captured) -> None:
    assert user.init("--yes") == 0
    older_init(user)
    before = user.config.read_bytes(), user.files()
    capsys.readouterr()
    assert user.init("--uninstall", "--dry-run") == 0
    assert (user.config.read_bytes(), user.files()) == before
    assert capsys.readouterr().out == (
        f"Would remove {user.section}\nWould put {user.config} back as it was\n"
    )


def test_a_missing_backup_is_reported(user: User, capsys: Captured) -> None:
    older_init(user)
    files.backup_of(user.config).unlink()
    before = user.config.read_bytes()
    assert user.init("--uninstall") == 1
    assert user.config.read_bytes() == before
    assert "nothing was changed" in capsys.readouterr().err


def test_a_link_stays_a_link(user: User, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "mux.toml"
    real.parent.mkdir()
    real.write_text('[multiplexer]\nsticky = "call"\n')
    user.section.symlink_to(real)
    before = real.read_bytes()
    assert user.init("--yes") == 0
    assert user.section.is_symlink()
    assert real.read_bytes() != before
    assert user.init("--uninstall") == 0
    assert user.section.is_symlink()
    assert real.read_bytes() == before


def test_the_new_file_is_beside_the_link_to_a_config(user: User, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "vibe.toml"
    real.parent.mkdir()
    user.config.rename(real)
    user.config.symlink_to(real)
    assert user.init("--yes") == 0
    assert user.section.exists()
    assert pool_of(user) == [("large", False), ("small", True)]


def test_a_mistyped_path_creates_no_directory(user: User, capsys: Captured) -> None:
    missing = user.home / "vibee" / "config.toml"
    assert user.init("--yes", "--config", str(missing)) == 1
    assert f"{missing}: cannot be read" in capsys.readouterr().err
    assert not missing.parent.exists()


def test_a_write_that_fails_leaves_the_files_whole(
    user: User, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert user.init("--yes") == 1
    assert user.files() == ["config.toml"]
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("writes", range(5))
def test_an_interrupt_between_any_two_writes_can_be_undone(
    user: User, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    user.config.write_text(WITH_SECTION)
    replace = files.replace
    done: list[str] = []

    def interrupted(file: Path, content: bytes) -> None:
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(file.name)
        replace(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", interrupted)
        assert user.init("--yes", "--move") == 130
    note, copy = "vibe-mux-init.json", "before-vibe-mux"
    assert (
        done
        == [
            f"multiplexer.toml.{note}",
            "multiplexer.toml",
            f"config.toml.{copy}",
            f"config.toml.{note}",
            "config.toml",
        ][:writes]
    )
    # At any moment the section stands in one of the files.
    assert load_config(user.config).enabled
    assert user.init("--uninstall") == 0
    assert user.config.read_text() == WITH_SECTION
    assert not user.section.exists()


def test_a_file_that_cannot_be_removed_is_one_line(user: User, capsys: Captured) -> None:
    assert user.init("--yes") == 0
    user.section.unlink()
    user.section.mkdir()
    capsys.readouterr()
    assert user.init("--uninstall") == 1
    assert capsys.readouterr().err == f"vibe-mux: {user.section}: Is a directory\n"
    # Once that is mended, it can be undone.
    user.section.rmdir()
    assert user.init("--uninstall") == 0


def test_a_broken_note_without_a_copy_names_none(user: User, capsys: Captured) -> None:
    files.note_of(user.section).write_text("{")
    assert user.init("--uninstall") == 1
    assert capsys.readouterr().err == (
        f"vibe-mux: {files.note_of(user.section)}: not a note of `vibe-mux init`\n"
    )


def test_the_error_about_a_broken_note_names_the_copy(user: User, capsys: Captured) -> None:
    older_init(user)
    files.note_of(user.config).write_text("{")
    assert user.init("--uninstall") == 1
    assert "config.toml.before-vibe-mux" in capsys.readouterr().err
