"""Which vibe a program is."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxcore.vibe.release import Release, release_of


def installed(environment: Path, *versions: str) -> Path:
    for version in versions:
        packages = environment / "lib" / "python3.13" / "site-packages"
        (packages / f"mistral_vibe-{version}.dist-info").mkdir(parents=True)
    script = environment / "bin" / "vibe"
    script.parent.mkdir(exist_ok=True, parents=True)
    script.write_text(f"#!{environment}/bin/python\n")
    return script


def test_the_version_is_that_of_its_environment(tmp_path: Path) -> None:
    assert release_of(installed(tmp_path, "3.0.3")) == Release((3, 0, 3))
    assert release_of(installed(tmp_path / "next", "3.1.0rc1")) == Release((3, 1, 0))


def test_a_link_to_it_and_a_script_elsewhere_are_followed(tmp_path: Path) -> None:
    script = installed(tmp_path / "tools", "2.26.1")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "vibe").symlink_to(script)
    assert release_of(folder / "vibe") == Release((2, 26, 1))
    (tmp_path / "vibe").write_text(script.read_text())
    assert release_of(tmp_path / "vibe") == Release((2, 26, 1))


@pytest.mark.parametrize("versions", [(), ("3.0.2", "3.0.3")])
def test_a_version_that_is_in_doubt_is_unknown(
    tmp_path: Path, versions: tuple[str, ...]
) -> None:
    assert release_of(installed(tmp_path, *versions)) == Release(None)


def test_a_program_that_is_no_vibe_has_no_version(tmp_path: Path) -> None:
    script = installed(tmp_path, "3.0.3")
    assert release_of(script.rename(script.with_name("aider"))) == Release(None)
    assert release_of(tmp_path / "vibe") == Release(None)
