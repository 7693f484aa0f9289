"""`vibe-mux`, also as `python -m muxcore`: the command in its own process."""

import gc
import sys

ALLOCATIONS = 50_000
"""Between two collections."""


def command() -> int:
    """Run `main`, with the garbage collector out of the way."""
    # What is imported lives as long as the process. Collecting seldom while the command runs,
    # and never at its end, saves a small command a sixth of its time.
    gc.set_threshold(ALLOCATIONS)
    from muxcore.cli.main import main  # noqa: PLC0415 - not before that

    try:
        return main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    sys.exit(command())
