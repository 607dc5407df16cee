"""Files in a bucket, below a prefix or a single one, with the credentials and settings of any store of that kind.

Within one bucket they are copied there, and only read to find out their digests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer.sources.source import MOST_FILES, Fetched
from modelyard.store import open_store
from modelyard.store.objects import ObjectFile

_SCHEMES = ("s3://", "gs://", "az://")
_OF_A_YARD = ("versions/", "catalog/")


class BucketSource:
    example = "s3://bucket/folder (gs://, az://)"

    def matches(self, source: str) -> bool:
        return source.startswith(_SCHEMES)

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        parts = urlsplit(source)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InvalidInput(
                f"{parts.scheme}://… names more than a bucket and a folder",
                remedy="give credentials by the environment",
            )
        files = _below(source) or [_single(source)]
        path = PurePosixPath(parts.path)
        single = path.suffix if len(files) == 1 and files[0].path == path.name else ""
        said = {"source": {"kind": "bucket", "url": source.rstrip("/")}}
        yield Fetched(files, path.name.removesuffix(single) or parts.netloc, metadata=said)


def _below(source: str) -> list[ObjectFile]:
    store = open_store(source)
    found = list(islice(store.objects(""), MOST_FILES + 1))
    if any(each.key.startswith(_OF_A_YARD) and each.key.endswith(".json") for each in found):
        raise InvalidInput(f"{store.url} is a store of modelyard", remedy=f"write yard+{store.url}#name:v1.0.0")
    if len(found) > MOST_FILES:
        raise InvalidInput(f"{store.url} holds more than {MOST_FILES} files", remedy="name the folder of one model")
    return [ObjectFile(store, each.key, each.key, each.size) for each in found]


def _single(source: str) -> ObjectFile:
    folder, _, name = source.rstrip("/").rpartition("/")
    if folder.endswith(":/"):
        raise NotFound(f"{source} is empty", remedy="check the address")
    store = open_store(folder)
    try:
        return ObjectFile(store, name, name, store.size(name))
    except NotFound:
        raise NotFound(f"there is nothing at {source}", remedy="check the address") from None
