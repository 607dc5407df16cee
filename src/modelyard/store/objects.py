"""A store of objects: the few operations everything else is built of, and the ones callers use directly.

Every operation is one request to the object store (a stream may be several). Knows keys and bytes, not what they mean.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore import Bytes
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from modelyard.errors import IntegrityError, InvalidInput, NotFound, StoreError
from modelyard.store.documents import RESTORE, to_json
from modelyard.store.failures import reason
from modelyard.store.files import Blocks, scan
from modelyard.store.patience import Patience

if TYPE_CHECKING:
    from obstore import GetOptions

Buffer = memoryview | Bytes

CHUNK = 8 * 1024 * 1024
_PARALLEL = 4
_DELETING = 16
_PIECE = 256 * 1024  # still in the processor's cache when it is hashed and written
_T = TypeVar("_T")
_SIGNING = (S3Store, GCSStore, AzureStore)


@dataclass(frozen=True, slots=True)
class Object:
    """One listed object; `size` in bytes. `etag` differs once it is written again, with other bytes at least."""

    key: str
    size: int
    modified: datetime
    etag: str | None = None


class Store:
    """A bucket, or a folder of one. Built by LocalDisk, Memory, S3, GCS, Azure or open_store.

    `ordered` says whether listings come sorted by key, so that the first page is enough to find the first key.
    """

    def __init__(self, backend: ObjectStore, url: str, *, ordered: bool = True) -> None:
        self._backend = backend
        self.url = url
        self.ordered = ordered

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # What everything else is built of.

    def create(self, key: str, data: bytes) -> bool:
        """Write an object that is not there yet; False if there is one. The only commit in modelyard.

        The one that is there may be this very one: a first attempt that was written and whose answer was lost.
        """

        def attempt() -> bool:
            try:
                obstore.put(self._backend, check_key(key), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        return self._patiently(key, attempt)

    def put(
        self, key: str, data: bytes | Iterable[bytes], *, part_size: int = CHUNK, parallel: int = _PARALLEL
    ) -> None:
        """Write an object, whole or from a stream of chunks; readers see the old one or the new one, never a part.

        A stream goes up in parts, so many of them at a time while the next chunk is asked for.
        """
        if isinstance(data, bytes):
            self._patiently(key, lambda: obstore.put(self._backend, check_key(key), data, use_multipart=False))
            return
        with self._errors(key):
            chunks = _from_thread(data)
            obstore.put(self._backend, check_key(key), chunks, chunk_size=part_size, max_concurrency=parallel)

    def get(self, key: str) -> bytes:
        """Raises NotFound."""
        return self._patiently(key, lambda: bytes(obstore.get(self._backend, check_key(key)).bytes()))

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object's bytes in chunks, or `length` of them from `start` on. Raises NotFound.

        Where the connection breaks, it goes on after the last chunk, if the object is still the same.
        """
        patience, same = Patience(), None
        end = None if length is None else start + length
        while True:
            try:
                with self._errors(key):
                    found = obstore.get(self._backend, check_key(key), options=_stretch(start, end, same))
                    for chunk in found.stream(min_chunk_size=CHUNK):
                        yield bytes(chunk)
                        start, same = start + len(chunk), found.meta["e_tag"]
                        patience.refill()
                return
            except StoreError as error:
                patience.wait(error)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes from `start` on; fewer at the object's end. Raises NotFound."""
        at = {"start": start, "length": length}
        return self._patiently(key, lambda: bytes(obstore.get_range(self._backend, check_key(key), **at)))

    def read(self, key: str, start: int, length: int, *, size: int) -> Iterator[Buffer]:
        """A stretch of an object of `size` bytes; a piece of it is valid until the next is asked for.

        Raises NotFound, and IntegrityError for an object of another size. Several stretches may be read at once.
        """
        patience, end = Patience(), start + length
        while True:
            try:
                with self._errors(key):
                    path = self.local_path(key)
                    there = end - start
                    for piece in _read_local(path, start, there) if path else self._read_range(key, start, there, size):
                        start += len(piece)
                        yield piece
                        patience.refill()
                    if start < end or (path and path.stat().st_size != size):
                        raise IntegrityError(f"{key} in {self.url} does not have {size} bytes", remedy=RESTORE)
                return
            except StoreError as error:
                patience.wait(error)

    def _read_range(self, key: str, start: int, length: int, size: int) -> Iterator[Bytes]:
        """Nothing for an object of another size."""
        try:
            found = obstore.get(self._backend, check_key(key), options={"range": (start, start + length)})
        except BaseError as error:  # a stretch that begins beyond the end is refused
            if isinstance(error, FileNotFoundError) or obstore.head(self._backend, key)["size"] == size:
                raise
            return
        if found.meta["size"] == size:
            yield from found.stream(min_chunk_size=_PIECE)

    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine; None for stores elsewhere."""
        if not isinstance(self._backend, LocalStore) or self._backend.prefix is None:
            return None
        path = Path(self._backend.prefix) / check_key(key)
        return path if path.is_file() else None

    def copy(self, source: str, destination: str) -> None:
        """Copy an object inside the store; no byte passes through this machine. Raises NotFound."""
        self._patiently(source, lambda: obstore.copy(self._backend, check_key(source), check_key(destination)))

    def copy_from(self, other: Store, source: str, destination: str) -> bool:
        """Copy an object of another store that lies in the same bucket; False for stores elsewhere. Raises NotFound."""
        mine, theirs = self._backend, other._backend
        if not isinstance(mine, _SIGNING) or type(mine) is not type(theirs) or mine.config != theirs.config:
            return False
        opened: Any = type(mine)
        bucket = opened(
            config=mine.config,
            client_options=mine.client_options,
            retry_config=mine.retry_config,
            credential_provider=mine.credential_provider,
        )
        start, end = (
            f"{store.prefix}/{check_key(key)}" if store.prefix else check_key(key)
            for store, key in ((theirs, source), (mine, destination))
        )
        self._patiently(source, lambda: obstore.copy(bucket, start, end))
        return True

    def presign(self, key: str, *, expires: timedelta) -> str | None:
        """An address at which anybody may get the object for a while; None where the store has none to give."""
        if not isinstance(self._backend, _SIGNING):
            return None
        with self._errors(key):
            address = obstore.sign(self._backend, "GET", check_key(key), expires)
        # obstore signs the encoded path, Azure compares with the decoded one
        unsound = isinstance(self._backend, AzureStore) and "%" in urlsplit(address).path
        return None if unsound else address

    def size(self, key: str) -> int:
        """Bytes of an object. Raises NotFound."""
        with self._errors(key):
            return obstore.head(self._backend, check_key(key))["size"]

    def objects(self, prefix: str) -> Iterator[Object]:
        """Every object below the folder `prefix`, page by page; in no order unless the store is `ordered`."""
        patience, last = Patience(), None
        while True:
            try:
                with self._errors(prefix):
                    for page in obstore.list(self._backend, _folder(prefix), offset=last, chunk_size=1000):
                        for found in page:
                            yield Object(found["path"], found["size"], found["last_modified"], found["e_tag"])
                            last = found["path"]
                        patience.refill()
                return
            except StoreError as error:
                patience.wait(error)

    def names(self, folder: str) -> Iterator[str]:
        """Names of the objects directly in a folder, in the order of `objects`; on disk without looking at each."""
        if isinstance(self._backend, LocalStore) and self._backend.prefix:
            place = self._backend.prefix / check_key(folder.rstrip("/"))
            with self._errors(folder), suppress(FileNotFoundError), os.scandir(place) as entries:
                yield from (entry.name for entry in entries if entry.is_file())
            return
        head = len(folder.rstrip("/")) + 1
        yield from (name for found in self.objects(folder) if "/" not in (name := found.key[head:]))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        with ThreadPoolExecutor(_DELETING) as pool:
            for _ in pool.map(self._delete, keys):
                continue

    def _delete(self, key: str) -> None:
        with suppress(NotFound):
            self._patiently(key, lambda: obstore.delete(self._backend, check_key(key)))

    # What callers use directly.

    def upload(self, source: str | Path, destination: str) -> None:
        """Copy a local file, or every file of a folder, below `destination`. Raises InvalidInput for unsafe folders."""
        for file in scan(Path(source)):
            self.put(f"{destination.rstrip('/')}/{file.path}", file.chunks())

    def download(self, path: str, destination: Path | None = None) -> Path:
        """Copy every object below `path` into a folder (a new temporary one, the caller's to delete) and return it."""
        prefix = check_key(path.rstrip("/"))
        keys = [found.key for found in self.objects(prefix)]
        if not keys:
            raise NotFound(f"nothing is stored below {path!r} in {self.url}", remedy="check the path")
        folder = destination or Path(tempfile.mkdtemp(prefix="modelyard-"))
        try:
            for key in keys:
                self._save(key, folder / check_key(key.removeprefix(f"{prefix}/")))
        except BaseException:
            if destination is None:
                shutil.rmtree(folder)
            raise
        return folder

    def _save(self, key: str, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                out.writelines(self.stream(key))
        except OSError as error:
            raise InvalidInput(f"can't write {target}: {error.strerror}", remedy="check the path") from error

    def put_json(self, data: Any, destination: str) -> None:
        """Write `data` as a JSON document. Raises InvalidInput for what JSON can't hold."""
        self.put(destination, to_json(data, what=destination))

    def get_json(self, path: str) -> Any:
        """Raises NotFound, and IntegrityError for an object that is not JSON."""
        try:
            return json.loads(self.get(path))
        except ValueError as error:
            raise IntegrityError(f"{path} in {self.url} is not JSON: {error}", remedy=RESTORE) from error

    def list_directories(self, path: str) -> list[str]:
        """Names of the folders directly below `path`, sorted."""
        found = self._patiently(path, lambda: obstore.list_with_delimiter(self._backend, _folder(path)))
        return sorted(PurePosixPath(folder).name for folder in found["common_prefixes"])

    def _patiently(self, key: str, call: Callable[[], _T]) -> _T:
        """What may be asked twice without harm, asked again when it failed for a reason that passes."""
        patience = Patience()
        while True:
            try:
                with self._errors(key):
                    return call()
            except StoreError as error:
                patience.wait(error)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                raise NotFound(f"{key} is not in {self.url}", remedy="check the name") from error
            raise StoreError(
                f"{self.url} failed at {key}: {reason(error)}",
                remedy="check its address, permissions and free space",
            ) from error


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """A stored object, as a file to inspect or to store elsewhere (see `files.File`)."""

    store: Store
    key: str
    path: str
    size: int
    sha256: str | None = None
    _blocks: list[Blocks] = field(default_factory=list, compare=False, repr=False)

    def open(self) -> BufferedReader:
        if not self._blocks:
            self._blocks.append(Blocks(lambda start, length: self.store.get_range(self.key, start, length), self.size))
        return self._blocks[0].open()

    def chunks(self) -> Iterator[bytes]:
        return self.store.stream(self.key)


def _from_thread(data: Iterable[bytes]) -> Iterator[bytes]:
    """The same chunks, each made by a thread of its own while the one before is sent.

    obstore asks for chunks inside its runtime, where they can't come out of another store.
    """
    chunks = iter(data)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, chunks, None)
        while (chunk := following.result()) is not None:
            following = pool.submit(next, chunks, None)
            yield chunk


def check_key(key: str) -> str:
    """The key itself, if it stays in its folder. Raises InvalidInput."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(ord(c) < 32 or c in "\\\x7f" for c in key):
        raise InvalidInput(f"{key!r} is not a path inside the store", remedy="use names separated by single slashes")
    return key


def _folder(prefix: str) -> str | None:
    stripped = prefix.rstrip("/")
    return check_key(stripped) if stripped else None


def _read_local(path: Path, start: int, length: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while length and (count := stream.readinto(buffer[:length])):
            length -= count
            yield buffer[:count]


def _stretch(start: int, end: int | None, same: str | None) -> GetOptions:
    """The options for an object's bytes from `start` to before `end`; `same` is the tag it must still have."""
    options: GetOptions = {"if_match": same} if same else {}
    if end is not None:
        options["range"] = (start, end)
    elif start:
        options["range"] = {"offset": start}
    return options
