"""Keeping a pool in step with its config file, while calls run."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from attrs import evolve, frozen

from muxcore import config as configuration
from muxcore.config import Config
from muxcore.config.read import FILE_NAME, read, vibe_home
from muxcore.core.status import Status
from muxcore.errors import ConfigError
from muxcore.gateway.api.status_page import SwitchOnHint
from muxcore.gateway.faults.spec import Drill
from muxcore.shell import clock
from muxcore.shell.call.factory import parts_of
from muxcore.shell.call.member import Wrapping
from muxcore.shell.call.multiplexer import Multiplexer

Adapting: TypeAlias = Callable[[Config], Config]

RACY_MTIME = timedelta(seconds=2)
"""A file changed twice in so short a time may look the same from outside."""


@frozen
class FileStamp:
    """A file as it was when it was looked at; `outside` is what can be seen unread."""

    outside: tuple[int, ...]
    digest: bytes
    is_young: bool


def stamp(file: Path, before: FileStamp | None = None) -> FileStamp:
    """Look at a file, and read it only if something of it may have changed since."""
    try:
        stat = file.stat()
        outside = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if before is not None and before.outside == outside and not before.is_young:
            return before
        content = file.read_bytes()
    except OSError:
        return FileStamp((), b"", is_young=False)
    changed = datetime.fromtimestamp(stat.st_mtime, tz=UTC)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return FileStamp(outside, digest, is_young=abs(clock.now() - changed) < RACY_MTIME)


class ReloadingPool:
    """A multiplexer made of a config file, and remade in place whenever that has changed.

    What stayed keeps its health, and running calls run on (`muxcore.core.migration`). A file
    that has become faulty changes nothing but the status, which tells of it. The `.env`
    beside it is followed too. `adapt` changes each config that was read, before it counts.
    A `source` that is a mapping or a `Config` stays as it is.
    """

    def __init__(
        self,
        source: configuration.Source = None,
        *,
        env: Mapping[str, str] | None = None,
        drills: Sequence[Drill] = (),
        adapt: Adapting | None = None,
    ) -> None:
        self._environment = os.environ if env is None else env
        self._adapt = adapt
        self._drills = tuple(drills)
        self._lock = threading.Lock()
        self._notices: tuple[str, ...] = ()
        self.file: Path | None = None
        """The config's file, whether or not it exists yet; None for other sources."""
        if source is None:
            self.file = vibe_home(self._environment) / FILE_NAME
        elif isinstance(source, str | os.PathLike):
            self.file = Path(source).expanduser()
        # Without a file, vibe's own defaults are the config until there is one.
        self._source = None if source is None else (self.file or source)
        self._looks = self._look()
        self.config, parts, self._off = self._read(self._source)
        known = {endpoint.alias for endpoint in self.config.endpoints}
        for drill in self._drills:
            drill.expect_known(known)
        self._multiplexer = Multiplexer(**parts)

    @property
    def multiplexer(self) -> Multiplexer:
        """The multiplexer, in step with the file as it is now."""
        # Whoever comes while another is at it goes on with what there is.
        if self.file is not None and self._lock.acquire(blocking=False):
            try:
                self._follow()
            finally:
                self._lock.release()
        return self._multiplexer

    @property
    def off(self) -> SwitchOnHint | None:
        """What to write to switch the multiplexer on; None when it is."""
        return self._off

    @property
    def own_model(self) -> str:
        """The alias that would be used without a pool, or the pool's first."""
        aliases = [endpoint.alias for endpoint in self.config.endpoints]
        own = self.config.active_model
        return own if own in aliases else aliases[0]

    def status(self) -> Status:
        """Return the status, with what is to be said of the config and of a fire drill."""
        status = self.multiplexer.status()
        drilled = tuple(str(drill) for drill in self._drills)
        return evolve(status, notices=(*status.notices, *self._notices, *drilled))

    def close(self) -> None:
        self._multiplexer.close()

    def _follow(self) -> None:
        looks = self._look(self._looks)
        changed = [stamp.digest for stamp in looks] != [
            stamp.digest for stamp in self._looks
        ]
        self._looks = looks
        if not changed:
            return
        try:
            # One that never was is vibe's own, and no fault until it is there.
            there = looks[0].outside or self.config.source is not None
            config, parts, off = self._read(self.file if there else None)
            self._multiplexer.adopt(**parts)
        except ConfigError as error:
            text = (
                "The config has changed and cannot be used; the one before it still counts"
            )
            self._notices = (f"{text}: {'; '.join(error.problems)}",)
            return
        self.config, self._off, self._notices = config, off, ()

    def _look(self, before: Sequence[FileStamp] = ()) -> tuple[FileStamp, ...]:
        if self.file is None:
            return ()
        files = (self.file, self.file.parent / ".env")
        return tuple(
            stamp(file, before[position] if before else None)
            for position, file in enumerate(files)
        )

    def _read(
        self, source: configuration.Source
    ) -> tuple[Config, dict[str, Any], SwitchOnHint | None]:
        if (
            self.file is not None
            and self._looks[0].outside
            and not self._looks[0].outside[1]
        ):
            # An editor may be about to write it: nobody means an empty one.
            raise ConfigError([f"{self.file}: the file is empty"])
        config = configuration.load(source, env=self._environment)
        off = None
        if not config.enabled:
            data = config.source and read(config.source, self._environment).data
            off = SwitchOnHint.of(config.active_model, self.file, data or {})
        if self._adapt is not None:
            config = self._adapt(config)
        return config, parts_of(config, self._environment, self._wrappings()), off

    def _wrappings(self) -> Mapping[str, Wrapping]:
        if not self._drills:
            return {}
        # It brings requests, which takes longer to import than all else: a server without
        # drills is ready before that.
        from muxcore.gateway.faults.inject import wrappings  # noqa: PLC0415

        return wrappings(self._drills)
