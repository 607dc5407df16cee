"""The cache on this machine: content-addressed, verified on the way in, shared by versions and by stores, bounded.

`blobs/<sha256>` holds each content once; `trees/<digest>/` shows a version as a folder of hard links to them.
Everything appears or is replaced by a rename, and nothing is taken away that a process uses, so a process may be killed
at any moment, and several may fill, check, mend and shrink the cache at once.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from modelyard.errors import IntegrityError, StoreError
from modelyard.store import blobs
from modelyard.store.blobs import StoredFile, holds, is_sealed
from modelyard.store.download import Download
from modelyard.store.eviction import Places, make_room
from modelyard.store.locks import Leases, locked
from modelyard.store.objects import Store, check_key
from modelyard.store.parallel import Stop, run
from modelyard.store.reading import Reader
from modelyard.store.transfer import Progress, no_progress

log = logging.getLogger("modelyard.cache")

_THREADS = 8
_LINK_ATTEMPTS = 100
_PATIENCE_S = 60.0

Place = Callable[[Path, Path, Places], None]


class Cache:
    """The cache below one folder; made when first used. `limit` in bytes; None: it grows as it likes.

    Another process that holds a lock and does not go on for `patience_s` is waited for no longer.
    """

    def __init__(self, folder: Path, *, limit: int | None = None, patience_s: float = _PATIENCE_S) -> None:
        self._places = Places(folder)
        self._limit = limit
        self._patience_s = patience_s
        self._leases = Leases(self._places.leases, patience_s=patience_s)
        self._noted = False

    def tree(
        self,
        store: Store,
        digest: str,
        files: Sequence[StoredFile],
        *,
        recheck: bool = False,
        progress: Progress = no_progress,
    ) -> Path:
        """The folder that holds exactly these files; what is missing comes from the store, verified on the way.

        The folder is shared: read it, do not write to it. It stays as long as this process. What lies there already is
        known by its seal; `recheck` hashes it again. What is not as registered is replaced. Raises IntegrityError
        naming a file whose stored bytes are not the registered ones.
        """
        tree = self._places.trees / digest
        with self._errors():
            self._leases.take(digest)
            if tree.is_dir():
                _remove_strangers(tree, files)
                wrong = self._wrong(tree, files, full=recheck)
                if wrong:
                    self._bring(store, wrong, tree, _replace, full=recheck, progress=progress)
            else:
                self._build(store, files, tree, full=recheck, progress=progress)
        return tree

    def copy(
        self, store: Store, digest: str, files: Sequence[StoredFile], folder: Path, *, progress: Progress = no_progress
    ) -> None:
        """Put files of the caller's own into an empty folder: verified copies that share no byte with the cache.

        Where the file system can, they share its blocks until they are written to. Raises OSError when `folder` can't
        be written, and what `tree` raises.
        """
        tree, stop = self.tree(store, digest, files, progress=progress), Stop()

        def one(file: StoredFile) -> None:
            stop.check()
            target = folder / check_key(file.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if blobs.copy(tree / file.path, target) == file.sha256:
                return
            target.unlink()
            self.tree(store, digest, files, recheck=True, progress=progress)  # the cache was damaged behind its seal
            if blobs.copy(tree / file.path, target) != file.sha256:
                raise IntegrityError(f"{file.path} does not stay as it is written", remedy="check the disk")

        run(one, files, threads=_THREADS, stop=stop)

    def verify(self, digest: str, files: Sequence[StoredFile]) -> list[StoredFile]:
        """Hash a cached tree again; returns the files that are not there as registered."""
        return self._wrong(self._places.trees / digest, files, full=True)

    def _wrong(self, tree: Path, files: Sequence[StoredFile], *, full: bool) -> list[StoredFile]:
        suspects = [file for file in files if full or not is_sealed(tree / file.path, file)]
        held = run((lambda file: holds(tree / file.path, file, full=full)), suspects, threads=_THREADS, stop=Stop())
        return [file for file, good in zip(suspects, held, strict=True) if not good]

    def _build(self, store: Store, files: Sequence[StoredFile], tree: Path, *, full: bool, progress: Progress) -> None:
        building = self._places.private()
        building.mkdir(parents=True)
        tree.parent.mkdir(parents=True, exist_ok=True)
        try:
            with locked(building):
                self._bring(store, files, building, _link, full=full, progress=progress)
                building.rename(tree)
        except OSError:
            if not tree.is_dir():  # otherwise somebody else was faster with the same content
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _bring(
        self,
        store: Store,
        files: Sequence[StoredFile],
        tree: Path,
        place: Place,
        *,
        full: bool,
        progress: Progress,
    ) -> None:
        """Have every content in `blobs/`, good, and link it to its places in the tree."""
        groups: dict[str, list[StoredFile]] = {}
        for file in files:
            groups.setdefault(file.sha256, []).append(file)
        stop, places = Stop(), self._places
        for folder in (places.partial, places.building):
            folder.mkdir(parents=True, exist_ok=True)
        with Reader(store, stop) as reader:
            download = Download(
                store, places.partial, reader, patience_s=self._patience_s, progress=progress, stop=stop
            )

            def missing(same: Sequence[StoredFile]) -> int:
                return 0 if holds(self._blob(same[0]), same[0], full=full) else same[0].size

            def one(same: Sequence[StoredFile]) -> None:
                for file in same:
                    target = tree / check_key(file.path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._place(download, file, target, place)

            order = sorted(groups.values(), key=lambda same: -same[0].size)
            self._make_room(run(missing, order, threads=_THREADS, stop=stop), files)
            run(one, order, threads=_THREADS, stop=stop)

    def _place(self, download: Download, file: StoredFile, target: Path, place: Place) -> None:
        """A blob may be taken away, or be replaced by its equal, at the very moment it is linked: try again."""
        blob = self._blob(file)
        for _ in range(_LINK_ATTEMPTS):
            download.obtain(file, blob)
            with suppress(FileNotFoundError):
                place(blob, target, self._places)
                return
        raise FileNotFoundError(errno.ENOENT, f"{blob} is taken away again and again")

    def _make_room(self, missing: Sequence[int], files: Sequence[StoredFile]) -> None:
        if not any(missing):
            return
        make_room(self._places, sum(missing), self._limit)
        whole = sum({file.sha256: file.size for file in files}.values())
        if self._limit is not None and whole > self._limit and not self._noted:
            self._noted = True
            log.warning(
                "%s GiB are needed at once, cache_limit allows %s", *(_gibibytes(n) for n in (whole, self._limit))
            )

    def _blob(self, file: StoredFile) -> Path:
        return self._places.blobs / file.sha256[:2] / file.sha256

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the cache in {self._places.root} can't be used: {error.strerror}",
                remedy="make room there or set MODELYARD_CACHE to another folder",
            ) from error


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.3g}"


def _link(blob: Path, target: Path, _places: Places) -> None:
    os.link(blob, target)


def _replace(blob: Path, target: Path, places: Places) -> None:
    """Put a good file in the place of a wrong one; those who read it meanwhile keep what they opened."""
    fresh = places.private()
    try:
        os.link(blob, fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)  # a rename onto a link to the same content leaves both


def _remove_strangers(tree: Path, files: Sequence[StoredFile]) -> None:
    """A file that was never registered could be taken for code or weights of the model."""
    known = {file.path for file in files}
    for path in tree.rglob("*"):
        folder = path.is_dir() and not path.is_symlink()
        if not folder and (path.is_symlink() or path.relative_to(tree).as_posix() not in known):
            path.unlink(missing_ok=True)
