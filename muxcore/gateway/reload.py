"""Reloads a pool when its config file changes, while calls run."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from attrs import evolve, frozen

from muxcore import config as configuration
from muxcore.config import Config
from muxcore.config.keys import DOTENV
from muxcore.config.read import SECTION_FILE_NAME, config_path, read
from muxcore.core.status import Status
from muxcore.errors import ConfigError
from muxcore.gateway import faults
from muxcore.gateway.api.status_page import SwitchOnHint
from muxcore.gateway.faults.spec import Drill
from muxcore.plugins.catalogue import MEMORY
from muxcore.shell import clock
from muxcore.shell.call.member import Wrapping
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.factory import Parts, parts_of

Adapting: TypeAlias = Callable[[Config], Config]

BESIDE = (SECTION_FILE_NAME, DOTENV)
"""The files beside the config that are part of it."""

RACY_MTIME = timedelta(seconds=2)
"""Two changes within this time may leave the same modification time (git: "racily clean")."""


@frozen
class FileStamp:
    """What identifies a version of a file; `stat` is empty if there is no file.

    `is_racy`: the file was so new that a later change may leave the same `stat`.
    """

    stat: tuple[int, ...]
    digest: bytes
    is_racy: bool


def stamp(file: Path, before: FileStamp | None = None) -> FileStamp:
    """Return the stamp of a file; read the file only if it may have changed since `before`."""
    try:
        found = file.stat()
        stat = (found.st_mtime_ns, found.st_size, found.st_ino)
        if before is not None and before.stat == stat and not before.is_racy:
            return before
        content = file.read_bytes()
    except OSError:
        return FileStamp((), b"", is_racy=False)
    changed = datetime.fromtimestamp(found.st_mtime, tz=UTC)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return FileStamp(stat, digest, is_racy=abs(clock.now() - changed) < RACY_MTIME)


class ReloadingPool:
    """A multiplexer made from a config file, which adopts each change of the file.

    Endpoints that stay keep their health, and running calls continue
    (`muxcore.core.migration`). If the file becomes invalid, the old config stays in use and
    `/status` says so. `multiplexer.toml` and `.env` beside it count, too. `adapt` maps each
    config that was read to the one to use. A `source` that is a mapping or a `Config` never
    changes.
    """

    def __init__(
        self,
        source: configuration.Source = None,
        *,
        env: Mapping[str, str] | None = None,
        drills: Sequence[Drill] = (),
        adapt: Adapting | None = None,
        state: str = MEMORY,
    ) -> None:
        self._environment = os.environ if env is None else env
        self._adapt = adapt
        self._drills = tuple(drills)
        self._state = state
        """Where the state is kept if the config does not say."""
        self._lock = threading.Lock()
        self._notices: tuple[str, ...] = ()
        self.file: Path | None = None
        """The path of the config, whether or not the file exists yet; None for other sources."""
        if source is None or isinstance(source, str | os.PathLike):
            self.file = config_path(source, self._environment)
        self._files = (
            ()
            if self.file is None
            else (self.file, *(self.file.with_name(name) for name in BESIDE))
        )
        # Until there is a file, vibe's own defaults are the config.
        used = None if source is None else (self.file or source)
        self._stamps = self._stamp_files()
        self.config, parts, self._off = self._read(used)
        known = {endpoint.alias for endpoint in self.config.endpoints}
        for drill in self._drills:
            drill.expect_known(known)
        self._multiplexer = Multiplexer(parts)

    @property
    def multiplexer(self) -> Multiplexer:
        """The multiplexer, after adopting the file as it is now."""
        # While another thread reloads, callers use the present config.
        if self.file is not None and self._lock.acquire(blocking=False):
            try:
                self._reload_if_changed()
            finally:
                self._lock.release()
        return self._multiplexer

    @property
    def off(self) -> SwitchOnHint | None:
        """How to switch the multiplexer on; None when it is on."""
        return self._off

    @property
    def own_model(self) -> str:
        """The alias that is used without a pool, or the first of the pool."""
        aliases = [endpoint.alias for endpoint in self.config.endpoints]
        own = self.config.active_model
        return own if own in aliases else aliases[0]

    def status(self) -> Status:
        """Return the status, with notices about the config and the fire drills."""
        status = self.multiplexer.status()
        drilled = tuple(str(drill) for drill in self._drills)
        return evolve(status, notices=(*status.notices, *self._notices, *drilled))

    def close(self) -> None:
        self._multiplexer.close()

    def _reload_if_changed(self) -> None:
        stamps = self._stamp_files(self._stamps)
        changed = [s.digest for s in stamps] != [s.digest for s in self._stamps]
        self._stamps = stamps
        if not changed:
            return
        try:
            # A file that never existed is no error: vibe's own defaults stay in use.
            exists = stamps[0].stat or self.config.source is not None
            config, parts, off = self._read(self.file if exists else None)
            self._multiplexer.adopt(parts)
        except ConfigError as error:
            text = (
                "The config has changed and cannot be used; the one before it still counts"
            )
            self._notices = (f"{text}: {'; '.join(error.problems)}",)
            return
        self.config, self._off, self._notices = config, off, ()

    def _stamp_files(self, before: Sequence[FileStamp] = ()) -> tuple[FileStamp, ...]:
        return tuple(
            stamp(file, before[position] if before else None)
            for position, file in enumerate(self._files)
        )

    def _read(
        self, source: configuration.Source
    ) -> tuple[Config, Parts, SwitchOnHint | None]:
        for file, present in zip(self._files, self._stamps, strict=True):
            if present.stat and not present.stat[1] and file.name != DOTENV:
                # An editor may be about to write it: an empty config is never meant.
                raise ConfigError([f"{file}: the file is empty"])
        config = configuration.load(source, env=self._environment)
        off = None
        if not config.enabled:
            off = _switch_on_hint(config, source, self._environment)
        if self._adapt is not None:
            config = self._adapt(config)
        parts = parts_of(config, self._environment, self._wrappings(), state=self._state)
        return config, parts, off

    def _wrappings(self) -> Mapping[str, Wrapping]:
        if not self._drills:
            return {}
        return faults.wrappings(self._drills)


def _switch_on_hint(
    config: Config, source: configuration.Source, environment: Mapping[str, str]
) -> SwitchOnHint:
    if isinstance(source, Config):
        return SwitchOnHint.of(config.active_model, config.source, {})
    document = read(source, environment)
    return SwitchOnHint.of(config.active_model, document.section_file, document.data)
