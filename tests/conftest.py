"""What every test needs: no test asks the keyring of whoever runs it."""

from __future__ import annotations

import os

from muxcore.config.keyring import OFF

# For the processes that tests start, too.
os.environ[OFF] = "1"
