"""Where keys are found, which ones are refused, and that none is ever shown."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from muxcore.config import Config, Key
from muxcore.config import keys as finding

Load = Callable[..., Config]
Problems = Callable[..., list[str]]

SECRET = "sk-very-secret"


def key_of(config: Config) -> Key:
    return config.keys["mistral-medium-3.5"]


def test_a_key_is_hidden_in_its_repr() -> None:
    key = Key(SECRET, "A_KEY", "the environment")
    assert key.reveal() == SECRET
    shown = "Key(<hidden>, variable='A_KEY', place='the environment')"
    assert repr(key) == str(key) == f"{key}" == shown
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_stays_in_the_process(leak: Callable[[Key], object]) -> None:
    with pytest.raises(TypeError, match="a key cannot be pickled or copied"):
        leak(Key(SECRET))


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"MISTRAL_API_KEY": "from-env"}, "from-env"),
        ({"MISTRAL_API_KEY": ""}, "from-file"),
        ({}, "from-file"),
    ],
)
def test_the_environment_overrides_the_file(
    load: Load, tmp_path: Path, env: Mapping[str, str], expected: str
) -> None:
    (tmp_path / ".env").write_text("MISTRAL_API_KEY=from-file\n")
    assert key_of(load("", env=env)).reveal() == expected


def test_a_key_names_its_place(load: Load, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("MISTRAL_API_KEY=k")
    assert key_of(load("", env={})).place == str(file)
    assert key_of(load("")).place == "the environment"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("K=v", {"K": "v"}),
        ("export K = v # comment", {"K": "v"}),
        ("K=v#1", {"K": "v#1"}),
        ("K='a b # c'", {"K": "a b # c"}),
        ('K="first\nsecond"', {"K": "first\nsecond"}),
        ("K=first\nK=last", {"K": "last"}),
        ("A=a\nK=${A}-${HOST}-${NONE:-else}", {"A": "a", "K": "a-h-else"}),
        ("K='${HOST}'", {"K": "h"}),
        ("K=\nL\n# M=v", {}),
    ],
)
def test_a_dotenv_is_read_as_vibe_reads_it(text: str, values: dict[str, str]) -> None:
    assert finding.parse_dotenv(text, {"HOST": "h"}) == (values, ())


@pytest.mark.parametrize("line", ["two words = v", "K='open", "= v"])
def test_a_malformed_line_is_named_and_the_others_count(line: str) -> None:
    assert finding.parse_dotenv(f"A=a\n{line}\nB=b\n", {}) == ({"A": "a", "B": "b"}, (2,))


@given(
    st.text(alphabet="AB=${}:-'\"\\# \n\texport", max_size=40),
    st.dictionaries(st.sampled_from("ABC"), st.text("v$ ", max_size=3), max_size=3),
)
def test_any_dotenv_has_the_values_that_python_dotenv_reads(
    text: str, environment: dict[str, str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in "ABC":
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        expected = dotenv_values(stream=StringIO(text))
    values, _ = finding.parse_dotenv(text, environment)
    # One addition: a variable without a value is not set.
    assert values == {name: value for name, value in expected.items() if value}


def test_a_variable_of_the_process_overrides_unless_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\nC=file\n")
    found = finding.variables({"A": "process", "B": "", "D": "process"}, tmp_path)
    assert found == {"A": "process", "B": "file", "C": "file", "D": "process"}


def test_a_dotenv_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("\ufeffA=file\n", "utf-8")
    assert finding.variables({}, tmp_path) == {"A": "file"}


def test_the_active_model_may_stand_in_a_dotenv(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("VIBE_ACTIVE_MODEL=local\n")
    assert load('active_model = "devstral-2"', env={}).active_model == "local"


def test_python_dotenv_is_imported_only_where_there_is_a_dotenv(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from muxcore.config import load;"
        "load({'active_model': 'local'}, env={});"
        "file = pathlib.Path(sys.argv[1]); file.write_text('active_model = \"local\"');"
        "load(file, env={}); print('dotenv' in sys.modules);"
        "file.with_name('.env').write_text('A=b'); load(file, env={});"
        "print('dotenv' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "config.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True"]


MISSING = (
    "providers.mistral.api_key_env_var (vibe's default): Missing API key: MISTRAL_API_KEY of"
    ' provider "mistral", for mistral-medium-3.5, was looked for in the environment'
)


def test_a_missing_key(problems: Problems) -> None:
    assert problems("", env={}) == [
        f"config.toml: {MISSING} and in .env; set it in one of them"
    ]


def test_a_mapping_has_no_dotenv_beside_it(problems: Problems) -> None:
    assert problems({}, env={}) == [f"config: {MISSING}; set it there"]


def test_a_dotenv_that_is_not_utf_8(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"K=\xff")
    assert problems("", env={}) == [
        (
            f"config.toml: {MISSING} and in .env (which cannot be read: it is not UTF-8);"
            " set it in one of them"
        )
    ]


def test_a_dotenv_that_is_a_directory(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert "in .env (which cannot be read: " in problems("", env={})[0]


def test_one_missing_key_of_two_models_is_reported_once(problems: Problems) -> None:
    text = """
[[providers]]
name = "p"
api_base = "https://h/v1"
api_key_env_var = "A_KEY"
[[models]]
name = "a"
provider = "p"
[[models]]
name = "b"
provider = "p"
[multiplexer]
enabled = true
mode = "failover"
pool = [{model = "a"}, {model = "b"}]
"""
    assert problems(text) == [
        (
            "config.toml:5: providers[0].api_key_env_var: Missing API key: A_KEY of provider"
            ' "p", for a and b, was looked for in the environment and in .env;'
            " set it in one of them"
        )
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{SECRET}\n", "begins or ends with a space or a line break"),
        (f" {SECRET}", "begins or ends with a space or a line break"),
        (f"{SECRET}\n{SECRET}", "holds a character that cannot be printed"),
        (f"{SECRET}\x00", "holds a character that cannot be printed"),
        (f"“{SECRET}”", "holds a typographic quote"),
        (f"‘{SECRET}’", "holds a typographic quote"),  # noqa: RUF001 - ambiguity is the point
        (f"{SECRET}…", "holds a character that is not of Latin-1"),
    ],
)
def test_a_key_that_no_header_can_carry(problems: Problems, text: str, fault: str) -> None:
    found = problems("", env={"MISTRAL_API_KEY": text})
    assert found == [
        (
            "config.toml: providers.mistral.api_key_env_var (vibe's default): the key in"
            f" MISTRAL_API_KEY (from the environment) {fault}, expected one that a header can"
            " carry; copy it anew"
        )
    ]
    assert SECRET not in str(found)


@pytest.mark.parametrize("text", ["sk-1", "a b", "clé"])
def test_a_key_that_a_header_can_carry(load: Load, text: str) -> None:
    assert key_of(load("", env={"MISTRAL_API_KEY": text})).reveal() == text
