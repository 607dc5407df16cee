"""A version's files as a tree. Folders exist by the files below them, as in Git."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelyard.repository.manifest import Artifact


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder and every file below it."""

    path: str
    files: tuple[Artifact, ...]


def find(files: Sequence[Artifact], path: str) -> Artifact | Folder | None:
    """What lies at a path; the folder of everything at the empty one."""
    below = tuple(files) if not path else tuple(file for file in files if file.path.startswith(f"{path}/"))
    if below:
        return Folder(path, below)
    return next((file for file in files if file.path == path), None)


def listing(folder: Folder, *, recursive: bool) -> list[Artifact | Folder]:
    """What lies in a folder, or everything below it, sorted by path."""
    found: list[Artifact | Folder] = []
    below: dict[str, list[Artifact]] = {}
    for file in folder.files:
        inner = list(_folders(file, folder.path))
        for path in inner if recursive else inner[:1]:
            below.setdefault(path, []).append(file)
        if recursive or not inner:
            found.append(file)
    found += [Folder(path, tuple(files)) for path, files in below.items()]
    return sorted(found, key=lambda each: each.path)


def _folders(file: Artifact, top: str) -> Iterator[str]:
    """The folders between the folder `top` and a file below it, outermost first."""
    start = len(top) + 1 if top else 0
    while (end := file.path.find("/", start)) >= 0:
        yield file.path[:end]
        start = end + 1
