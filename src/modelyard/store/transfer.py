"""Sending files into a store: hashed once, while the bytes pass, many at a time, in bounded memory.

What the store holds already is not sent again. Knows files, keys and digests; what a version is stands in the
repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelyard.errors import IntegrityError, InvalidInput, NotFound, StoreError
from modelyard.store.files import File, LocalFile
from modelyard.store.objects import CHUNK, ObjectFile, Store
from modelyard.store.parallel import Budget, Stop, run

_THREADS = 16
_MEMORY = 20 * CHUNK
_PARTS = 12  # under way at a time, shared by the large files
_FEWEST, _MOST = 2, 12  # of one file
_OWN = 3  # chunks of a file that are no part under way: one is read and hashed, one waits, one is handed over
_PARTS_OF_AN_OBJECT = 9000  # S3 takes 10,000

Progress = Callable[[int], None]
Content = tuple[int, str]  # size in bytes, hex sha256


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that is in the store now."""

    path: str
    key: str
    size: int
    sha256: str


def no_progress(count: int) -> None:
    """For callers that do not watch; a progress callback takes the number of bytes done since its last call."""


def nobody(sent: Sent) -> None:
    """For callers that want to hear of files only when all are there."""


def send(
    store: Store,
    files: Sequence[File],
    prefix: str,
    *,
    known: Mapping[Content, str] | None = None,
    on_sent: Callable[[Sent], object] = nobody,
    progress: Progress = no_progress,
) -> list[Sent]:
    """Bring files below `prefix`, in the order of `files`. Raises InvalidInput for a file that changes meanwhile.

    `known`: (size, sha256) → key of what the store holds: the same content is copied inside the store. `on_sent` hears
    of each file as soon as it is there, in this thread; when it raises, sending ends.
    """
    stop = Stop()
    sending = _Sending(store, prefix, known or {}, progress, stop)
    sending.share_out(files)
    order = sorted(range(len(files)), key=lambda number: -files[number].size)
    sent = run((lambda n: sending.one(files[n])), order, threads=_THREADS, stop=stop, done=on_sent)
    return [each for _, each in sorted(zip(order, sent, strict=True), key=lambda pair: pair[0])]


class _Sending:
    """One call of `send`."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        known: Mapping[Content, str],
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._known = known
        self._known_sizes = {size for size, _ in known}
        self._progress = progress
        self._stop = stop
        self._memory = Budget(_MEMORY)
        self._parallel = _MOST

    def share_out(self, files: Sequence[File]) -> None:
        """The more large files there are, the fewer parts of each are under way."""
        large = sum(file.size > CHUNK for file in files)
        self._parallel = max(_FEWEST, min(_MOST, _PARTS // max(large, 1)))

    def one(self, file: File) -> Sent:
        part = part_size(file.size)
        parallel = max(1, min(self._parallel, _MEMORY // part - _OWN))
        whole = file.size <= CHUNK
        with self._memory.take(file.size if whole else (parallel + _OWN) * part):
            self._stop.check()
            if found := self._found(file):
                self._progress(file.size)
                return found
            key = f"{self._prefix}/{file.path}"
            copied = self._beside(file, key)
            passing = Hashing(copied or file, self._progress, self._stop)
            if copied:
                passing.run()
            elif whole:
                self._store.put(key, b"".join(passing))
            else:
                self._store.put(key, passing, part_size=part, parallel=parallel)
            sha256 = passing.finish()
            if file.sha256 not in (None, sha256):
                raise IntegrityError(f"{file.path} is not what its source says it is", remedy="get it again")
            return Sent(file.path, key, file.size, sha256)

    def _found(self, file: File) -> Sent | None:
        """The file without sending it, if the store has its content."""
        if file.size not in self._known_sizes:
            return None
        sha256 = file.sha256 or (self._digest(file) if isinstance(file, LocalFile) else None)
        if sha256 is None:  # reading it costs as much as sending it
            return None
        key, source = f"{self._prefix}/{file.path}", self._known.get((file.size, sha256))
        return Sent(file.path, key, file.size, sha256) if source and self._copied(source, key) else None

    def _digest(self, file: File) -> str:
        passing = Hashing(file, no_progress, self._stop)
        passing.run()
        return passing.finish()

    def _beside(self, file: File, key: str) -> File | None:
        """The copy of a file that lies in the same bucket; hashed there, as it may have changed meanwhile."""
        try:
            if isinstance(file, ObjectFile) and self._store.copy_from(file.store, file.key, key):
                return ObjectFile(self._store, key, file.path, file.size)
        except (NotFound, StoreError):  # gone, or too large for a copy: reading it tells
            pass
        return None

    def _copied(self, source: str, key: str) -> bool:
        """Whether the store could: the object may be gone by now, or larger than the store copies (S3: 5 GB)."""
        try:
            self._store.copy(source, key)
        except (NotFound, StoreError):
            return False
        return True


class Hashing:
    """A file's chunks on their way, counted and hashed."""

    def __init__(self, file: File, progress: Progress, stop: Stop) -> None:
        self._file = file
        self._progress = progress
        self._stop = stop
        self._sha = hashlib.sha256()
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._file.chunks():
            self._stop.check()
            self._sha.update(chunk)
            self._size += len(chunk)
            self._progress(len(chunk))
            yield chunk

    def run(self) -> None:
        """Only hash."""
        for _ in self:
            continue

    def finish(self) -> str:
        """The sha256 of what passed. Raises InvalidInput when that was not the whole file."""
        if self._size != self._file.size:
            raise InvalidInput(
                f"{self._file.path} changed while it was read", remedy="try again when nobody writes to it"
            )
        return self._sha.hexdigest()


def part_size(size: int) -> int:
    """How a file of so many bytes is cut: not into more parts than S3 takes."""
    return max(CHUNK, -(-size // _PARTS_OF_AN_OBJECT))


def stored_digest(store: Store, key: str) -> tuple[int, str] | None:
    """(size, sha256) of a stored object, read through; None if it is gone."""
    try:
        return digest(store.stream(key))
    except NotFound:
        return None


def digest(data: Iterable[bytes]) -> tuple[int, str]:
    """(size, hex sha256) of a stream."""
    sha, size = hashlib.sha256(), 0
    for chunk in data:
        sha.update(chunk)
        size += len(chunk)
    return size, sha.hexdigest()
