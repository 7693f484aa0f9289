"""What tests need to start this checkout's command in its own process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT, ROOT / "strategies", ROOT / "backends")
PYTHONPATH = os.pathsep.join(map(str, SOURCES))
COMMAND = (sys.executable, "-m", "muxcore")


def environment(runtime: Path, **more: str) -> dict[str, str]:
    """Return an environment for a process: this checkout, and directories of its own.

    It has none of the caller's vibe settings.
    """
    own = {n: v for n, v in os.environ.items() if not n.startswith(("VIBE_", "XDG_"))}
    places = {"XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(runtime / "state")}
    return {**own, "PYTHONPATH": PYTHONPATH, **places, **more}
