"""Replaces a file by a changed copy of itself, whole or not at all.

The copy is written beside it, put on the disk and renamed over it, so that a full disk or a killed process leaves the
file as it was. Our own processes take turns by a lock on the file itself. Others do not know that lock: so right before
the renaming the file is looked at again, and if it is not what was copied any more, the copy is made anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from core.errors import Unavailable

ATTEMPTS = 5
LOCK_SECONDS = 30.0
POLL_SECONDS = 0.02
BUFFER = 1024 * 1024
SUFFIX = ".boucle-part"

#: Copies the first file into the second; False if that changed nothing.
Copy = Callable[[BinaryIO, BinaryIO], bool]


class KeepsChanging(Unavailable):
    """Somebody changes the file faster than it can be copied, or holds it."""


def replace(path: Path, copy: Copy) -> bool:
    """Put what `copy` makes of the file in its place; a link to it stays a link. False if nothing had to change.

    Raises KeepsChanging, Unavailable (the folder cannot be written to, the disk is full: the file is as it was),
    and OSError if it cannot be read.
    """
    real = Path(os.path.realpath(path))
    for _ in range(ATTEMPTS):
        with _open_locked(real) as source:
            _remove_debris(real)
            changed = _attempt(real, source, copy)
        if changed is not None:
            return changed
    raise KeepsChanging(f"{path} was changed {ATTEMPTS} times while its copy was made; it is left as it is")


def _open_locked(path: Path) -> BinaryIO:
    """The file that has this name, locked: by the time a lock is had, the name may belong to another one.

    Opened for writing, though nothing is written into it: who may not, may not replace it either.
    """
    give_up_at = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            file = path.open("r+b")
        except PermissionError as error:
            raise Unavailable(f"scores cannot be written into {path}: it may not be written to") from error
        try:
            if _lock(file) and _same_file(os.fstat(file.fileno()), path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        if time.monotonic() > give_up_at:
            raise KeepsChanging(f"{path} is being written to by another process of ours")
        time.sleep(POLL_SECONDS)


def _lock(file: BinaryIO) -> bool:
    """Take the lock; False if another process has it. Where a file system knows no locks, we are alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return True


def _attempt(path: Path, source: BinaryIO, copy: Copy) -> bool | None:
    """Replace the file once. None if somebody changed it meanwhile."""
    before = os.fstat(source.fileno())
    signature = _signature(source)
    part = path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")
    try:
        with _new_file(part) as target:
            source.seek(0)
            if not copy(source, target):
                return False
            _look_alike(target.fileno(), source.fileno(), before)
            target.flush()
            os.fsync(target.fileno())
        if not _unchanged(path, source, before, signature):
            return None
        part.rename(path)
    except FileNotFoundError:
        return None  # the copy is gone: another process of ours, after the file was replaced, took it for debris
    except OSError as error:
        raise _told(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _new_file(part: Path) -> BinaryIO:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=BUFFER)


def _look_alike(target: int, source: int, status: os.stat_result) -> None:
    """Same owner, mode and further attributes, as far as we may."""
    with contextlib.suppress(PermissionError):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    with contextlib.suppress(OSError):  # many file systems have none
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))


def _unchanged(path: Path, source: BinaryIO, before: os.stat_result, signature: bytes) -> bool:
    """Whether the name still belongs to the file that was copied, and the file is what it was."""
    now = os.fstat(source.fileno())
    same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns) and _same_file(before, path)
    # two changes within one tick of the clock have the same time
    return same and _signature(source) == signature


def _same_file(status: os.stat_result, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino)


def _signature(file: BinaryIO) -> bytes:
    hashed = blake2b(digest_size=20)
    file.seek(0)
    while chunk := file.read(BUFFER):
        hashed.update(chunk)
    return hashed.digest()


def _prefix(path: Path) -> str:
    """What the names of unfinished copies of this file begin with; short, however long its own name is."""
    return f".boucle-{blake2b(os.fsencode(path.name), digest_size=6).hexdigest()}-"


def _remove_debris(path: Path) -> None:
    """Unfinished copies that killed processes left. We hold the lock, so nobody is at work on one."""
    prefix = _prefix(path)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(SUFFIX)]
        for one in left:
            Path(one).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk, where the file system can: the old or the new file is there in any case."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _told(path: Path, error: OSError) -> Unavailable:
    why = (error.strerror or str(error)).lower()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(
            f"scores cannot be written into {path}: its folder {path.parent} may not be written to: {why}"
        )
    return Unavailable(f"scores cannot be written into {path}, which is as it was: {why}")
