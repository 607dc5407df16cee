"""Locks between the processes of one machine: they end with their holder, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.02


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Whether the lock is ours now; it is held until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether the exclusive lock of a file (made when it is not there) or folder is ours while the block runs."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o644)
    try:
        yield try_lock(descriptor) and is_current(descriptor, path)
    finally:
        os.close(descriptor)


def is_current(descriptor: int, path: Path) -> bool:
    """Whether the path still means what was opened: another holder may have moved it or put something in its place."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


class Leases:
    """What this process uses: shared locks that nobody else can take exclusively.

    They are kept until the process ends, also when this object is gone: paths that were handed out stay valid.
    """

    def __init__(self, folder: Path, *, patience_s: float) -> None:
        self._folder = folder
        self._patience_s = patience_s
        self._held: dict[str, int] = {}

    def take(self, name: str) -> None:
        """Mark as used just now, and keep from being taken away. Raises TimeoutError when somebody sits on it."""
        path = self._folder / name
        held = self._held.get(name)
        if held is None or not is_current(held, path):
            self._held[name] = held = self._lock(path)
        os.utime(held)

    def _lock(self, path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._patience_s
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            if try_lock(descriptor, shared=True) and is_current(descriptor, path):
                return descriptor
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds its locks and does not go on")
            time.sleep(_POLL_S)
