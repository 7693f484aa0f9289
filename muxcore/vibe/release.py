"""Which vibe a program is, and what it accepts. Nothing is run: its metadata is beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

MERGES_MODELS = (2, 26)
"""From here on, a model in a variable completes the one of the same alias in a file."""

COMPLAINS_OF_SECTION = (3, 0, 3)
"""From here on, `[multiplexer]` in vibe's own file is reported as a mistake at every start."""

CHECKS_THRESHOLDS = (3, 0, 3)
"""From here on, a threshold outside the range of its window keeps vibe from starting."""

_NAME = re.compile(r"vibe(-acp)?(\.exe)?", re.IGNORECASE)
_PACKAGES = (
    "lib/python3*/site-packages",
    "lib/python3*/dist-packages",
    "Lib/site-packages",
)
_METADATA = re.compile(r"mistral_vibe-(\d+(?:\.\d+)*)[^-]*\.dist-info")
_LONGEST_SHEBANG = 512


@frozen
class Release:
    """The version of a vibe, None for one that is not known."""

    number: tuple[int, ...] | None = None

    @property
    def merges_models(self) -> bool:
        return self.number is not None and self.number >= MERGES_MODELS

    @property
    def complains_of_section(self) -> bool:
        return self.number is not None and self.number >= COMPLAINS_OF_SECTION

    @property
    def needs_room(self) -> bool:
        """Whether it ends at once where its own prompt does not fit below the threshold."""
        return self.number is None or self.merges_models

    @property
    def checks_thresholds(self) -> bool:
        return self.number is None or self.number >= CHECKS_THRESHOLDS


def is_vibe(program: Path) -> bool:
    return _NAME.fullmatch(program.name) is not None


def release_of(program: Path) -> Release:
    """Find the version of an installed vibe; what is no vibe has none."""
    if not is_vibe(program):
        return Release()
    found = {
        match[1]
        for prefix in _prefixes(program)
        for packages in _PACKAGES
        for metadata in prefix.glob(f"{packages}/mistral_vibe-*.dist-info")
        if (match := _METADATA.fullmatch(metadata.name))
    }
    # A leftover of another version leaves it open which one runs.
    return (
        Release(tuple(map(int, found.pop().split(".")))) if len(found) == 1 else Release()
    )


def _prefixes(program: Path) -> Iterator[Path]:
    """Yield the environments that the program may belong to."""
    try:
        script = program.resolve()
        with script.open("rb") as file:
            shebang = file.readline(_LONGEST_SHEBANG)
    except OSError:
        return
    yield script.parent.parent
    if shebang.startswith(b"#!"):
        interpreter = Path(shebang[2:].decode("utf-8", "replace").strip())
        # Unresolved: the Python of an environment is a link to another one's.
        if interpreter.parent.parent != script.parent.parent:
            yield interpreter.parent.parent
