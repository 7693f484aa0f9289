"""`vibe-mux reset`: ends what disables a model, in every process that shares its state."""

from __future__ import annotations

import argparse
import sys

from muxcore.cli.main import FAILED, WELL
from muxcore.plugins.catalogue import FILE
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.factory import parts_of


def run(options: argparse.Namespace) -> int:
    with Multiplexer(parts_of(options.config, None, state=FILE)) as multiplexer:
        multiplexer.reset(options.alias)
    # Closed, so that all is published or has failed.
    problem = multiplexer.sharing_problem
    if problem is not None:
        print(f"vibe-mux: nothing to reset: {problem}", file=sys.stderr)
        return FAILED
    print(f"{options.alias or 'All models'} may be used again.")
    return WELL
