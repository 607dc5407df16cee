"""The cache on this machine: content-addressed, verified on the way in, shared by versions and by stores.

`blobs/<sha256>` holds each content once; `trees/<digest>/` shows a version as a folder of hard links to them.
Everything appears or is replaced by a rename, and no good file is ever taken away, so a process may be killed at any
moment, and several may fill, check and mend the same tree at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from modelyard.errors import IntegrityError, NotFound, StoreError
from modelyard.store.objects import Store, check_key
from modelyard.store.transfer import Progress, no_progress

_PARALLEL = 8
_READ_ONLY = 0o444
_LINK_ATTEMPTS = 100


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


class Cache:
    """The cache below one folder; made when first used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = folder / "blobs"
        self._trees = folder / "trees"

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

        The folder is shared: read it, do not write to it. `recheck` hashes what lies there already and replaces what
        is not as registered. Raises IntegrityError naming a file whose stored bytes are not the registered ones.
        """
        tree = self._trees / digest
        try:
            if not tree.is_dir():
                self._fill(store, files, recheck, progress)
                self._build(tree, files)
            elif recheck:
                _remove_strangers(tree, files)
                wrong = self.verify(digest, files)
                self._fill(store, wrong, recheck, progress)
                self._mend(tree, wrong)
        except OSError as error:
            raise StoreError(
                f"the cache in {self._folder} can't be used: {error.strerror}",
                remedy="make room there or set MODELYARD_CACHE to another folder",
            ) from error
        return tree

    def verify(self, digest: str, files: Sequence[StoredFile]) -> list[StoredFile]:
        """Hash a cached tree again; returns the files that are not there as registered."""
        tree = self._trees / digest
        with ThreadPoolExecutor(_PARALLEL) as pool:
            held = pool.map(lambda file: _holds(tree / file.path, file.sha256), files)
            return [file for file, good in zip(files, held, strict=True) if not good]

    def _fill(self, store: Store, files: Sequence[StoredFile], recheck: bool, progress: Progress) -> None:
        """Bring every content that is missing (or, with `recheck`, damaged) into `blobs/`."""

        def one(file: StoredFile) -> None:
            blob = self._blob(file)
            if not (_holds(blob, file.sha256) if recheck else blob.exists()):
                self._fetch(store, file, blob, progress)

        distinct = {file.sha256: file for file in files}.values()
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(one, distinct))

    def _build(self, tree: Path, files: Sequence[StoredFile]) -> None:
        building = self._private(self._trees)
        try:
            for file in files:
                target = building / check_key(file.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(self._blob(file), target)
            building.rename(tree)
        except OSError:
            if not tree.is_dir():  # otherwise somebody else was faster with the same content
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _mend(self, tree: Path, files: Sequence[StoredFile]) -> None:
        """Put good files in the place of wrong ones; those who read the tree meanwhile keep what they opened."""
        for file in files:
            fresh, target = self._private(self._trees), tree / check_key(file.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _link(self._blob(file), fresh)
                fresh.replace(target)
            finally:
                fresh.unlink(missing_ok=True)  # a rename onto a link to the same content leaves both

    def _fetch(self, store: Store, file: StoredFile, blob: Path, progress: Progress) -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        partial, sha = self._private(blob.parent), hashlib.sha256()
        try:
            with partial.open("wb") as out:
                for chunk in store.stream(file.key):
                    sha.update(chunk)
                    out.write(chunk)
                    progress(len(chunk))
            if sha.hexdigest() != file.sha256:
                raise IntegrityError(
                    f"{file.path} is damaged in the store: {file.key} in {store.url} is not what was registered",
                    remedy="restore the object from a backup or register the version anew under another number",
                )
            partial.chmod(_READ_ONLY)
            partial.replace(blob)
        except NotFound:
            raise IntegrityError(f"{file.path} is missing in the store: {file.key} in {store.url}") from None
        finally:
            partial.unlink(missing_ok=True)

    def _blob(self, file: StoredFile) -> Path:
        return self._blobs / file.sha256[:2] / file.sha256

    @staticmethod
    def _private(folder: Path) -> Path:
        """A name nobody else uses, for what is not complete yet."""
        return folder / f".{uuid.uuid4().hex}"


def _link(blob: Path, target: Path) -> None:
    """A blob that is replaced by its equal at this very moment looks missing to the kernel: try again."""
    for _ in range(_LINK_ATTEMPTS):
        with suppress(FileNotFoundError):
            return os.link(blob, target)
    return os.link(blob, target)


def _remove_strangers(tree: Path, files: Sequence[StoredFile]) -> None:
    """A file that was never registered could be taken for code or weights of the model."""
    known = {file.path for file in files}
    for path in tree.rglob("*"):
        if not path.is_dir() and path.relative_to(tree).as_posix() not in known:
            path.unlink(missing_ok=True)


def _holds(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
