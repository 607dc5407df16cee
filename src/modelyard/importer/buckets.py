"""Which estate an address means; and plain folders `<name>/<version>/files…`, in a bucket or on this machine.

The first folder below the name that reads as a version (3, v3, 1.2, 1.2.0-rc.1) is one; the name may have two parts.
Files that lie beside the models' folders are nobody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from modelyard.errors import InvalidInput
from modelyard.importer.estate import our_version
from modelyard.importer.sources import SOURCES, Estate, Fetched, Listed
from modelyard.importer.sources.yard import YardSource, yard_address
from modelyard.repository.registration import manifest_key
from modelyard.store import Object, Store, open_store
from modelyard.store.files import File, scan
from modelyard.store.objects import ObjectFile

_SCHEMES = ("s3", "gs", "az", "file")


def estate_of(address: str) -> tuple[Estate, str]:
    """The estate that an address means, and how it writes that address itself.

    Raises InvalidInput for places that can't name all they hold, NotFound for folders that are not there.
    """
    source = next((source for source in SOURCES if source.matches(address)), None)
    if isinstance(source, Estate):
        return source, address
    if not BucketEstate().matches(address):
        raise InvalidInput(
            f"{address} can't say what it holds", remedy="name an MLflow server, a bucket, a modelyard or a folder"
        )
    store = open_store(address)
    return (YardSource(), yard_address(store.url)) if _holds_a_modelyard(store) else (BucketEstate(), address)


class BucketEstate:
    """Plain folders. It has to list them anyway, so it opens them by itself."""

    example = "s3://bucket/prefix"

    def matches(self, source: str) -> bool:
        return "://" not in source or urlsplit(source).scheme in _SCHEMES

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        """One version's folder."""
        store = open_store(source)
        found = sorted(store.objects(""), key=lambda each: each.key)
        root, _, version = store.url.rpartition("/")
        name = root.rpartition("/")[2]
        where, local = _shown(store.url), _is_local(store.url)
        files: Sequence[File] = scan(_folder(store.url)) if local else _stored(store, found)
        said = {"kind": "local", "path": where} if local else {"kind": "bucket", "url": where}
        yield Fetched(files, name, version, metadata={"source": said}, lineage={"source": pin(store.url, found)})

    def list(self, source: str) -> Iterator[Listed]:
        store = open_store(source)
        local = _is_local(store.url)
        for (name, version), found in sorted(group(store.objects("")).items()):
            url = f"{store.url}/{quote(name) if local else name}/{version}"
            below = [replace(each, key=each.key.removeprefix(f"{name}/{version}/")) for each in found]
            yield Listed(url, name, version, pin(url, below))


def _holds_a_modelyard(store: Store) -> bool:
    """A manifest's key tells."""
    for found in store.objects("versions"):
        name, _, file = found.key.removeprefix("versions/").rpartition("/")
        try:
            if name and manifest_key(name, our_version(file.removesuffix(".json"))) == found.key:
                return True
        except InvalidInput:
            continue
    return False


def group(objects: Iterable[Object]) -> dict[tuple[str, str], list[Object]]:
    """(name, version) → its objects; the version is '' for a folder that has none. Pure."""
    found: dict[tuple[str, str], list[Object]] = {}
    for each in objects:
        *folders, file = each.key.split("/")
        if not folders or (not each.size and _is_version(file)):  # nobody's; the marker of an empty folder
            continue
        index = next((i for i in range(1, len(folders)) if _is_version(folders[i])), None)
        where = ("/".join(folders[:index]), folders[index]) if index else (folders[0], "")
        found.setdefault(where, []).append(each)
    return found


def pin(where: str, objects: Iterable[Object]) -> str:
    """What tells this content of the folder from any other, as far as a listing does: names, sizes, ETags."""
    lines = sorted(f"{each.key} {each.size} {each.etag or each.modified.isoformat()}\n" for each in objects)
    return f"{_shown(where)}@{hashlib.sha256(''.join(lines).encode()).hexdigest()[:32]}"


def _is_version(text: str) -> bool:
    try:
        our_version(text)
    except InvalidInput:
        return False
    return True


def _stored(store: Store, objects: Iterable[Object]) -> list[ObjectFile]:
    return [ObjectFile(store, each.key, each.key, each.size) for each in objects]


def _is_local(url: str) -> bool:
    return url.startswith("file:")


def _folder(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _shown(url: str) -> str:
    """Of a folder on this machine only the last parts: the rest tells of somebody's machine, not of the model."""
    return "/".join(unquote(url).split("/")[-2:]) if _is_local(url) else url
