"""The benchmarks run and fill every row. No test asserts a speed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASURED = re.compile(r"\*\*[-0-9.,]+\*\*")
"""A figure in a cell of the table."""
ASKED = (
    "`mux.complete` ÷ `requests.Session().post`, pool of 2",
    "the same, pool of 10",
    "LiteLLM Router ÷ `mux.complete`",
    "multiplexer-llm ÷ `mux.complete`",
    "openai SDK ÷ `mux.complete`",
    "calls per second with 16 threads ÷ `requests`, wall",
    "first call that fails over ÷ a normal one, wall",
    'a call with `state = "file"`, later than with memory, wall',
    "the same, with a file that another process holds locked",
    "stream, per chunk ÷ `json.loads` of the same chunk",
    "time to first content of an unchunked stream, wall",
    "select + both updates, 10 endpoints",
    "the same, 1,000 endpoints ÷ 10",
    "`import muxcore` ÷ `import requests`, less the bare interpreter",
    "`vibe-mux check` ÷ `python -c pass`, wall",
    "`vibe-mux run -- vibe` ready later than `vibe` alone, wall",
)
NOT_HERE = ("LiteLLM", "multiplexer-llm", "openai", "vibe-mux run")
"""What the running Python may lack."""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the CPU of other programs is unknown there")
def test_a_quick_run_fills_the_table(tmp_path: Path) -> None:
    out = tmp_path / "benchmarks.md"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "run.py"),
        "--quick",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert "This is a quick run: its figures are meaningless." in text
    lines = text.splitlines()
    for what in ASKED:
        (line,) = [line for line in lines if line.startswith(f"| {what} |")]
        assert MEASURED.search(line) or any(name in what for name in NOT_HERE), line
    assert any(line.startswith("| memory after 100 calls ÷ after 20 |") for line in lines)
    for name in ("http.client", "requests", "mux of 2", "mux of 10"):
        (line,) = [line for line in lines if line.startswith(f"| {name} |")]
        assert len(MEASURED.findall(line)) >= 3


def test_parts_can_be_measured_alone() -> None:
    command = [
        sys.executable, str(ROOT / "benchmarks" / "run.py"), "--quick", "--only", "choosing",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "| select + both updates, 10 endpoints | **" in done.stdout
    assert "`mux.complete`" not in done.stdout.split("## Targets")[1].split("##")[0]


def test_no_name_or_path_of_the_machine_is_written(tmp_path: Path) -> None:
    out = tmp_path / "benchmarks.md"
    command = [
        sys.executable, str(ROOT / "benchmarks" / "run.py"), "--quick", "--only", "choosing",
        "--out", str(out),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=600, check=True)
    text = out.read_text(encoding="utf-8")
    for secret in (
        str(ROOT),
        sys.prefix,
        sys.executable,
        str(tmp_path),
        os.uname().nodename,
    ):
        assert secret not in text
