"""`python -m muxcore` is `vibe-mux`."""

import sys

from muxcore.cli.main import main

sys.exit(main())
