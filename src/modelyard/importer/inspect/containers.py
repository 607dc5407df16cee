"""Archives and compressed files, opened in memory to look at what is inside. Nothing is unpacked to disk.

Every byte that comes out is counted against a budget, so a small file that unfolds into a huge one is refused early.
Knows nothing of pickles.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Self

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import torchscript
from modelyard.importer.inspect.folder import broken
from modelyard.importer.inspect.opcodes import WINDOW

_MOST_BYTES = 1 << 30
_MOST_MEMBERS = 20_000
_NESTED_LIMIT = 256 << 20
_RATIO = 200
_FAILURES = (
    *(EOFError, OSError, RuntimeError, ValueError, KeyError, IndexError, OverflowError, NotImplementedError),
    *(lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)
_COMPRESSED: dict[bytes, Callable[[io.BufferedReader], io.BufferedIOBase]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_TAR_HEADER_LIMIT = 1 << 20
Member = tuple[str, io.BufferedReader]


@dataclass(slots=True)
class Budget:
    """What looking into one file may still cost."""

    where: str
    bytes: int = _MOST_BYTES
    members: int = _MOST_MEMBERS

    def spend(self, *, bytes: int = 0, members: int = 0) -> None:
        self.bytes -= bytes
        self.members -= members
        if self.bytes < 0 or self.members < 0:
            raise InvalidInput(f"{self.where} unfolds into too much to look into", remedy="unpack it first")


def members(stream: io.BufferedReader, head: bytes, budget: Budget) -> Iterator[Member]:
    """(name, content) of each member of an archive, or of what a compressed file holds; nothing for other files.

    A member is good until the next one is asked for. Raises InvalidInput for a broken or boundless archive.
    """
    try:
        yield from _members(stream, head, budget)
    except InvalidInput:
        raise
    except _FAILURES as error:
        raise _damaged(budget, error) from error


def _members(stream: io.BufferedReader, head: bytes, budget: Budget) -> Iterator[Member]:
    for magic, decompress in _COMPRESSED.items():
        if head.startswith(magic):
            yield "", _metered(decompress(stream), budget)
            return
    if (inflated := _inflate(head)) is not None:
        yield "", io.BufferedReader(io.BytesIO(inflated), WINDOW)
    elif _is_tar(head):
        yield from _tar(stream, budget)
    else:
        yield from _zip(stream, head, budget)


def _inflate(head: bytes) -> bytes | None:
    """The beginning of a bare zlib or old lzma stream. Their marks are weak: what does not unfold is something else."""
    try:
        if head[:1] == b"\x78" and int.from_bytes(head[:2]) % 31 == 0:
            return zlib.decompressobj().decompress(head, WINDOW)
        if head.startswith(b"\x5d\x00\x00"):
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=256 << 20).decompress(head, WINDOW)
    except (zlib.error, lzma.LZMAError, EOFError):
        pass
    return None


def _is_tar(head: bytes) -> bool:
    """By the mark of POSIX and GNU tar, or by the header's checksum, which the oldest tars have too."""
    if head[257:262] == b"ustar":
        return True
    try:
        header = tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return bool(header.name)


def _tar(stream: io.BufferedReader, budget: Budget) -> Iterator[Member]:
    # Read as a stream, so that a compressed one is unfolded once.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=64 << 10, tarinfo=TarInfo) as archive:
        for info in archive:
            budget.spend(members=1)
            content = archive.extractfile(info) if info.isreg() else None
            if content is not None:
                yield info.name, _metered(content, budget)


class TarInfo(tarfile.TarInfo):
    """A header that may be followed by a longer one, which tarfile reads into memory as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if not info.isreg() and info.size > _TAR_HEADER_LIMIT:
            raise tarfile.HeaderError(f"a header claims {info.size} bytes")
        return info


def _zip(stream: io.BufferedReader, head: bytes, budget: Budget) -> Iterator[Member]:
    """A zip is found by its end, so it may stand behind any other beginning."""
    claimed = head.startswith((b"PK\x03\x04", b"PK\x05\x06"))
    if not stream.seekable():
        if not claimed:
            return
        stream = _in_memory(stream, budget)
    if not claimed and not zipfile.is_zipfile(stream):
        return
    try:
        archive = zipfile.ZipFile(stream)
    except _FAILURES:
        if claimed:
            raise
        return
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        budget.spend(members=len(infos))
        _refuse_bomb(infos, budget)
        own = torchscript.root([info.filename for info in infos])
        for info in infos:
            if own is not None and torchscript.own_member(info.filename, own):
                continue
            with archive.open(info) as content:
                yield info.filename, _metered(content, budget)


def _refuse_bomb(infos: list[zipfile.ZipInfo], budget: Budget) -> None:
    """Loaders unfold what is only looked at here: refuse what would drown them."""
    unfolded, stored = sum(i.file_size for i in infos), sum(i.compress_size for i in infos)
    if unfolded > _MOST_BYTES and unfolded > _RATIO * stored:
        raise InvalidInput(f"{budget.where} is a zip bomb: {stored} bytes unfold into {unfolded}", remedy="remove it")


def _in_memory(stream: io.BufferedReader, budget: Budget) -> io.BufferedReader:
    """An archive within an archive, which can't be read from its end otherwise."""
    data = stream.read(_NESTED_LIMIT + 1)
    if len(data) > _NESTED_LIMIT:
        raise InvalidInput(
            f"{budget.where} holds an archive of more than {_NESTED_LIMIT >> 20} MB", remedy="unpack it first"
        )
    return io.BufferedReader(io.BytesIO(data), WINDOW)


class _Metered(io.RawIOBase):
    """A stream whose bytes are counted; it can't be rewound, so nothing is unfolded twice."""

    def __init__(self, stream: io.BufferedIOBase | IO[bytes], budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # BufferedReader gives a memoryview
        try:
            data = self._stream.read(len(buffer))
        except _FAILURES as error:
            raise _damaged(self._budget, error) from error
        self._budget.spend(bytes=len(data))
        buffer[: len(data)] = data
        return len(data)


def _metered(stream: io.BufferedIOBase | IO[bytes], budget: Budget) -> io.BufferedReader:
    return io.BufferedReader(_Metered(stream, budget), WINDOW)


def _damaged(budget: Budget, error: Exception) -> InvalidInput:
    return broken(budget.where, f"the archive is damaged ({error or type(error).__name__})")
