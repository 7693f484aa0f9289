"""What every test needs: nothing of whoever runs it, neither the keyring nor the signals."""

from __future__ import annotations

import os
import signal

from muxcore.config.keyring import OFF

# For the processes that tests start, too.
os.environ[OFF] = "1"

# In the background, a shell has its programs ignore some of these, and so their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
if os.name != "nt":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
