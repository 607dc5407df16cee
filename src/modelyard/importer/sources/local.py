"""Models on this machine: a folder, a file, an archive, a file:// URL. Only an archive is unpacked for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer import archives
from modelyard.importer.sources.source import Fetched
from modelyard.store.files import scan


class LocalSource:
    example = "the path of a folder, file or archive"

    def matches(self, source: str) -> bool:
        return "://" not in source or source.lower().startswith("file://")

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        path = _path(source)
        if not path.exists():
            raise NotFound(f"there is no file or folder {path}", remedy="check the path")
        real = path.resolve()
        # Only the last part of the path: the rest tells of somebody's machine, not of the model.
        said = {"source": {"kind": "local", "path": real.name}}
        if archives.holds_files(real):
            with archives.unpacked(real) as files:
                yield Fetched(files, real.name[: -len(archives.suffix(real))], metadata=said)
        else:
            yield Fetched(scan(path), real.stem if real.is_file() else real.name, metadata=said)


def _path(source: str) -> Path:
    if not source.strip() or "\0" in source:
        raise InvalidInput(f"{source!r} is not a path", remedy="give the folder or file that holds the model")
    if "://" not in source:
        return _expanded(Path(source))
    url = urlsplit(source)
    if url.netloc not in ("", "localhost"):
        raise InvalidInput(f"{source} is on another machine", remedy="write it as file:///path")
    return _path(unquote(url.path))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise InvalidInput(f"{path} names a home folder that is not known", remedy="write out the path") from None
