"""The paths that `run` gives to the agents it starts. Pure.

They are apart from the routes, so that `run` does not import every API before it starts an agent.
"""

from __future__ import annotations

from urllib.parse import quote


def run_path(label: str) -> str:
    """Return the path of an `api_base` for a `run` whose agent names models by itself."""
    return f"/run/{label}/v1"


def base_path(label: str = "", only: str | None = None) -> str:
    """Return the path of an `api_base` for a `run`: of the pool, or of the model `only`."""
    prefix = f"/run/{label}" if label else ""
    return (
        f"{prefix}/pool/v1" if only is None else f"{prefix}/only/{quote(only, safe='')}/v1"
    )
