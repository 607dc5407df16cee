"""Moving whole folders: hashed once, while the bytes pass, several files at a time.

Knows files, keys and digests; what a version is stands in the repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from modelyard.errors import IntegrityError, InvalidInput, NotFound
from modelyard.store.files import File
from modelyard.store.objects import CHUNK, Store

_PARALLEL = 8

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
    """For callers that do not watch; a progress callback takes the number of bytes moved since its last call."""


def send(
    store: Store,
    files: Sequence[File],
    prefix: str,
    *,
    known: Mapping[Content, str] | None = None,
    on_sent: Callable[[Sent], None] | None = None,
    progress: Progress = no_progress,
) -> list[Sent]:
    """Upload files below `prefix`. Raises InvalidInput for a file that changes or vanishes meanwhile."""
    known, tell = known or {}, on_sent or (lambda _: None)
    sizes = {size for size, _ in known}

    def one(file: File) -> Sent:
        key = f"{prefix}/{file.path}"
        if file.size in sizes:
            content = digest(file.chunks())
            if source := known.get(content):
                try:
                    store.copy(source, key)
                except NotFound:
                    pass
                else:
                    done = Sent(file.path, key, *content)
                    tell(done)
                    progress(file.size)
                    return done
        sha, size = hashlib.sha256(), 0

        def passing() -> Iterator[bytes]:
            nonlocal size
            for chunk in file.chunks():
                sha.update(chunk)
                size += len(chunk)
                progress(len(chunk))
                yield chunk

        store.put(key, b"".join(passing()) if file.size <= CHUNK else passing())
        if size != file.size:
            raise InvalidInput(f"{file.path} changed while it was read", remedy="try again when nobody writes to it")
        if file.sha256 not in (None, sha.hexdigest()):
            raise IntegrityError(f"{file.path} is not what its source says it is", remedy="get it again")
        done = Sent(file.path, key, size, sha.hexdigest())
        tell(done)
        return done

    with ThreadPoolExecutor(_PARALLEL) as pool:
        return list(pool.map(one, files))


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
