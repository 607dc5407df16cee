"""The model repository: versions that never change, tags that move, and the way from a name to verified files."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from modelyard import defaults
from modelyard.errors import AlreadyExists, IntegrityError, InvalidInput, NotFound
from modelyard.refs import ModelRef, Version, parse_free_tag, parse_name, parse_selector
from modelyard.repository.attempts import GRACE
from modelyard.repository.catalog import Catalog, Change, Record
from modelyard.repository.comparison import Difference, compare
from modelyard.repository.environments import NAMES as ENVIRONMENTS
from modelyard.repository.environments import Deployment, DeploymentSpec, Environment, Pin
from modelyard.repository.garbage import Collector, Garbage
from modelyard.repository.index import Index
from modelyard.repository.lineage import BASE, Link, ancestors, descendants, pinned
from modelyard.repository.manifest import Inspection, ModelVersion, content_digest
from modelyard.repository.registration import Registration, draft, read_manifest, refuse_pickles
from modelyard.repository.removal import delete, refuse_deployed, refuse_tagged
from modelyard.repository.resolution import Resolver
from modelyard.repository.scanning import ensure_scan
from modelyard.repository.verification import Damage, verify_all, verify_files
from modelyard.store import Cache, Entry, Store
from modelyard.store.files import EVERYTHING, File, Filter, LocalFile, check_files, scan
from modelyard.store.transfer import Content, Progress, no_progress

_COMPARED = 8  # versions that are searched for unchanged files

Inspect = Callable[[Sequence[File]], Inspection]


class ModelRepository:
    """A repository in a store. Cache, user and the importer's inspection come from the settings when not given."""

    def __init__(
        self,
        storage_backend: Store,
        *,
        cache: Cache | None = None,
        inspect: Inspect | None = None,
        user: str | None = None,
        index: Index | None = None,
    ) -> None:
        self.storage = storage_backend
        parts: Any = None if cache and inspect and user else defaults.yard()
        self._index: Index | None = index or (parts.index_of(storage_backend) if parts else None)
        self._cache = cache or parts.cache
        self._inspect = inspect or parts.inspect
        self._user = user or parts.settings.user
        self._catalog = Catalog(storage_backend, by=self._user)
        self._environments = {name: Environment(storage_backend, name) for name in ENVIRONMENTS}
        self._resolver = Resolver(storage_backend, self._catalog, self._environments, self._manifest)

    def register_model(
        self,
        model_name: str,
        model_version: str,
        artifacts_path: str | Path,
        metadata: dict[str, Any] | None = None,
        *,
        tags: Sequence[str] = (),
        lineage: dict[str, str] | None = None,
        trust_pickle: str | None = None,
        progress: Progress = no_progress,
    ) -> ModelVersion:
        """Store a file or folder as a new version; the tag `staging` also asks for its deployment there.

        Registering the same content again is no error, so an interrupted call can simply be repeated. Raises
        AlreadyExists, InvalidInput, NotFound, StoreError.
        """
        return self.register(
            parse_name(model_name),
            Version.parse(model_version),
            scan(Path(artifacts_path)),
            metadata or {},
            tags=tags,
            lineage=lineage,
            trust_pickle=trust_pickle,
            progress=progress,
        )

    def register(
        self,
        name: str,
        version: Version,
        files: Sequence[File],
        metadata: dict[str, Any],
        *,
        tags: Sequence[str] = (),
        lineage: dict[str, str] | None = None,
        trust_pickle: str | None = None,
        progress: Progress = no_progress,
    ) -> ModelVersion:
        """`register_model` for files that lie anywhere.

        Files of another machine are inspected twice: there, so that nothing is moved in vain, and in the store before
        the version is committed, since a source may give other bytes when it is asked again.
        """
        for tag in set(tags) - {"staging"}:
            parse_free_tag(tag)
        new, inspection = self.preview(name, version, files, metadata, lineage=lineage, trust_pickle=trust_pickle)

        def check(stored: Sequence[File]) -> None:
            if self._inspect(stored) != inspection:
                raise IntegrityError(
                    "the files are not what they were a moment ago", remedy="find out who changes them, then try again"
                )

        here = all(isinstance(file, LocalFile) for file in files)
        registered = Registration(self.storage, self._catalog, new).commit(
            files, known=partial(self._contents, name), check=None if here else check, progress=progress
        )
        ensure_scan(self.storage, registered, inspection, by=self._user)
        for tag in tags:
            if tag == "staging":
                self.request(registered, "staging", why="registered with the tag staging")
            else:
                self._point(tag, registered, "registered with it")
        return registered

    def preview(
        self,
        name: str,
        version: Version,
        files: Sequence[File],
        metadata: dict[str, Any],
        *,
        lineage: dict[str, str] | None = None,
        trust_pickle: str | None = None,
    ) -> tuple[ModelVersion, Inspection]:
        """What `register` would store, still without its files, and what inspection found. Stores nothing.

        Raises what `register` would, as far as headers tell.
        """
        check_files(files)
        inspection = self._inspect(files)
        refuse_pickles(inspection, trust_pickle)
        new = draft(
            name,
            version,
            inspection,
            by=self._user,
            metadata=metadata,
            lineage=pinned(lineage or {}, self.resolve),
            trusted_pickle=trust_pickle if inspection.refused else None,
        )
        return new, inspection

    def get_model(self, model_name: str, model_version: str) -> tuple[Path, dict[str, Any]]:
        """The verified files of a version or tag (a shared, read-only folder) and the caller's metadata, verbatim."""
        version = self.resolve(f"{model_name}:{model_version}")
        return self.fetch(version), version.metadata

    def list_models(self, model_name: str | None = None) -> list[str]:
        """A model's versions, ascending; without a name, the names of all models. Raises NotFound."""
        if model_name is None:
            return self._index.names() if self._index else self._resolver.names()
        return [str(version) for version in self.versions(model_name)]

    def versions(self, name: str) -> list[Version]:
        """Ascending by SemVer, without deleted ones. Raises NotFound for an unknown model."""
        return self._resolver.versions(name)

    def resolve(self, ref: ModelRef | str) -> ModelVersion:
        """The exact version a reference means now; a bare name means its latest release. Raises NotFound."""
        return self._resolver.resolve(ref)

    def record(self, name: str) -> Record:
        """What was yanked, deleted and tagged of a model."""
        return self._catalog.record(parse_name(name))

    def fetch(
        self,
        version: ModelVersion,
        *,
        only: Filter = EVERYTHING,
        recheck: bool = False,
        progress: Progress = no_progress,
    ) -> Path:
        """The version's files in the local cache, verified when they came; `recheck` hashes what lies there again."""
        files = only.choose(version.files)
        return self._cache.tree(self.storage, content_digest(files).hex, files, recheck=recheck, progress=progress)

    def pull(
        self,
        version: ModelVersion,
        destination: Path,
        *,
        only: Filter = EVERYTHING,
        progress: Progress = no_progress,
    ) -> Path:
        """A copy of the version's files in a folder of the caller's, complete or not there at all."""
        destination, files = destination.expanduser().absolute(), only.choose(version.files)
        taken = AlreadyExists(f"{destination} exists and is not an empty folder", remedy="give another destination")
        if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
            raise taken
        building = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}")
        try:
            building.mkdir(parents=True)
            self._cache.copy(self.storage, content_digest(files).hex, files, building, progress=progress)
            building.rename(destination)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # somebody else was faster
                raise taken from error
            raise InvalidInput(f"can't write {destination}: {error.strerror}", remedy="check the path") from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return destination

    def tag(self, name: str, tag: str, version: str, *, reason: str = "") -> ModelVersion:
        """Point a free tag at a version. Raises Refused for `latest`, `staging` and `production`, naming the verb."""
        parse_free_tag(tag)
        found = self.resolve(ModelRef(parse_name(name), *parse_selector(version)))
        self._point(tag, found, reason)
        return found

    def undo_tag(self, name: str, tag: str, *, reason: str = "") -> str | None:
        """Take a tag's last change back; returns the version it means now, or None if it is gone."""
        why = f"undo {tag}" + (f": {reason}" if reason else "")
        value = self._catalog.undo_tag(parse_name(name), tag, why=why)
        return value.partition("@")[0] if value else None

    def untag(self, name: str, tag: str, *, reason: str = "") -> None:
        """Remove a free tag. Raises NotFound when there is none."""
        self._catalog.untag(parse_name(name), tag, why=f"remove the tag {tag}" + (f": {reason}" if reason else ""))

    def tags(self, name: str) -> dict[str, str]:
        """Tag → version, the computed ones included."""
        return self._resolver.tags(name)

    def version_tags(self, name: str) -> dict[str, str]:
        """Tag → version, without those that environments decide: the free ones and `latest`."""
        return self._resolver.version_tags(name)

    def yank(self, name: str, version: str, *, reason: str) -> ModelVersion:
        """Keep a version, but let nothing new resolve to it: `latest` passes over it, and it can't be tagged or staged.

        Its exact version and the tags it has still resolve to it.
        """
        found = self.resolve(ModelRef(parse_name(name), Version.parse(version)))
        self._catalog.change(
            name,
            lambda record: replace(record, yanked=record.yanked | {str(found.version): reason}),
            why=f"yank {found.version}: {reason}",
        )
        return found

    def undo_yank(self, name: str, version: str, *, reason: str = "") -> ModelVersion:
        """Take a yank back. Raises NotFound for a version that is not yanked."""
        found = self.resolve(ModelRef(parse_name(name), Version.parse(version)))

        def decide(record: Record) -> Record:
            if str(found.version) not in record.yanked:
                raise NotFound(f"{name}:{found.version} is not yanked", remedy=f"see `modelyard history {name}`")
            return replace(record, yanked={v: why for v, why in record.yanked.items() if v != str(found.version)})

        why = f"undo yank {found.version}" + (f": {reason}" if reason else "")
        self._catalog.change(name, decide, why=why)
        return found

    def delete(self, name: str, version: str, *, reason: str) -> ModelVersion:
        """Remove a version's files for good; its number is never used again.

        Raises Refused while the version is tagged, or serves or should serve anywhere.
        """
        found = self.resolve(ModelRef(parse_name(name), Version.parse(version)))
        delete(self.storage, self._catalog, self._environments, found, why=reason)
        return found

    def refuse_used(self, version: ModelVersion) -> None:
        """Raises Refused for a version that `delete` would refuse."""
        refuse_deployed(self._environments, version)
        refuse_tagged(self._catalog.record(version.name), str(version.version))

    def history(self, name: str) -> list[Change]:
        """Every change of the model's record, oldest first: tags set and removed, versions yanked and deleted."""
        self._resolver.registered(name)
        return self._catalog.history(name)

    def registered(self, name: str) -> list[ModelVersion]:
        """Every version that was ever registered, ascending, deleted ones included. Raises NotFound."""
        return self._resolver.registered(name)

    def environment(self, name: str) -> Environment:
        """The journal of `staging` or `production`."""
        return self._environments[name]

    def request(self, version: ModelVersion, environment: str, *, why: str, spec: DeploymentSpec | None = None) -> str:
        """Record the wish that a version serve in an environment; returns the rollout's id."""
        pin = Pin(version.version, version.digest)
        return self.change_deployment(version.name, environment, lambda old: old.ask(pin, spec=spec), why=why).rollout

    def change_deployment(
        self, name: str, environment: str, decide: Callable[[Deployment], Deployment | None], *, why: str
    ) -> Deployment:
        """Change what a model should be in an environment; see `Environment.update`.

        Raises NotFound, with the deployment as it was, when the version was deleted in between.
        """
        journal, before = self._environments[environment], Deployment()

        def remembering(old: Deployment) -> Deployment | None:
            nonlocal before
            before = old
            return decide(old)

        asked = journal.update(name, remembering, by=self._user, why=why)
        deleted = self._catalog.record(name).deleted.get(str(asked.target)) if asked.target else None
        if deleted is None:
            return asked
        gone = f"{name}:{asked.target} was deleted: {deleted}"
        journal.update(
            name,
            lambda now: replace(before, outcome="failed", reason=gone) if now.rollout == asked.rollout else None,
            by=self._user,
            why=f"step back: {gone}",
        )
        raise NotFound(gone, remedy="choose another version")

    def diff(self, old: ModelRef | str, new: ModelRef | str) -> list[Difference]:
        """What differs between two versions: files, what inspection found, metadata, lineage."""
        return compare(self.resolve(old), self.resolve(new))

    def lineage(self, version: ModelVersion) -> tuple[list[Link], list[Link]]:
        """What a version was made of, and what was made of it."""
        return list(ancestors(version, self.resolve)), list(descendants(version, self._made_of))

    def collect_garbage(
        self, *, dry_run: bool = False, grace: timedelta = GRACE, found: Callable[[Garbage], None] = lambda _: None
    ) -> list[Garbage]:
        """Remove what no manifest, journal or attempt under way refers to; `dry_run` only tells of it.

        Nothing younger than `grace` is touched: a shorter one than the default may take the files of a writer that is
        still at work, whose registration then fails.
        """
        return Collector(self.storage, self._catalog, grace=grace).collect(dry_run=dry_run, found=found)

    def verify(self, version: ModelVersion) -> list[Damage]:
        """Hash every stored file again; returns what is damaged or missing, and puts back a missing metadata.json."""
        return verify_files(self.storage, version)

    def verify_all(self) -> tuple[list[ModelVersion], list[Damage]]:
        """Verify every version and every journal; returns the versions that could be read, and all damage."""
        return verify_all(self.storage, self._resolver, self._catalog, self._environments)

    def _contents(self, name: str) -> dict[Content, str]:
        """Which contents the model's newest versions have, and where."""
        found = self._resolver.newest(name, _COMPARED)
        return {(file.size, file.sha256): file.key for version in found for file in version.files}

    def _made_of(self, ref: str) -> Iterable[str]:
        """The versions whose base model this is."""
        if self._index:
            found = self._index.search([f"lineage.{BASE}={ref}"], yanked=True)
            return [str(ModelRef(each.name, each.version, digest=each.digest)) for each in found]
        everything = (self.resolve(ModelRef(n, v)) for n in self.list_models() for v in self.versions(n))
        return [str(version.ref) for version in everything if version.lineage.get(BASE) == ref]

    def _manifest(self, name: str, version: Version, entry: Entry | None) -> ModelVersion | None:
        """From the index where it may speak for the store, else from the store."""
        if self._index and entry:
            return self._index.manifest(name, version, entry)
        return read_manifest(self.storage, name, version)

    def _point(self, tag: str, version: ModelVersion, reason: str) -> None:
        why = f"{tag} → {version.version}" + (f": {reason}" if reason else "")
        self._catalog.tag(version.ref, tag, why=why)
