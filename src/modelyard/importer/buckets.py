"""Estates in a bucket or a folder: a modelyard, or plain folders `<name>/<version>/files…` below one prefix.

The first folder below the name that reads as a version (3, v3, 1.2, 1.2.0-rc.1) is one; the name may have two parts.
Files that lie beside the models' folders are nobody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.errors import InvalidInput, NotFound, Refused
from modelyard.importer.estate import our_version
from modelyard.importer.sources import SOURCES, Estate, Fetched, Listed
from modelyard.refs import ModelRef
from modelyard.repository.catalog import Catalog
from modelyard.repository.registration import manifest_key, read_manifest
from modelyard.repository.resolution import Resolver
from modelyard.store import Object, Store, open_store
from modelyard.store.files import File, scan
from modelyard.store.objects import ObjectFile

_SCHEMES = ("s3", "gs", "az", "file")


def estate_of(address: str) -> Estate:
    """The estate that an address means. Raises InvalidInput for places that can't name all they hold."""
    if "://" in address and urlsplit(address).scheme not in _SCHEMES:
        source = next((source for source in SOURCES if source.matches(address)), None)
        if not isinstance(source, Estate):
            raise InvalidInput(
                f"{address} can't say what it holds", remedy="name an MLflow server, a bucket, a modelyard or a folder"
            )
        return source
    return YardEstate() if _Yard(open_store(address)).names() else BucketEstate()


class BucketEstate:
    """Plain folders."""

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
        said = {"source": {"kind": "bucket", "address": _shown(store.url)}}
        files: Sequence[File] = scan(_folder(store.url)) if _is_local(store.url) else _stored(store, found)
        yield Fetched(files, name, version, metadata=said, lineage={"source": pin(store.url, found)})

    def list(self, source: str) -> Iterator[Listed]:
        store = open_store(source)
        for (name, version), found in sorted(group(store.objects("")).items()):
            url = (
                f"{store.url}/{name}/{version}"
                if not _is_local(store.url)
                else str(_folder(store.url) / name / version)
            )
            where = f"{store.url}/{name}/{version}"
            below = [replace(each, key=each.key.removeprefix(f"{name}/{version}/")) for each in found]
            yield Listed(url, name, version, pin(where, below))


class YardEstate:
    """Another modelyard: its versions with their metadata, lineage and free tags."""

    example = "s3://bucket/prefix of a modelyard"

    def matches(self, source: str) -> bool:
        return BucketEstate().matches(source)

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        where, _, ref = source.rpartition("#")
        yard = _Yard(open_store(where))
        version = yard.resolver.resolve(ModelRef.parse(ref))
        if why := yard.catalog.record(version.name).yanked.get(str(version.version)):
            raise Refused(f"it is yanked there: {why}", remedy="take it over with `modelyard copy` if it is wanted")
        files = [ObjectFile(yard.store, f.key, f.path, f.size, f.sha256) for f in version.files]
        yield Fetched(files, version.name, str(version.version), version.metadata, version.lineage)

    def list(self, source: str) -> Iterator[Listed]:
        """No pins: the manifest, which `open` reads, has the digest of every file."""
        yard = _Yard(open_store(source))
        for name in yard.names():
            try:
                versions = yard.resolver.versions(name)
            except NotFound:  # all of them deleted
                continue
            tags = {tag: value.partition("@")[0] for tag, value in yard.catalog.record(name).tags.items()}
            for version in versions:
                has = tuple(sorted(tag for tag, tagged in tags.items() if tagged == str(version)))
                yield Listed(f"{source}#{name}:{version}", name, str(version), tags=has)


class _Yard:
    """What is read of another modelyard."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.catalog = Catalog(store, by="")
        self.resolver = Resolver(store, self.catalog, {}, partial(read_manifest, store))

    def names(self) -> list[str]:
        """The names of its models, none if it is no modelyard: a manifest's key tells."""
        manifests = set()
        for found in self.store.objects("versions"):
            name, _, file = found.key.removeprefix("versions/").rpartition("/")
            try:
                if name and manifest_key(name, our_version(file.removesuffix(".json"))) == found.key:
                    manifests.add(name)
            except InvalidInput:
                continue
        return sorted(manifests)


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
