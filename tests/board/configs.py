"""The config of the tests of boards."""

from __future__ import annotations

from typing import Any


def two_models(url: str, *pool: dict[str, Any], **section: Any) -> dict[str, Any]:
    """Return a config of two models at `url`: `section` is more of `[multiplexer]`."""
    return {
        "active_model": "alpha",
        "providers": [{"name": "p", "api_base": url, "backend": "generic"}],
        "models": [
            {"name": "model-a", "provider": "p", "alias": "alpha"},
            {"name": "model-b", "provider": "p", "alias": "beta"},
        ],
        "multiplexer": {
            "enabled": True,
            "mode": "failover",
            "pool": list(pool) or [{"model": "alpha"}, {"model": "beta"}],
            **section,
        },
    }
