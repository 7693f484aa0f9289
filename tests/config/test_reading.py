"""Where a config is read from, and files that cannot be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muxcore.config import Config, load
from muxcore.config.read import read, vibe_home
from muxcore.errors import ConfigError

LOCAL = 'active_model = "local"\n'


def problem_of(source: Path, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, env=env)
    (problem,) = caught.value.problems
    return problem


def test_a_path_a_text_and_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "any.toml"
    file.write_text(LOCAL)
    for source in (file, str(file)):
        config = load(source, env={})
        assert config.source == file
        assert config.active_model == "local"
    config = load({"active_model": "local"}, env={})
    assert config.source is None
    assert config.active_model == "local"


def test_a_config_is_returned_as_it_is() -> None:
    config = load({"active_model": "local"}, env={})
    assert load(config) is config


def test_the_environment_of_the_process_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIBE_HOME", str(tmp_path))
    monkeypatch.setenv("VIBE_ACTIVE_MODEL", "local")
    assert load().active_model == "local"


def test_vibes_own_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(LOCAL)
    (tmp_path / ".vibe").mkdir()
    (tmp_path / ".vibe" / "config.toml").write_text(LOCAL)
    assert load(env={"VIBE_HOME": str(tmp_path)}).source == tmp_path / "config.toml"
    home = "USERPROFILE" if os.name == "nt" else "HOME"
    assert load(env={home: str(tmp_path)}).source == tmp_path / ".vibe" / "config.toml"


def test_vibes_home_without_any_variable() -> None:
    assert vibe_home({}) == Path.home() / ".vibe"
    assert vibe_home({"VIBE_HOME": "~/x"}) == Path.home() / "x"


def test_vibes_own_file_need_not_exist(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MISTRAL_API_KEY=k")
    config: Config = load(env={"VIBE_HOME": str(tmp_path)})
    assert config.source is None
    assert config.keys["mistral-medium-3.5"].place == str(tmp_path / ".env")
    with pytest.raises(ConfigError) as caught:
        load(env={"VIBE_HOME": str(tmp_path), "VIBE_ACTIVE_MODEL": "x"})
    assert str(caught.value).startswith(f"{tmp_path / 'config.toml'}: VIBE_ACTIVE_MODEL: ")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "missing.toml"
    assert problem_of(file) == f"{file}: cannot be read: {os.strerror(errno.ENOENT)}"


def test_a_directory(tmp_path: Path) -> None:
    expected = f"{tmp_path}: a directory, expected a TOML file"
    assert problem_of(tmp_path) == expected
    (tmp_path / "config.toml").touch()
    assert problem_of(tmp_path) == f"{expected}; did you mean {tmp_path / 'config.toml'}?"


def test_an_unreadable_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert (
        problem_of(tmp_path / "f") == f"{tmp_path / 'f'}: cannot be read: PermissionError"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a = 1\nb = \xff", ":2: not UTF-8, expected a text file; save it as UTF-8"),
        (b"[a]\n[a]\n", ":2: not valid TOML: defined twice, first in line 1 (column 3)"),
        (
            b"[b]\n[a]\nx = 1\ny = 2\nx = 3\n",
            ":5: not valid TOML: defined twice, first in line 3 (column 6)",
        ),
    ],
)
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    assert problem_of(file) == f"{file}{text}"


def test_a_syntax_error_shows_its_place_and_no_text_in_quotes(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('a = 1\nheaders = { key = "sk-secret", on = True, b = "sk-other" }\n')
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.excerpt == (
        '    headers = { key = "…", on = True\n                                ^'
    )
    assert "sk-" not in str(caught.value)
    file.write_text("key = sk-1234567890\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert "1234567890" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = " + "[" * 100_000, "lists or tables nest too deeply"),
        ("a = " + "9" * 5000, "a number has too many digits"),
    ],
    ids=["nested", "long"],
)
def test_text_that_the_parser_rejects_is_an_ordinary_error(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert problem_of(file) == f"{file}: {reason}"


def test_a_key_of_many_parts_is_read_or_an_ordinary_error(tmp_path: Path) -> None:
    """Some versions of tomli take it, others do not."""
    file = tmp_path / "config.toml"
    file.write_text("a." * 5000 + "b = 1\n")
    assert problem_of(file).startswith(str(file))


def test_deep_nesting_does_not_hide_other_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("a = " + "[" * 390 + "]" * 390 + '\nactive_model = "x"\n')
    assert "an unknown model alias" in problem_of(file)


@pytest.mark.parametrize("place", ["~nobody-of-this-name/vibe", "loop"])
def test_an_impossible_path_is_an_error_without_a_traceback(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match=r"cannot be read|does not exist"):
        load(str(tmp_path / place) if place == "loop" else place)


def test_a_dangling_link_is_not_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.symlink_to(tmp_path / "gone.toml")
    with pytest.raises(ConfigError) as caught:
        load(env={"VIBE_HOME": str(tmp_path)})
    assert f"{file}: a link to {tmp_path / 'gone.toml'}, which does not exist" in str(
        caught.value
    )


def test_a_byte_order_mark_and_other_line_ends_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b'\xef\xbb\xbf# \xe2\x80\xa8\r\nactive_model = "lokal"\r\n')
    assert problem_of(file).startswith(f'{file}:2: active_model: "lokal", ')


def test_the_repr_of_a_config_does_not_show_its_contents(tmp_path: Path) -> None:
    assert "secret" not in repr(read({"secret": "secret"}, {}))


def test_loading_a_config_needs_no_http() -> None:
    code = (
        "import sys, muxcore.config; print('requests' in sys.modules, 'ssl' in sys.modules)"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.split() == ["False", "False"]
