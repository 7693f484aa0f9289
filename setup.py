"""Builds the sdist the same, byte for byte, wherever and whenever. All else is in setup.cfg."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

EARLIEST = 315532800
"""1980-01-01, the first moment that a wheel can hold; `SOURCE_DATE_EPOCH` comes first."""


class ReproducibleSdist(sdist):
    """Writes members in order, with one time, no owner and the usual rights."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, **_):  # noqa: A002, ANN001, ANN003, ANN201 - its own form
        if format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir)
        moment = int(os.environ.get("SOURCE_DATE_EPOCH", EARLIEST))
        root = Path(root_dir or ".")
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for file in sorted(root.joinpath(base_dir).rglob("*")):
                if file.is_file():
                    member = tarfile.TarInfo(file.relative_to(root).as_posix())
                    member.size = file.stat().st_size
                    member.mtime = moment
                    member.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
                    with file.open("rb") as opened:
                        archive.addfile(member, opened)
        target = Path(f"{base_name}.tar.gz")
        target.write_bytes(gzip.compress(written.getvalue(), mtime=moment))
        return str(target)


setup(cmdclass={"sdist": ReproducibleSdist})
