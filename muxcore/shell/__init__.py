"""The imperative shell: threads, clocks and HTTP around the pure core.

Modules that are slow to import (requests, cattrs, OpenSSL) are imported on first use. This
package holds the table of all such names of the shell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muxcore.shell.importing import imported

if TYPE_CHECKING:
    from hashlib import blake2b as blake2b

    from muxcore.config.addresses import is_loopback as is_loopback
    from muxcore.shell.call.runner import CallRun as CallRun
    from muxcore.shell.call.stream import Stream as Stream
    from muxcore.shell.factory import parts_of as parts_of
    from muxcore.shell.http.connections import Connections as Connections
    from muxcore.shell.observing import Observing as Observing
    from muxcore.shell.sharing import share as share

_HOME_OF = {
    "CallRun": "muxcore.shell.call.runner",
    "Connections": "muxcore.shell.http.connections",
    "Observing": "muxcore.shell.observing",
    "Stream": "muxcore.shell.call.stream",
    "blake2b": "hashlib",
    "is_loopback": "muxcore.config.addresses",
    "parts_of": "muxcore.shell.factory",
    "share": "muxcore.shell.sharing",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'muxcore.shell' has no attribute {name!r}")
    value = imported(_HOME_OF[name], name)
    globals()[name] = value
    return value
