"""Where the files of a model in MLflow lie: behind the server's artifact proxy, in a bucket, or on this machine.

Files in a bucket are read from there, with the bucket's own credentials; the server is not troubled with them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from modelyard.errors import InvalidInput
from modelyard.importer.mlflow.client import Server, connect
from modelyard.importer.mlflow.documents import Artifacts
from modelyard.importer.remote import RemoteFile
from modelyard.store import open_store
from modelyard.store.files import File, scan
from modelyard.store.objects import ObjectFile

_MOST_FILES = 10_000
_DEEPEST = 32
_PROXY_THEM = "let the server proxy its artifacts (mlflow server --serve-artifacts)"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts/"


@contextmanager
def artifacts(server: Server, uri: str) -> Iterator[Sequence[File]]:
    """The files below an artifact URI, empty if there are none. Raises InvalidInput for places that we can't read."""
    url = urlsplit(uri)
    with ExitStack() as opened:
        match url.scheme:
            case "mlflow-artifacts" | "http" | "https":
                proxy, path = _proxied(server, uri)
                if proxy != server.name:  # its own address, given by the first server: no credentials for that one
                    server = opened.enter_context(connect(proxy, server.patience, trusted=False))
                yield [_remote(server, path, name, size) for name, size in _listed(server, path)]
            case "s3" | "gs" | "az" if url.netloc:
                yield _stored(uri)
            case "file" | "":
                yield _local(uri, url.netloc, unquote(url.path) if url.scheme else uri)
            case _:
                raise InvalidInput(
                    f"the artifacts lie at {url.scheme}://, which can't be read from here",
                    remedy=_PROXY_THEM,
                )


def _proxied(server: Server, uri: str) -> tuple[str, str]:
    """(address of the server, path below its proxy)."""
    url = urlsplit(uri)
    host = url.netloc.rpartition("@")[2]
    if url.scheme == "mlflow-artifacts":
        return (f"{urlsplit(server.name).scheme}://{host}" if host else server.name), unquote(url.path).strip("/")
    before, found, path = url.path.partition(_PROXY)
    if not found:
        raise InvalidInput(f"the artifacts lie at {url.scheme}://{host}, which is no artifact proxy of MLflow")
    return f"{url.scheme}://{host}{before}", unquote(path).strip("/")


def _listed(server: Server, root: str) -> Iterator[tuple[str, int]]:
    """(path below `root`, size) of every file, folder by folder."""
    folders, count = [""], 0
    while folders:
        folder = folders.pop()
        where = "/".join(part for part in (root, folder) if part)
        answer = server.get(Artifacts, "mlflow-artifacts/artifacts", "list of the artifacts", path=where)
        for found in answer.files:
            path = f"{folder}/{found.path}" if folder else found.path
            count += 1
            if count > _MOST_FILES or path.count("/") > _DEEPEST or ".." in path.split("/"):
                raise InvalidInput(f"the artifacts {root} are no model: {_MOST_FILES} files at most, no '..'")
            if found.is_dir:
                folders.append(path)
            else:
                yield path, found.file_size


def _remote(server: Server, root: str, path: str, size: int) -> RemoteFile:
    what = f"{path} of {server.name}"
    read = partial(server.artifact, quote(f"{root}/{path}"), what)
    return RemoteFile(path, size, read, what, patience=server.patience)


def _stored(uri: str) -> list[ObjectFile]:
    url = urlsplit(uri)
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") if url.scheme == "s3" else None
    store, prefix = open_store(f"{url.scheme}://{url.netloc}", endpoint_url=endpoint), url.path.strip("/")
    return [
        ObjectFile(store, each.key, each.key.removeprefix(f"{prefix}/"), each.size) for each in store.objects(prefix)
    ]


def _local(uri: str, host: str, path: str) -> Sequence[File]:
    """Only a folder that is a model: a server that bears ill will could name any folder of this machine."""
    folder = Path(path)
    if host not in ("", "localhost") or not folder.is_absolute():
        raise InvalidInput(f"the artifacts lie at {uri}, which is no folder of this machine", remedy=_PROXY_THEM)
    if not folder.exists():
        return []
    if not (folder / "MLmodel").is_file():
        raise InvalidInput(f"{folder} holds no MLmodel", remedy=f"if it is a model, import {folder} itself")
    return scan(folder)
