"""Archives that hold a model: unpacked into a folder of their own for as long as it is imported, or refused.

What comes out is counted while it comes. Links, devices and names that lead elsewhere are refused before anything is
written. Files of models that are archives inside (TorchScript, torch.save, NumPy) are left as they are.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import torchscript
from modelyard.importer.inspect.containers import TarInfo
from modelyard.store.files import LocalFile, check_files

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SUFFIXES = (".zip", *_TAR)
_CHUNK = 1 << 20
_OF_MACS = "__MACOSX"  # what macOS puts beside the files
_FAILURES = (
    *(EOFError, OSError, RuntimeError, ValueError, LookupError, OverflowError, NotImplementedError),
    TypeError,  # what tarfile makes of a gzip header that ends early
    *(lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)

Member = tuple[str, IO[bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold. More than `suspicious` bytes may not be more than `ratio` times the archive."""

    bytes: int = 1 << 40
    members: int = 20_000
    suspicious: int = 1 << 30
    ratio: int = 200


def suffix(path: Path) -> str:
    """How the name of an archive ends; empty for other names."""
    return next((ending for ending in SUFFIXES if path.name.lower().endswith(ending)), "")


def holds_files(path: Path) -> bool:
    """Whether a file is an archive of a model's files, rather than a file of a model. By name, then by content."""
    ending = suffix(path)
    if ending != ".zip" or not path.is_file():
        return bool(ending) and path.is_file()
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _FAILURES:
        return True  # to be refused when it is unpacked
    saved = any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names)
    arrays = bool(names) and all(name.endswith(".npy") for name in names)
    return not saved and not arrays and torchscript.root(names) is None


@contextmanager
def unpacked(path: Path, limits: Limits | None = None) -> Iterator[list[LocalFile]]:
    """The files of an archive, without the one folder that may hold them all. They are gone when the context ends.

    Raises InvalidInput.
    """
    with TemporaryDirectory(prefix="modelyard-") as folder:
        try:
            files = list(_unpack(path, Path(folder), limits or Limits()))
        except InvalidInput:
            raise
        except _FAILURES as error:
            raise _failed(path, error) from error
        if not files:
            raise InvalidInput(f"{path.name} holds no files", remedy="give the archive of a model")
        stripped = _without_top(files)
        check_files(stripped)
        yield sorted(stripped, key=lambda file: file.path)


def _unpack(path: Path, folder: Path, limits: Limits) -> Iterator[LocalFile]:
    packed, written = path.stat().st_size, 0
    most = max(limits.suspicious, limits.ratio * packed)
    for name, stream in _zip(path, most, limits) if suffix(path) == ".zip" else _tar(path, limits):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with target.open("xb") as out:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if written + size > min(most, limits.bytes):
                    raise _bomb(path, written + size)
                out.write(chunk)
        written += size
        yield LocalFile(target, name, size)


def _zip(path: Path, most: int, limits: Limits) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if (claimed := sum(info.file_size for info in infos)) > min(most, limits.bytes):
            raise _bomb(path, claimed)
        for number, info in enumerate(infos):
            _count(path, number, limits)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                raise _refused(path, info.filename, "is encrypted")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(path, info.filename, "is a link or a device")
            if (name := _name(path, info.orig_filename)) and not info.is_dir():
                with archive.open(info) as stream:
                    yield name, stream


def _tar(path: Path, limits: Limits) -> Iterator[Member]:
    # Read as a stream, so that a compressed one is unfolded once.
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=TarInfo) as archive:
        for number, info in enumerate(archive):
            _count(path, number, limits)
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise _refused(path, info.name, "is a link or a device")
            name, stream = _name(path, info.name), archive.extractfile(info)
            if name and stream is not None:
                yield name, stream


def _name(path: Path, said: str) -> str:
    """Where a member goes; empty for what is left out. Raises InvalidInput for names that lead elsewhere."""
    name = said.removesuffix("/")
    while name.startswith("./"):
        name = name[2:]
    if name in ("", ".") or name.partition("/")[0] == _OF_MACS:
        if said.startswith("/"):
            raise _refused(path, said, "leads out of its folder")
        return ""
    try:
        check_files([LocalFile(path, name, 0)])
    except InvalidInput as error:
        raise InvalidInput(f"{path.name} is refused: {error.message}", remedy="pack it anew") from None
    return name


def _count(path: Path, number: int, limits: Limits) -> None:
    if number >= limits.members:
        raise InvalidInput(f"{path.name} holds more than {limits.members} files", remedy="pack only the model")


def _without_top(files: Sequence[LocalFile]) -> list[LocalFile]:
    tops = {file.path.partition("/")[0] for file in files}
    if len(tops) > 1 or any("/" not in file.path for file in files):
        return list(files)
    return [replace(file, path=file.path.partition("/")[2]) for file in files]


def _refused(path: Path, name: str, why: str) -> InvalidInput:
    return InvalidInput(f"{path.name} is refused: {name!r} {why}", remedy="pack the files themselves")


def _bomb(path: Path, size: int) -> InvalidInput:
    return InvalidInput(
        f"{path.name} is refused: {path.stat().st_size} bytes unfold into {size} or more",
        remedy="if you trust it, unpack it yourself",
    )


def _failed(path: Path, error: Exception) -> InvalidInput:
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return InvalidInput(f"{path.name} is refused: two of its files have one name", remedy="pack it anew")
    if isinstance(error, OSError) and error.errno:
        return InvalidInput(
            f"{path.name} can't be unpacked: {error.strerror}", remedy="set TMPDIR to a folder with enough space"
        )
    return InvalidInput(
        f"{path.name} is damaged ({error or type(error).__name__})", remedy="get it again from where it came"
    )
