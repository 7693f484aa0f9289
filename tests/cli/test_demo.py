"""`vibe-mux demo`: it shows what is promised, and says so when something is not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from muxcore.cli import demo, main

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_demo_runs_and_every_scene_succeeds(run: Run) -> None:
    done = run("demo")
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert done.stdout.count("   as promised\n") == len(demo.SCENES)
    assert "NOT AS PROMISED" not in done.stdout
    assert "large: weight 70, 70 calls" in done.stdout
    assert "large was passed over: rate limited (Rate limit exceeded)" in done.stdout
    assert f"All {len(demo.SCENES)} scenes went as promised." in done.stdout


def test_the_demo_runs_in_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.main(["demo"]) == 0
    assert "NOT AS PROMISED" not in capsys.readouterr().out


def test_a_failed_scene_is_reported_in_plain_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_promised(stage: demo.Stage) -> None:
        demo.show(demo.ask(stage.multiplexer(**demo.FAILOVER)))

    def disappoints(stage: demo.Stage) -> None:
        demo.expect(condition=False, otherwise="the moon should be full")

    def breaks(stage: demo.Stage) -> None:
        raise ZeroDivisionError("by nobody")

    scenes: Any = {"First.": as_promised, "Second.": disappoints, "Third.": breaks}
    monkeypatch.setattr(demo, "SCENES", scenes)
    assert main.main(["demo"]) == 1
    out = capsys.readouterr().out
    assert (
        "2. Second.\n   NOT AS PROMISED: SceneFailedError: the moon should be full\n" in out
    )
    assert "3. Third.\n   NOT AS PROMISED: ZeroDivisionError: by nobody\n" in out
    assert out.endswith("\n2 of 3 scenes did not go as promised.\n")
    assert "1. First.\n   large answered: [large]" in out


def test_a_wrong_answer_fails_the_scene(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CALLS", 99)
    assert main.main(["demo"]) == 1
    out = capsys.readouterr().out
    assert "NOT AS PROMISED: SceneFailedError: the counts should be" in out
    assert "1 of 4 scenes did not go as promised." in out
