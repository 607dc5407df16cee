"""Files on their way into a store: what is asked of one wherever it lies, and the files of a local folder.

Refuses what would not survive the way through an object store and back onto another system.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol, TypeVar

from modelyard.errors import InvalidInput, NotFound

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_FORBIDDEN = set('<>:"|?*\\\x7f')
_STAGED = re.compile(r".*#[0-9]+")  # how a store in a folder names files that are still being written
_CHUNK = 8 * 1024 * 1024
_BLOCK = 256 * 1024
_KEPT_BLOCKS = 8


class File(Protocol):
    """A file to store, wherever it lies: `path` with forward slashes, relative to the model; `size` in bytes."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str | None:
        """Hex digest, where it is known beforehand; whoever moves the bytes checks it."""
        ...

    def open(self) -> io.BufferedReader:
        """For inspection: reads anywhere, and only what is asked for."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """All bytes, in order. A failure names the file, so that nobody takes it for one of the store it goes to."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine."""

    source: Path
    path: str
    size: int
    sha256: str | None = None

    def open(self) -> io.BufferedReader:
        try:
            return self.source.open("rb")
        except OSError as error:
            raise InvalidInput(f"{self.path} can't be read: {error.strerror}", remedy="mend its permissions") from error

    def chunks(self) -> Iterator[bytes]:
        try:
            with self.source.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise InvalidInput(f"{self.path} can't be read: {error.strerror}", remedy="try again") from error


class Named(Protocol):
    """What a filter must know of a file."""

    @property
    def path(self) -> str: ...


_Named = TypeVar("_Named", bound=Named)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which files are taken: those that one of `include` matches (without any: all) and none of `exclude`.

    Patterns are those of the shell, such as `*.gguf`; `*` matches across folders, as in the Hugging Face libraries.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def choose(self, files: Sequence[_Named]) -> list[_Named]:
        """Raises InvalidInput when none is left."""
        chosen = [f for f in files if (not self.include or _matches(f, self.include)) and not _matches(f, self.exclude)]
        if files and not chosen:
            some = ", ".join(file.path for file in files[:3])
            raise InvalidInput(
                f"none of the {len(files)} files ({some}, …) is chosen", remedy="change --include or --exclude"
            )
        return chosen


EVERYTHING = Filter()


def _matches(file: Named, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(file.path, pattern) for pattern in patterns)


class Blocks:
    """Bytes that are far away, fetched in blocks when they are read; the blocks read last are kept.

    `fetch(start, length)` gives that stretch; it is never asked for one beyond `size`.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def open(self) -> io.BufferedReader:
        """A new stream over the same blocks."""
        return io.BufferedReader(_Stream(self.read, self._size), _BLOCK)

    def read(self, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`, fewer at the end of a block."""
        number, offset = divmod(start, _BLOCK)
        block = self._kept.pop(number, None)
        if block is None:
            begin = number * _BLOCK
            block = self._fetch(begin, min(_BLOCK, self._size - begin))
        self._kept[number] = block
        if len(self._kept) > _KEPT_BLOCKS:
            self._kept.popitem(last=False)
        return block[offset : offset + length]


class _Stream(io.RawIOBase):
    """A stream with seek over a function that reads anywhere."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as files do
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # BufferedReader gives a memoryview
        length = max(0, min(len(buffer), self._size - self._position))
        data = self._read(self._position, length) if length else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def scan(root: Path) -> list[LocalFile]:
    """The files of a folder (or the one file), sorted by path. Raises NotFound and InvalidInput.

    Links that stay inside the folder are followed; links that leave it, special files, names that differ by case
    alone and names that some system can't hold are refused.
    """
    root = root.expanduser()
    try:
        real = root.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # not there, a circle of links, a name nothing can have
        raise NotFound(f"there is no file or folder {str(root)!r}", remedy="check the path") from error
    files = [_local(real, root.name)] if real.is_file() else list(_walk(real, real, ""))
    if not files:
        raise InvalidInput(f"the folder {root} is empty", remedy="give the folder that holds the model's files")
    _refuse_clashes(files)
    return sorted(files, key=lambda file: file.path)


def check_files(files: Sequence[File]) -> None:
    """Raises InvalidInput for no files at all, and for names and clashes that `scan` would refuse."""
    if not files:
        raise InvalidInput("there are no files to store", remedy="name a source that holds a model")
    for file in files:
        _refuse_name(file.path)
    _refuse_clashes(files)


def _walk(folder: Path, real: Path, prefix: str) -> Iterator[LocalFile]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInput(f"{folder} can't be read: {error.strerror}", remedy="mend its permissions") from error
    for entry in entries:
        path, target = f"{prefix}{entry.name}", Path(entry.path)
        if entry.is_symlink():
            target = _inside(target, real, path)
        if target.is_dir():
            if entry.is_symlink():
                raise InvalidInput(f"{path} is a link to a folder", remedy="copy the folder in its place")
            yield from _walk(target, real, f"{path}/")
        else:
            yield _local(target, path)


def _inside(link: Path, real: Path, path: str) -> Path:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidInput(f"{path} is a link to nothing", remedy="remove it") from error
    if not target.is_relative_to(real):
        raise InvalidInput(f"{path} is a link that leaves the folder", remedy="put a copy of the file in its place")
    return target


def _local(source: Path, path: str) -> LocalFile:
    _refuse_name(path)
    try:
        found = source.stat()
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}", remedy="mend its permissions") from error
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(f"{path} is not a regular file", remedy="remove it")
    return LocalFile(source, path, found.st_size)


def _refuse_name(path: str) -> None:
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise InvalidInput(f"the file name {path!r} leaves its folder", remedy="rename it")
        stem = part.split(".")[0].lower()
        try:
            part.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"the file name {path!r} is not valid UTF-8", remedy="rename it") from None
        unsafe = any(c in _FORBIDDEN or ord(c) < 32 for c in part) or _STAGED.fullmatch(part)
        if unsafe or stem in _RESERVED or part[-1] in ". ":
            raise InvalidInput(f"the file name {path!r} can't be kept on every system", remedy="rename it")


def _refuse_clashes(files: Sequence[File]) -> None:
    seen: dict[str, str] = {}
    for file in files:
        folded = unicodedata.normalize("NFC", file.path).casefold()
        if folded in seen:
            other = seen[folded]
            same = f"{other} is there twice" if other == file.path else f"{other} and {file.path} differ by case alone"
            raise InvalidInput(same, remedy="rename one of them")
        seen[folded] = file.path
