"""The section of a config's text, changed; everything else left as it is."""

from __future__ import annotations

import sys

import pytest
import tomli

from muxcore.setup.section_edit import (
    EditError,
    ProposedEntry,
    Wanted,
    edited,
    present,
    restored,
)

FAILOVER = Wanted("failover", (ProposedEntry("a"), ProposedEntry("b", is_fallback=True)))
NEW = """\
[multiplexer]
enabled = true
mode = "failover"

[[multiplexer.pool]]
model = "a"

[[multiplexer.pool]]
model = "b"
is_fallback = true
"""
VIBES_OWN_FORM = """\
models = [{ name = "m", alias = "a" }]

[multiplexer]
pool = [{model = "b", max_concurrent = 2}, {model = "c"}]

[tools]
x = 1 # kept
"""
TEXTS = [
    "",
    "a = 1",
    "a = 1\n",
    "a = 1\n\n",
    "# only words",
    'models = [{ alias = "a" }]\n[x]\ny = 1\n',
    "[multiplexer]\n",
    '[multiplexer] # mine\n# words\nsticky = "call"\n\n[z]\ny = 1\n',
    'multiplexer.sticky = "call"\n[z]\ny = 1\n',
    'multiplexer = {enabled = false, sticky = "call"}\n[z]\ny = 1\n',
    'multiplexer = {pool = [{model = "a"}]}\n',
    '[[multiplexer.pool]]\nmodel = "z" # words\n\n[x]\ny = 1\n',
    '[multiplexer]\nmode = "load_balance"\n[[multiplexer.pool]]\nmodel = "b"\nweight = 3\n',
    "[multiplexer.options]\nx = 1\n",
    VIBES_OWN_FORM,
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("text", TEXTS)
def test_any_form_of_the_file_gets_the_section(text: str, newline: str) -> None:
    text = text.replace("\n", newline)
    changed = edited(text, FAILOVER)
    assert present(changed) == FAILOVER
    assert tomli.loads(changed)["multiplexer"]["enabled"] is True
    before, after = tomli.loads(text), tomli.loads(changed)
    former = before.pop("multiplexer", {})
    section = after.pop("multiplexer")
    assert after == before
    for name in former.keys() - {"enabled", "mode", "pool"}:
        assert section[name] == former[name]
    for line in text.splitlines():
        if "#" in line:
            # Entries that leave take their words along.
            assert line in changed or 'model = "z"' in line
    assert edited(changed, FAILOVER) == changed
    if newline == "\r\n" and "\r\n" in text:
        assert changed.count("\n") == changed.count("\r\n")


def test_a_new_section_stands_at_the_end() -> None:
    assert edited("a = 1 # one", FAILOVER) == f"a = 1 # one\n\n{NEW}"
    assert edited("a = 1\n", FAILOVER) == f"a = 1\n\n{NEW}"
    assert edited("a = 1\n\n", FAILOVER) == f"a = 1\n\n{NEW}"
    assert edited("", FAILOVER) == NEW


def test_an_entry_that_stays_keeps_its_options() -> None:
    text = f"{NEW}max_concurrent = 2 # two\n"
    both = Wanted("load_balance", (ProposedEntry("b"), ProposedEntry("a")))
    assert tomli.loads(edited(text, both))["multiplexer"]["pool"] == [
        {"model": "b", "max_concurrent": 2},
        {"model": "a"},
    ]
    assert "# two" in edited(text, both)


def test_the_form_that_vibe_writes_is_kept() -> None:
    changed = edited(VIBES_OWN_FORM, FAILOVER)
    assert tomli.loads(changed)["multiplexer"]["pool"] == [
        {"model": "a"},
        {"model": "b", "max_concurrent": 2, "is_fallback": True},
    ]
    assert "[[multiplexer.pool]]" not in changed
    assert "x = 1 # kept" in changed


def test_an_alias_with_quotes_survives() -> None:
    wanted = Wanted("failover", (ProposedEntry('a"b\\c\td'),))
    assert present(edited("", wanted)) == wanted
    assert present(edited("[multiplexer]\n", wanted)) == wanted


@pytest.mark.parametrize("text", TEXTS)
def test_the_section_goes_back_to_what_it_was(text: str) -> None:
    grown = edited(text, FAILOVER) + "\n[later]\nz = 1 # later\n"
    again = restored(grown, text)
    data = tomli.loads(again)
    assert data.pop("later") == {"z": 1}
    assert data == tomli.loads(text)
    assert "# later" in again


@pytest.mark.parametrize("text", ["multiplexer = 3\n", "[[multiplexer]]\n", "a = \n"])
def test_a_file_that_cannot_be_changed_is_refused(text: str) -> None:
    with pytest.raises(EditError):
        edited(text, FAILOVER)


def test_the_error_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    with pytest.raises(EditError, match=r"pip install 'vibe-mux\[init\]'"):
        edited("[multiplexer]\nmax_wait_ms = 1\n", FAILOVER)
    assert edited("", FAILOVER) == NEW
    assert edited('[multiplexer]\npool = [{model = "c"}]\n', FAILOVER) == NEW


def test_the_present_pool() -> None:
    assert present("") is None
    assert present("[multiplexer]\npool = 3\n") is None
    assert present(NEW) == FAILOVER
