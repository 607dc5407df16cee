"""Models on the Hugging Face Hub, or on anything that speaks its protocol, such as another modelyard's /hf.

A revision is pinned to its commit first; the files are then read from where they lie, without a copy on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from modelyard.errors import InvalidInput
from modelyard.importer.hub import Asked, Hub, connect
from modelyard.importer.remote import Patience, RemoteFile
from modelyard.importer.sources.source import MOST_FILES, Fetched
from modelyard.refs import Version
from modelyard.store.documents import problem

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_REPOSITORY = re.compile(rf"(?:{_PART}/)?{_PART}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_MOST_PAGES = 1000


class HuggingFaceSource:
    example = "hf://org/name@revision"

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()

    def matches(self, source: str) -> bool:
        return source.startswith("hf://")

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        asked, hub = _parse(source), connect(self._patience)
        found = _read(_Repository, hub, next(hub.documents(_api(asked, "revision"), asked=asked)))
        # Its own name where it has been renamed; the commit, so that every file is of the same one.
        name = found.id if _REPOSITORY.fullmatch(found.id) else asked.repository
        pinned = replace(asked, repository=name, revision=found.sha)
        said = {
            "kind": "huggingface",
            "endpoint": hub.name,
            "repository": name,
            "revision": asked.revision,
            "commit": found.sha,
        }
        yield Fetched(
            _files(hub, pinned),
            name.split("/")[-1],
            _version(asked.revision),
            metadata={"source": said},
            lineage={"source": f"hf://{name}@{found.sha}"},
        )


class _Repository(BaseModel):
    id: str = ""
    sha: str = Field(pattern=r"^[0-9a-f]{40}$")


class _Lfs(BaseModel):
    oid: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class _Entry(BaseModel):
    """One entry of a tree. `oid` is git's name of the content, unless the content lies in LFS or Xet."""

    type: str
    path: str
    size: int = Field(0, ge=0)
    oid: str = ""
    lfs: _Lfs | None = None
    xet: str | None = Field(None, alias="xetHash")


_tree = TypeAdapter(list[_Entry])


def _parse(source: str) -> Asked:
    repository, at, revision = source.removeprefix("hf://").removeprefix("models/").partition("@")
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or (at and not revision):
        raise InvalidInput(
            f"{source} names no model on the Hub", remedy="write hf://org/name or hf://org/name@revision"
        )
    return Asked(repository, revision or "main")


def _version(revision: str) -> str | None:
    """A revision that is called as a version is one; branches and commits are none."""
    try:
        return str(Version.parse(revision))
    except InvalidInput:
        return None


def _api(asked: Asked, what: str) -> str:
    return f"api/models/{asked.repository}/{what}/{quote(asked.revision, safe='')}"


def _files(hub: Hub, pinned: Asked) -> list[RemoteFile]:
    files: list[RemoteFile] = []
    pages = hub.documents(f"{_api(pinned, 'tree')}?recursive=true&expand=false", asked=pinned)
    for number, page in enumerate(pages):
        files += [_file(hub, pinned, entry) for entry in _read(_tree, hub, page) if entry.type == "file"]
        if len(files) > MOST_FILES or number == _MOST_PAGES:
            raise InvalidInput(f"{pinned.repository} holds more than {MOST_FILES} files", remedy="import a part of it")
    return files


def _file(hub: Hub, pinned: Asked, entry: _Entry) -> RemoteFile:
    size = entry.lfs.size if entry.lfs else entry.size
    in_git = not entry.lfs and not entry.xet and _SHA1.fullmatch(entry.oid)
    return RemoteFile(
        entry.path,
        size,
        partial(hub.file, entry.path, size, asked=pinned),
        f"{entry.path} of hf://{pinned.repository}",
        sha256=entry.lfs.oid if entry.lfs else None,
        git_sha1=entry.oid if in_git else None,
        patience=hub.patience,
    )


def _read(kind: Any, hub: Hub, document: Any) -> Any:
    try:
        return kind.validate_python(document) if isinstance(kind, TypeAdapter) else kind.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(
            f"{hub.name} does not answer as a Hugging Face Hub does: {problem(error)}", remedy="check HF_ENDPOINT"
        ) from error
