"""Getting contents into files: verified before they appear, resumed where an earlier process was interrupted.

Of several processes that want the same content one downloads, under a lock, and the others wait for it as long as it
goes on.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from modelyard.errors import IntegrityError, NotFound
from modelyard.store.blobs import StoredFile, clone, is_sealed, read_digest, seal, write
from modelyard.store.locks import is_current, try_lock
from modelyard.store.objects import Store
from modelyard.store.parallel import Stop
from modelyard.store.reading import Reader
from modelyard.store.transfer import Progress

_POLL_S = 0.02


class Download:
    """Downloads of one call, from one store; what is incomplete lies in `folder`, named by its content."""

    def __init__(
        self, store: Store, folder: Path, reader: Reader, *, patience_s: float, progress: Progress, stop: Stop
    ) -> None:
        self._store = store
        self._folder = folder
        self._reader = reader
        self._patience_s = patience_s
        self._progress = progress
        self._stop = stop

    def obtain(self, file: StoredFile, blob: Path) -> None:
        """Have the content at `blob`, sealed. Raises IntegrityError naming a file that is not as registered."""
        partial = self._folder / file.sha256
        while not is_sealed(blob, file):
            self._stop.check()
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not try_lock(descriptor):
                    if not self._waited(descriptor, blob, file):
                        self._alone(file, blob)
                elif is_current(descriptor, partial):
                    self._complete(descriptor, file)
                    _publish(descriptor, partial, blob, file)
            except IntegrityError:
                partial.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)

    def _waited(self, descriptor: int, blob: Path, file: StoredFile) -> bool:
        """Whether the other one came to an end; False when it has not gone on for a while."""
        seen, since, shown = _state(descriptor), time.monotonic(), 0
        while not (free := try_lock(descriptor)) and time.monotonic() - since < self._patience_s:
            self._stop.check()
            now = _state(descriptor)
            if now != seen:
                seen, since = now, time.monotonic()
            self._progress(now[0] - shown)
            shown = now[0]
            time.sleep(_POLL_S)
        self._progress((file.size if is_sealed(blob, file) else 0) - shown)
        return free

    def _alone(self, file: StoredFile, blob: Path) -> None:
        """Beside somebody who holds the lock and does not go on."""
        private = self._folder / f".{uuid.uuid4().hex}"
        descriptor = os.open(private, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            try_lock(descriptor)  # nobody takes it for a leftover
            self._complete(descriptor, file)
            _publish(descriptor, private, blob, file)
        finally:
            os.close(descriptor)
            private.unlink(missing_ok=True)

    def _complete(self, descriptor: int, file: StoredFile) -> None:
        """The content stands in the file, verified. What stands there already is read again, and kept if it fits."""
        if os.fstat(descriptor).st_size > file.size:
            os.truncate(descriptor, 0)
        source = self._store.local_path(file.key)
        if source and not os.fstat(descriptor).st_size and source.stat().st_size == file.size:
            clone(source, descriptor)
        there = os.fstat(descriptor).st_size
        if self._continue(descriptor, file, there):
            return
        if there:  # the beginning may be what is wrong
            self._progress(-file.size)
            os.truncate(descriptor, 0)
            if self._continue(descriptor, file, 0):
                return
        raise _damaged(self._store, file)

    def _continue(self, descriptor: int, file: StoredFile, there: int) -> bool:
        def watch(count: int) -> None:
            self._stop.check()
            os.utime(descriptor)  # a sign of life for those who wait
            self._progress(count)

        sha = read_digest(descriptor, watch)
        os.lseek(descriptor, there, os.SEEK_SET)
        try:
            for chunk in self._reader.chunks(file.key, file.size, there):
                sha.update(chunk)
                write(descriptor, chunk)
                self._progress(len(chunk))
        except NotFound:
            raise IntegrityError(f"{file.path} is missing in the store: {file.key} in {self._store.url}") from None
        except IntegrityError as error:
            raise _damaged(self._store, file) from error
        return sha.hexdigest() == file.sha256


def _publish(descriptor: int, partial: Path, blob: Path, file: StoredFile) -> None:
    seal(descriptor, file.sha256)
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(blob)


def _state(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns


def _damaged(store: Store, file: StoredFile) -> IntegrityError:
    return IntegrityError(
        f"{file.path} is damaged in the store: {file.key} in {store.url} is not what was registered",
        remedy="restore the object from a backup or register the version anew under another number",
    )
