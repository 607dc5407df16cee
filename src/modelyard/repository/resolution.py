"""From what people write to the exact version it means now: versions, tags computed and free, digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from modelyard.errors import IntegrityError, InvalidInput, NotFound
from modelyard.refs import COMPUTED_TAGS, Digest, ModelRef, Version, parse_name
from modelyard.repository.catalog import Catalog, Record
from modelyard.repository.environments import Environment
from modelyard.repository.manifest import ModelVersion
from modelyard.store import Entry, Store

# The manifest of a name and version; the entry is the newest of the model's journal, just read.
ReadManifest = Callable[[str, Version, Entry | None], ModelVersion | None]

_PARALLEL = 8


class Resolver:
    """Reads the store; changes nothing."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        environments: Mapping[str, Environment],
        manifest: ReadManifest,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._environments = environments
        self._manifest = manifest

    def names(self) -> list[str]:
        """The names of all models that have a version, deleted ones included."""
        keys = (found.key for found in self._store.objects("versions"))
        return sorted({str(PurePosixPath(key).parent).removeprefix("versions/") for key in keys})

    def versions(self, name: str) -> list[Version]:
        """Ascending by SemVer. Raises NotFound for an unknown model."""
        return self._living(*self._catalog.look(parse_name(name)))

    def newest(self, name: str, count: int) -> list[ModelVersion]:
        """So many of a model's highest versions; none for an unknown model."""
        record, entry = self._catalog.look(name)
        try:
            return self._manifests(record, entry, self._living(record, entry)[-count:])
        except NotFound:
            return []

    def registered(self, name: str) -> list[ModelVersion]:
        """Every version that was ever registered, deleted ones included. Raises NotFound for an unknown model."""
        record, entry = self._catalog.look(parse_name(name))
        found = self._manifests(record, entry, sorted(self._stored(record)))
        if not found:
            raise self._unknown(record)
        return found

    def resolve(self, ref: ModelRef | str) -> ModelVersion:
        """The exact version a reference means now; a bare name means its latest release. Raises NotFound."""
        ref = ModelRef.parse(ref) if isinstance(ref, str) else ref
        record, entry = self._catalog.look(ref.name)
        version, tagged = (ref.version, None) if ref.version else self._by_tag(record, entry, ref.tag or "latest")
        if (why := record.deleted.get(str(version))) is not None:
            raise NotFound(f"{ref.name}:{version} was deleted: {why}", remedy=f"see `modelyard ls {ref.name}`")
        found = self._manifest(ref.name, version, entry)
        if found is None or found.attempt in record.void:
            known = ", ".join(map(str, self._living(record, entry)[-5:]))
            raise NotFound(f"{ref.name} has no version {version}", remedy=f"the newest are {known}")
        for digest in (ref.digest, tagged):
            if digest and digest != found.digest:
                raise IntegrityError(f"{ref.name}:{version} has the digest {found.digest}, not {digest}")
        return found

    def tags(self, name: str) -> dict[str, str]:
        """Tag → version, the computed ones included."""
        pins = {env: journal.get(name).serving for env, journal in self._environments.items()}
        return {env: str(pin.version) for env, pin in pins.items() if pin} | self.version_tags(name)

    def version_tags(self, name: str) -> dict[str, str]:
        """Tag → version, without those that environments decide: the free ones and `latest`."""
        record, entry = self._catalog.look(parse_name(name))
        free = {tag: value.partition("@")[0] for tag, value in record.tags.items()}
        releases = _releases(record, self._living(record, entry))
        return ({"latest": str(releases[-1])} if releases else {}) | free

    def _living(self, record: Record, entry: Entry | None) -> list[Version]:
        """The versions that are there: not deleted, and not left by a writer whose time was over."""
        listed = {version for version in self._stored(record) if str(version) not in record.deleted}
        doubtful = [version for version in listed if str(version) in record.void.values()]
        if doubtful:
            sound = {manifest.version for manifest in self._manifests(record, entry, doubtful)}
            listed -= set(doubtful) - sound
        if not listed:
            raise self._unknown(record)
        return sorted(listed)

    def _stored(self, record: Record) -> set[Version]:
        """The versions that have a manifest."""
        head = f"versions/{record.name}/"
        keys = (found.key.removeprefix(head) for found in self._store.objects(head))
        return {version for key in keys if (version := _version(key))}

    def _manifests(self, record: Record, entry: Entry | None, versions: Sequence[Version]) -> list[ModelVersion]:
        """Those manifests that count."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            found = list(pool.map(lambda version: self._manifest(record.name, version, entry), versions))
        return [manifest for manifest in found if manifest and manifest.attempt not in record.void]

    def _unknown(self, record: Record) -> NotFound:
        return NotFound(f"there is no model {record.name!r} in {self._store.url}", remedy="see `modelyard ls`")

    def _by_tag(self, record: Record, entry: Entry | None, tag: str) -> tuple[Version, Digest | None]:
        """The version a tag means, and the digest it had when the tag was set."""
        name = record.name
        if tag in ("latest", "main"):
            living = self._living(record, entry)
            releases = _releases(record, living)
            if not releases:
                why = "only prereleases" if all(each.prerelease for each in living) else "all of them are yanked"
                raise NotFound(f"{name} has no release, {why}", remedy="name a version")
            return releases[-1], None
        if tag in self._environments:
            pin = self._environments[tag].get(name).serving
            value = f"{pin.version}@{pin.digest}" if pin else None
        else:
            value = record.tags.get(tag)
        if value is None:
            self._living(record, entry)
            remedy = COMPUTED_TAGS.get(tag, f"its tags are {', '.join(self.tags(name)) or 'none'}")
            raise NotFound(f"{name} has no tag {tag!r}", remedy=remedy)
        version, _, digest = value.partition("@")
        return Version.parse(version), Digest.parse(digest)


def _releases(record: Record, versions: list[Version]) -> list[Version]:
    """What `latest` may mean."""
    return [version for version in versions if not version.prerelease and str(version) not in record.yanked]


def _version(key: str) -> Version | None:
    """The version whose manifest this is; None for a manifest of `name/…` and for objects that are not ours."""
    stem, dot, ending = key.rpartition(".")
    try:
        return Version.parse(stem) if dot and ending == "json" and str(Version.parse(stem)) == stem else None
    except InvalidInput:
        return None
