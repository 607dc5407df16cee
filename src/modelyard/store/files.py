"""A local folder, looked at before anything of it is stored: which files, under which safe paths.

Refuses what would not survive the way through an object store and back onto another system.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.errors import InvalidInput, NotFound

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_FORBIDDEN = set('<>:"|?*\\\x7f')
_STAGED = re.compile(r".*#[0-9]+")  # how a store in a folder names files that are still being written
_CHUNK = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to store: `path` with forward slashes, relative to the folder; `size` in bytes."""

    source: Path
    path: str
    size: int


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


def chunks(file: LocalFile) -> Iterator[bytes]:
    """The file's bytes. Raises InvalidInput naming it, so that nobody takes it for a failure of the store."""
    try:
        with file.source.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InvalidInput(f"{file.path} can't be read: {error.strerror}", remedy="try again") from error


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
        stem = part.split(".")[0].lower()
        try:
            part.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"the file name {path!r} is not valid UTF-8", remedy="rename it") from None
        unsafe = any(c in _FORBIDDEN or ord(c) < 32 for c in part) or _STAGED.fullmatch(part)
        if unsafe or stem in _RESERVED or part[-1] in ". ":
            raise InvalidInput(f"the file name {path!r} can't be kept on every system", remedy="rename it")


def _refuse_clashes(files: list[LocalFile]) -> None:
    seen: dict[str, str] = {}
    for file in files:
        folded = unicodedata.normalize("NFC", file.path).casefold()
        other = seen.setdefault(folded, file.path)
        if other != file.path:
            raise InvalidInput(f"{other} and {file.path} differ by case alone", remedy="rename one of them")
