"""The kits need hypothesis, which an extra brings."""

from __future__ import annotations

import subprocess
import sys

from tests.processes import PYTHONPATH

WITHOUT = "import sys; sys.modules['hypothesis'] = None; import muxcore.testing"


def test_without_its_extra_the_error_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env={"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == (
        'ImportError: muxcore.testing needs hypothesis: pip install "vibe-mux[testing]"'
    )
