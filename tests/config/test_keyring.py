"""Keys in the operating system's keyring: asked last, and never in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from muxcore.config import Config, keyring, keys
from muxcore.config.keyring import Keyring

Load = Callable[..., Config]
Problems = Callable[..., list[str]]

STORED = {
    ("ai.mistral.vibe", "MISTRAL_API_KEY"): "from-keyring",
    ("vibe", "MISTRAL_API_KEY"): "from-an-older-vibe",
}


class KeyringLocked(Exception):  # noqa: N818 - its name is the keyring package's own
    """As the keyring package names it."""


def stored(service: str, variable: str) -> str | None:
    return STORED.get((service, variable))


def locked(service: str, variable: str) -> str | None:
    raise KeyringLocked("a secret text of the keyring")


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Callable[[keyring.Look], None]:
    """Make the system's keyring look like this."""

    def hold_it(look: keyring.Look) -> None:
        monkeypatch.delenv(keyring.OFF)
        monkeypatch.setattr(keyring, "is_installed", lambda: True)
        monkeypatch.setattr(keyring, "_system", lambda: look)

    return hold_it


Hold = Callable[[keyring.Look], None]


def test_the_keyring_is_asked_last(load: Load, hold: Hold, tmp_path: Path) -> None:
    hold(stored)
    key = load("", env={}).keys["mistral-medium-3.5"]
    assert key.reveal() == "from-keyring"
    assert key.place == "the system's keyring"
    (tmp_path / ".env").write_text("MISTRAL_API_KEY=from-file")
    assert load("", env={}).keys["mistral-medium-3.5"].reveal() == "from-file"


def test_the_keyring_is_not_asked_for_keys_found_elsewhere(load: Load, hold: Hold) -> None:
    def unasked(service: str, variable: str) -> str | None:
        raise AssertionError(service)

    hold(unasked)
    key = load("", env={"MISTRAL_API_KEY": "k"}).keys["mistral-medium-3.5"]
    assert key.reveal() == "k"


def test_the_service_of_older_vibes() -> None:
    old = {("vibe", "A_KEY"): "old"}
    assert Keyring(lambda *place: old.get(place)).find("A_KEY") == "old"


def test_a_mapping_does_not_use_the_keyring(problems: Problems, hold: Hold) -> None:
    hold(stored)
    assert "was looked for in the environment; set it there" in problems({}, env={})[0]


def test_a_key_that_no_keyring_has(problems: Problems, hold: Hold) -> None:
    hold(lambda service, variable: None)
    assert problems("", env={})[0].endswith(
        "was looked for in the environment, in .env and in the system's keyring;"
        " set it in one of them"
    )


def test_a_locked_keyring_is_reported(problems: Problems, hold: Hold) -> None:
    hold(locked)
    reported = problems("", env={})[0]
    assert "in the system's keyring (which cannot be read: it is locked)" in reported
    assert "secret" not in reported


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (type("NoKeyringError", (Exception,), {})(), "there is none here"),
        (ModuleNotFoundError("x"), "there is none here"),
        (RuntimeError("a secret, perhaps"), "RuntimeError"),
    ],
)
def test_a_keyring_that_fails_is_skipped(error: Exception, fault: str) -> None:
    def failing(service: str, variable: str) -> str | None:
        raise error

    keyring_of_mine = Keyring(failing)
    assert keyring_of_mine.find("A_KEY") is None
    assert keyring_of_mine.fault == fault


def test_without_the_extra_there_is_a_hint(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(keyring.OFF)
    monkeypatch.setattr(keyring, "is_installed", lambda: False)
    assert problems("", env={})[0].endswith(
        "set it in one of them; if vibe keeps it in the system's keyring,"
        " pip install 'vibe-mux[keyring]'"
    )
    assert "keyring" not in problems({}, env={})[0]


def test_vibes_own_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keyring.OFF, "1")
    assert [place.name for place in keys.places({}, Path("d"))] == [
        "the environment",
        str(Path("d", ".env")),
    ]


def test_the_real_keyring_package_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("keyring")
    monkeypatch.setattr(package, "get_password", stored)
    assert Keyring().find("MISTRAL_API_KEY") == "from-keyring"
    assert Keyring().find("OTHER") is None
