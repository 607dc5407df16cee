"""The cache on this machine: content-addressed, verified on the way in, shared by versions and by stores.

`blobs/<sha256>` holds each content once; `trees/<digest>/` shows a version as a folder of hard links to them.
Everything appears by a rename, so a process may be killed at any moment, and several may fill the cache at once.
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

from modelyard.errors import IntegrityError, NotFound
from modelyard.store.objects import Store, check_key
from modelyard.store.transfer import Progress, file_sha256, no_progress

_PARALLEL = 8
_READ_ONLY = 0o444


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
        self._blobs = folder / "blobs"
        self._trees = folder / "trees"

    def tree(self, store: Store, digest: str, files: Sequence[StoredFile], *, progress: Progress = no_progress) -> Path:
        """The folder that holds exactly these files; what is missing comes from the store, verified on the way.

        The folder is shared: read it, do not write to it. Raises IntegrityError naming a file whose stored bytes are
        not the registered ones.
        """
        tree = self._trees / digest
        if tree.is_dir():
            return tree
        building = self._trees / f".{digest}.{uuid.uuid4().hex}"
        building.mkdir(parents=True)
        try:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                list(pool.map(lambda file: self._place(store, file, building, progress), files))
            with suppress(OSError):  # somebody else was faster with the same content
                building.rename(tree)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return tree

    def verify(self, digest: str, files: Sequence[StoredFile]) -> bool:
        """Hash a cached tree again; one that is not as registered is dropped, and False returned."""
        tree = self._trees / digest
        good = True
        for file in files:
            path = tree / file.path
            if not path.is_file() or file_sha256(path) != file.sha256:
                good = False
                self._blob(file.sha256).unlink(missing_ok=True)
        if not good:
            shutil.rmtree(tree, ignore_errors=True)
        return good

    def _place(self, store: Store, file: StoredFile, folder: Path, progress: Progress) -> None:
        blob = self._blob(file.sha256)
        if not blob.exists():
            self._fetch(store, file, blob, progress)
        target = folder / check_key(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(blob, target)

    def _fetch(self, store: Store, file: StoredFile, blob: Path, progress: Progress) -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        partial = blob.with_name(f".{blob.name}.{uuid.uuid4().hex}")
        sha = hashlib.sha256()
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
            partial.rename(blob)
        except NotFound:
            raise IntegrityError(f"{file.path} is missing in the store: {file.key} in {store.url}") from None
        finally:
            partial.unlink(missing_ok=True)

    def _blob(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256
