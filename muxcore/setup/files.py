"""Writing a user's files so that each change can be undone byte for byte, and none is partial.

Beside a file that was changed lie a copy of it as it was before, and a note of the change.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from codecs import BOM_UTF8
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from muxcore.setup import SetupError
from muxcore.setup.section_edit import restored, split


@frozen
class Note:
    """What was written: the file itself, and scripts by their paths, with their digests.

    `existed` is whether there was a file before; `after` is the digest of the new content, ""
    if only scripts were written.
    """

    existed: bool = True
    after: str = ""
    scripts: dict[str, str] = field(factory=dict)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def target(file: Path) -> Path:
    """Follow links: many users keep their config elsewhere, and a link stays a link."""
    return Path(os.path.realpath(file))


def backup_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.before-vibe-mux")


def note_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.vibe-mux-init.json")


def text_of(content: bytes) -> str:
    """Decode a file, without the byte order mark with which some editors begin one."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SetupError("the config is not UTF-8; save it as UTF-8") from None


def bytes_of(text: str, like: bytes) -> bytes:
    """Encode a changed text, with a byte order mark if the former content has one."""
    return (BOM_UTF8 if like.startswith(BOM_UTF8) else b"") + text.encode()


def read_note(file: Path) -> Note | None:
    try:
        raw: Any = json.loads(note_of(file).read_text("utf-8"))
        return Note(bool(raw["existed"]), str(raw["after"]), dict(raw["scripts"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SetupError(f"{note_of(file)}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        text = f"{note_of(file)}: not a note of `vibe-mux init`"
        if backup_of(file).exists():
            text += f"; the config as it was before is {backup_of(file)}"
        raise SetupError(text) from None


def write_note(file: Path, note: Note) -> None:
    replace(note_of(file), json.dumps(asdict(note), indent=2).encode() + b"\n")


def install(file: Path, changed: str) -> None:
    """Write a changed file, after a copy of the old one and a note of the change."""
    note = read_note(file)
    changed_before = note is not None and bool(note.after)
    existed = note.existed if note is not None and changed_before else file.exists()
    if existed:
        replace(backup_of(file), _original(file, note))
    content = bytes_of(changed, file.read_bytes() if file.exists() else b"")
    scripts = note.scripts if note is not None else {}
    write_note(file, Note(existed, digest(content), scripts))
    replace(file, content)


def restore(file: Path, note: Note) -> str:
    """Put a file back as it was; return a report for people.

    One that was changed since keeps those changes, and loses only the section.
    """
    if not note.after:
        return ""
    backup = backup_of(file)
    present = file.read_bytes() if file.exists() else None
    if present is None:
        report = f"{file} is gone; nothing was put back"
    elif digest(present) == note.after:
        if note.existed:
            replace(file, _read_backup(backup))
            report = f"{file} is byte for byte as it was"
        else:
            file.unlink()
            report = f"{file} is removed, as init had made it"
    elif backup.exists() and present == _read_backup(backup):
        report = f"{file} is as it was"
    elif not note.existed and not split(text_of(present))[0].strip():
        replace(backup, present)
        file.unlink()
        return f"{file} was changed since, and is removed; {backup} is a copy of it"
    else:
        former = _read_backup(backup) if note.existed else b""
        replace(file, _put_back(present, former))
        report = f"{file} was changed since: only [multiplexer] was put back as it was"
        return f"{report}; {backup} is the whole of it" if note.existed else report
    backup.unlink(missing_ok=True)
    return report


def replace(file: Path, content: bytes) -> None:
    """Write a whole file, or leave it as it is. Its permissions stay the same."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    except OSError as error:
        raise SetupError(f"{file}: cannot be written: {error.strerror}") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(file.stat().st_mode & 0o7777)
        temporary.replace(file)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SetupError(f"{file}: cannot be written: {error.strerror}") from None
        raise


def _original(file: Path, note: Note | None) -> bytes:
    """Return the file as it would be without the recorded change."""
    present = file.read_bytes()
    if note is None or not note.after:
        return present
    former = _read_backup(backup_of(file))
    if digest(present) == note.after:
        return former
    # Changes in between are the user's own.
    return _put_back(present, former)


def _put_back(present: bytes, former: bytes) -> bytes:
    """Put the former section into the present content."""
    return bytes_of(restored(text_of(present), text_of(former)), present)


def _read_backup(backup: Path) -> bytes:
    try:
        return backup.read_bytes()
    except OSError as error:
        raise SetupError(
            f"{backup}: cannot be read: {error.strerror}; nothing was changed"
        ) from None
