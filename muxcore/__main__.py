"""`vibe-mux`, also as `python -m muxcore`: the command in its own process."""

import gc
import sys

FEW = 50_000


def command() -> int:
    """Run `main`, with the garbage collector out of the way."""
    # What is imported lives as long as the process. To look for garbage in it seldom on the
    # way, and not at all at the end, takes a sixth off a small command.
    gc.set_threshold(FEW)
    from muxcore.cli.main import main  # noqa: PLC0415 - not before that

    try:
        return main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    sys.exit(command())
