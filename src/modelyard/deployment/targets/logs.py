"""Log files of local replicas: bounded in size, and read or followed over the seam.

A process writes to its file as long as it lives, whoever supervises it. So a file that has grown is copied beside
itself, to `….log.1`, and emptied; the process, which appends, goes on at its beginning. What is written in that moment
is lost.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


def older(log: Path) -> Path:
    """Where the part before the last seam is."""
    return log.with_name(f"{log.name}.1")


def rotate(log: Path, size: int) -> None:
    """Start the file anew if it is larger than so many bytes."""
    try:
        if log.stat().st_size <= size:
            return
        beside = log.with_name(f"{log.name}.copy")
        shutil.copyfile(log, beside)
        beside.rename(older(log))
        os.truncate(log, 0)
    except FileNotFoundError:
        return


def remove(log: Path) -> None:
    for path in (log, older(log)):
        path.unlink(missing_ok=True)


def last_lines(log: Path, count: int) -> list[str]:
    """Across the seam; none if the file is gone."""
    lines = _text(log).splitlines()
    return (lines if len(lines) >= count else _text(older(log)).splitlines() + lines)[-count:]


@dataclass(slots=True)
class _Place:
    """How far a file was read; `seam`: the older part that was there then."""

    offset: int
    seam: int | None


@dataclass(slots=True)
class Follower:
    """Reads what is new in files since they were seen first. A file that was not there at the beginning is all new."""

    _places: dict[Path, _Place] = field(default_factory=dict)

    def skip(self, logs: Sequence[Path]) -> None:
        """What these hold now is known."""
        for log in logs:
            self._places[log] = _Place(_size(log), _inode(older(log)))

    def read(self, log: Path) -> str:
        """What came since the last time, whole lines only."""
        place = self._places.setdefault(log, _Place(0, _inode(older(log))))
        seam, rest = _inode(older(log)), b""
        if seam != place.seam:
            rest = _bytes(older(log), place.offset)
            place.offset, place.seam = 0, seam
        new = _bytes(log, place.offset)
        new = new[: new.rfind(b"\n") + 1]
        place.offset += len(new)
        return (rest + new).decode(errors="replace")


def _text(path: Path) -> str:
    return _bytes(path, 0).decode(errors="replace")


def _bytes(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    """Up to the end of its last whole line."""
    return _bytes(path, 0).rfind(b"\n") + 1


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
