"""Places: what several endpoints, configs and people share, as salted fingerprints. Pure."""

from __future__ import annotations

from muxcore.core.records import Endpoint
from muxcore.journal.redaction import bare_url, fingerprint


def place_of(endpoint: Endpoint, key: str | None, salt: bytes) -> str:
    """Return the place of an endpoint: its server's address, its wire model and its account.

    Another key is another place, so a mended key starts fresh; two aliases of one model under
    one key are one place. Nobody without the salt can tell what the fingerprint is of.
    """
    address = bare_url(endpoint.wire.api_base).rstrip("/").lower() or endpoint.provider
    return fingerprint(salt, address, endpoint.model, key or "")
