"""Files whose content was verified, and the seal that tells at a glance that nobody has written to them since.

A seal is: the right size, read-only, and a modification time computed from the content. Every write disturbs it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from modelyard.store.objects import Buffer

_READ_ONLY = 0o444
_WRITABLE = 0o222
_PIECE = 1024 * 1024
_CLONE = 0x40049409  # FICLONE of Linux: another file shares the blocks until one of the two is written to


class StoredFile(Protocol):
    """What the cache must know of a file."""

    @property
    def path(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...


def seal(descriptor: int, sha256: str) -> None:
    """For a file that was just verified."""
    os.fchmod(descriptor, _READ_ONLY)
    os.utime(descriptor, ns=(_moment(sha256), _moment(sha256)))


def is_sealed(path: Path, file: StoredFile) -> bool:
    try:
        return _has_seal(path.lstat(), file)
    except OSError:
        return False


def holds(path: Path, file: StoredFile, *, full: bool = False) -> bool:
    """Whether the content lies at `path`: by its seal, or by its hash when that is disturbed or `full` is asked for.

    What turns out to be right is sealed again, what is wrong loses its seal.
    """
    if not full and is_sealed(path, file):
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        right = (
            stat.S_ISREG(found.st_mode)
            and found.st_size == file.size
            and read_digest(descriptor).hexdigest() == file.sha256
        )
        with suppress(PermissionError):  # a cache of another user: it stays without a seal
            if not right:
                os.utime(descriptor)
            elif not _has_seal(found, file):
                seal(descriptor, file.sha256)
        return right
    finally:
        os.close(descriptor)


def read_digest(descriptor: int, watch: Callable[[int], object] = lambda _: None) -> hashlib._Hash:
    """The sha256 of what stands in a file, to be continued; `watch` gets the number of bytes of each piece."""
    sha, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    at = 0
    while count := os.preadv(descriptor, [buffer], at):
        sha.update(buffer[:count])
        at += count
        watch(count)
    return sha


def clone(source: Path, descriptor: int) -> bool:
    """Let a file share another one's blocks, where the file system can."""
    try:
        with source.open("rb") as stream:
            fcntl.ioctl(descriptor, _CLONE, stream.fileno())
    except OSError:
        return False
    return True


def copy(source: Path, target: Path) -> str:
    """Make `target` a file of its own with the content of `source`; returns the sha256 of what it holds then."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        if clone(source, descriptor):
            return read_digest(descriptor).hexdigest()
        sha, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
        with source.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                sha.update(buffer[:count])
                write(descriptor, buffer[:count])
        return sha.hexdigest()
    finally:
        os.close(descriptor)


def write(descriptor: int, data: Buffer) -> None:
    """All of it."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _has_seal(found: os.stat_result, file: StoredFile) -> bool:
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_size == file.size
        and not found.st_mode & _WRITABLE
        and found.st_mtime_ns == _moment(file.sha256)
    )


def _moment(sha256: str) -> int:
    """A second between 2001 and 2018, in nanoseconds: one that no write of today gives by chance."""
    return (1_000_000_000 + int(sha256[:7], 16) * 2) * 1_000_000_000
