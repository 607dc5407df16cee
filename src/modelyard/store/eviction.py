"""Room in the cache: the trees that were used longest ago go first, never one that is used; leftovers go too.

Killed at any moment it breaks nothing: a tree vanishes by a rename, and what lies renamed is the next one's to remove.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelyard.store.locks import locked

RECENT_S = 600  # who was handed a folder and ended may still be followed by somebody who reads it
_ABANDONED_S = 600
_RESUMABLE_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of a cache, below one."""

    root: Path

    @property
    def blobs(self) -> Path:
        """Each content once, named by its sha256."""
        return self.root / "blobs"

    @property
    def trees(self) -> Path:
        """A folder for each version, of hard links."""
        return self.root / "trees"

    @property
    def leases(self) -> Path:
        """A file for each tree: locked by who uses it, its time that of the last use."""
        return self.root / "leases"

    @property
    def partial(self) -> Path:
        """Downloads under way or interrupted; locked by who writes."""
        return self.root / "partial"

    @property
    def building(self) -> Path:
        """Trees that are being built or removed; locked by who does it."""
        return self.root / "building"

    def private(self) -> Path:
        """A name nobody else uses, for what is not complete yet or no longer."""
        return self.building / uuid.uuid4().hex


def make_room(places: Places, incoming: int, limit: int | None) -> None:
    """Remove leftovers; and trees, until so many bytes more stay below the limit, or all that is left is in use.

    One process at a time: who finds another one at it leaves it to that one.
    """
    places.root.mkdir(parents=True, exist_ok=True)
    with locked(places.root / "evict.lock") as alone:
        if not alone:
            return
        _remove_leftovers(places)
        if limit is None:
            return
        blobs = {found.st_ino: (path, found) for path, found in _files(places.blobs)}
        excess = incoming - limit + sum(found.st_size for _, found in (*blobs.values(), *_files(places.partial)))
        now = time.time()
        for path, found in list(blobs.values()):
            if excess > 0 and found.st_nlink == 1 and now - found.st_ctime > RECENT_S:
                excess -= _remove_blob(path)
        for tree in sorted(_entries(places.trees), key=lambda tree: _last_use(places, tree)):
            if excess <= 0:
                return
            inodes = {found.st_ino for _, found in _files(tree)}
            if _remove_tree(places, tree):
                excess -= sum(_remove_blob(blobs[inode][0]) for inode in inodes if inode in blobs)


def _remove_tree(places: Places, tree: Path) -> bool:
    """Whether nobody used it, so that it is gone."""
    places.leases.mkdir(parents=True, exist_ok=True)
    places.building.mkdir(parents=True, exist_ok=True)
    lease, gone = places.leases / tree.name, places.private()
    with locked(lease) as mine:
        if not mine or time.time() - lease.stat().st_mtime < RECENT_S:
            return False
        tree.rename(gone)
        lease.unlink()
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _remove_blob(path: Path) -> int:
    """Remove a content that no tree has; returns the bytes that are free now."""
    with suppress(FileNotFoundError):
        found = path.stat()
        if found.st_nlink == 1:
            path.unlink()
            return found.st_size
    return 0


def _remove_leftovers(places: Places) -> None:
    """What killed processes left, when nobody holds it any more; a download can be continued for a day."""
    unused = [lease for lease in _entries(places.leases) if not (places.trees / lease.name).exists()]
    for path in (*_entries(places.building), *_entries(places.partial), *unused):
        resumable = path.parent == places.partial and not path.name.startswith(".")
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < (_RESUMABLE_S if resumable else _ABANDONED_S):
                continue
            with locked(path) as mine:
                if not mine:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _last_use(places: Places, tree: Path) -> float:
    """In seconds since the epoch; that of its lease, else when it was built."""
    for path in (places.leases / tree.name, tree):
        with suppress(FileNotFoundError):
            return path.stat().st_mtime
    return 0


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below, with what the file system knows of it; those that vanish meanwhile are left out."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                yield path, path.lstat()
