"""The model repository: versions that never change, tags that move, and the way from a name to verified files."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from modelyard import defaults
from modelyard.errors import AlreadyExists, IntegrityError, InvalidInput, NotFound
from modelyard.refs import COMPUTED_TAGS, Digest, ModelRef, Version, parse_free_tag, parse_name, parse_selector
from modelyard.repository.catalog import Catalog, Change
from modelyard.repository.environments import NAMES as ENVIRONMENTS
from modelyard.repository.environments import DeploymentSpec, Environment, Pin
from modelyard.repository.manifest import Inspection, ModelVersion
from modelyard.repository.registration import Registration, draft, finish, read_manifest, refuse_pickles
from modelyard.store import Cache, Object, Store
from modelyard.store.files import File, LocalFile, check_files, scan
from modelyard.store.transfer import Progress, no_progress, stored_digest

Inspect = Callable[[Sequence[File]], Inspection]


@dataclass(frozen=True, slots=True)
class Damage:
    """A stored file that is not what was registered."""

    ref: str
    path: str
    what: str


class ModelRepository:
    """A repository in a store. Cache, user and the importer's inspection come from the settings when not given."""

    def __init__(
        self,
        storage_backend: Store,
        *,
        cache: Cache | None = None,
        inspect: Inspect | None = None,
        user: str | None = None,
    ) -> None:
        self.storage = storage_backend
        parts: Any = None if cache and inspect and user else defaults.yard()
        self._cache = cache or parts.cache
        self._inspect = inspect or parts.inspect
        self._user = user or parts.settings.user
        self._catalog = Catalog(storage_backend, by=self._user)
        self._environments = {name: Environment(storage_backend, name) for name in ENVIRONMENTS}

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
        check_files(files)
        inspection = self._inspect(files)
        refuse_pickles(inspection, trust_pickle)
        new = draft(
            name,
            version,
            inspection,
            by=self._user,
            metadata=metadata,
            lineage=lineage or {},
            trusted_pickle=trust_pickle if inspection.pickles else None,
        )

        def check(stored: Sequence[File]) -> None:
            if self._inspect(stored) != inspection:
                raise IntegrityError(
                    "the files are not what they were a moment ago", remedy="find out who changes them, then try again"
                )

        self._catalog.claim(name)
        here = all(isinstance(file, LocalFile) for file in files)
        registered = Registration(self.storage, new).commit(files, check=None if here else check, progress=progress)
        for tag in tags:
            if tag == "staging":
                self.request(registered, "staging", why="registered with the tag staging")
            else:
                self._point(tag, registered, "registered with it")
        return registered

    def get_model(self, model_name: str, model_version: str) -> tuple[Path, dict[str, Any]]:
        """The verified files of a version or tag (a shared, read-only folder) and the caller's metadata, verbatim."""
        version = self.resolve(f"{model_name}:{model_version}")
        return self.fetch(version), version.metadata

    def list_models(self, model_name: str | None = None) -> list[str]:
        """A model's versions, ascending; without a name, the names of all models. Raises NotFound."""
        if model_name is None:
            return sorted({str(PurePosixPath(o.key).parent).removeprefix("versions/") for o in self._manifests("")})
        return [str(version) for version in self.versions(model_name)]

    def versions(self, name: str) -> list[Version]:
        """Ascending by SemVer. Raises NotFound for an unknown model."""
        head = f"versions/{parse_name(name)}/"
        keys = (found.key.removeprefix(head) for found in self._manifests(name))
        found = sorted(version for key in keys if (version := _version(key)))
        if not found:
            raise NotFound(f"there is no model {name!r} in {self.storage.url}", remedy="see `modelyard ls`")
        return found

    def resolve(self, ref: ModelRef | str) -> ModelVersion:
        """The exact version a reference means now; a bare name means its latest release. Raises NotFound."""
        ref = ModelRef.parse(ref) if isinstance(ref, str) else ref
        version, tagged = (ref.version, None) if ref.version else self._by_tag(ref.name, ref.tag or "latest")
        found = read_manifest(self.storage, ref.name, version)
        if found is None:
            known = ", ".join(map(str, self.versions(ref.name)[-5:]))
            raise NotFound(f"{ref.name} has no version {version}", remedy=f"the newest are {known}")
        for digest in (ref.digest, tagged):
            if digest and digest != found.digest:
                raise IntegrityError(f"{ref.name}:{version} has the digest {found.digest}, not {digest}")
        return found

    def fetch(self, version: ModelVersion, *, recheck: bool = False, progress: Progress = no_progress) -> Path:
        """The version's files in the local cache, verified when they came; `recheck` hashes what lies there again."""
        digest = version.digest.hex
        return self._cache.tree(self.storage, digest, version.files, recheck=recheck, progress=progress)

    def pull(self, version: ModelVersion, destination: Path, *, progress: Progress = no_progress) -> Path:
        """A copy of the version's files in a folder of the caller's, complete or not there at all."""
        destination = destination.expanduser().absolute()
        if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
            raise AlreadyExists(f"{destination} exists and is not an empty folder", remedy="give another destination")
        source = self.fetch(version, recheck=True, progress=progress)
        building = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}")
        try:
            shutil.copytree(source, building, copy_function=shutil.copyfile)
            building.rename(destination)
        except OSError as error:
            why = error.strerror or error  # shutil's own errors have no strerror
            raise InvalidInput(f"can't write {destination}: {why}", remedy="check the path") from error
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

    def tags(self, name: str) -> dict[str, str]:
        """Tag → version, the computed ones included."""
        pins = {env: journal.get(name).serving for env, journal in self._environments.items()}
        return {env: str(pin.version) for env, pin in pins.items() if pin} | self.version_tags(name)

    def version_tags(self, name: str) -> dict[str, str]:
        """Tag → version, without those that environments decide: the free ones and `latest`."""
        free = {tag: value.partition("@")[0] for tag, value in self._catalog.tags(name).items()}
        releases = [version for version in self.versions(name) if not version.prerelease]
        return ({"latest": str(releases[-1])} if releases else {}) | free

    def history(self, name: str) -> list[Change]:
        """Every change of the model's tags, oldest first."""
        self.versions(name)
        return self._catalog.history(name)

    def environment(self, name: str) -> Environment:
        """The journal of `staging` or `production`."""
        return self._environments[name]

    def request(self, version: ModelVersion, environment: str, *, why: str, spec: DeploymentSpec | None = None) -> str:
        """Record the wish that a version serve in an environment; returns the rollout's id."""
        pin = Pin(version.version, version.digest)
        asked = self.environment(environment).update(
            version.name, lambda old: old.ask(pin, spec=spec), by=self._user, why=why
        )
        return asked.rollout

    def verify(self, version: ModelVersion) -> list[Damage]:
        """Hash every stored file again; returns what is damaged or missing, and puts back a missing metadata.json."""

        def check(index: int) -> Damage | None:
            file = version.files[index]
            stored = stored_digest(self.storage, file.key)
            if stored == (file.size, file.sha256):
                return None
            return Damage(str(version.ref), file.path, "missing" if stored is None else "damaged")

        with ThreadPoolExecutor(max_workers=8) as pool:
            damaged = [found for found in pool.map(check, range(len(version.files))) if found]
        finish(self.storage, version)
        return damaged

    def _point(self, tag: str, version: ModelVersion, reason: str) -> None:
        why = f"{tag} → {version.version}" + (f": {reason}" if reason else "")
        self._catalog.tag(version.ref, tag, why=why)

    def verify_journals(self) -> list[Damage]:
        """Read every entry of the catalog and of the environments; returns those that can't be read."""
        readers: dict[str, Callable[[], object]] = {
            f"catalog/{name.lower()}": partial(self._catalog.history, name) for name in self.list_models()
        }
        readers |= {f"deployments/{name}": journal.history for name, journal in self._environments.items()}
        damaged = []
        for prefix, read in readers.items():
            try:
                read()
            except IntegrityError as error:
                damaged.append(Damage(prefix, "a journal entry", f"damaged ({error.message})"))
        return damaged

    def _by_tag(self, name: str, tag: str) -> tuple[Version, Digest | None]:
        """The version a tag means, and the digest it had when the tag was set."""
        if tag in ("latest", "main"):
            releases = [version for version in self.versions(name) if not version.prerelease]
            if not releases:
                raise NotFound(f"{name} has no release yet, only prereleases", remedy="name a version")
            return releases[-1], None
        if tag in self._environments:
            pin = self._environments[tag].get(name).serving
            value = f"{pin.version}@{pin.digest}" if pin else None
        else:
            value = self._catalog.tags(name).get(tag)
        if value is None:
            self.versions(name)
            remedy = COMPUTED_TAGS.get(tag, f"its tags are {', '.join(self.tags(name)) or 'none'}")
            raise NotFound(f"{name} has no tag {tag!r}", remedy=remedy)
        version, _, digest = value.partition("@")
        return Version.parse(version), Digest.parse(digest)

    def _manifests(self, name: str) -> Iterator[Object]:
        return self.storage.objects(f"versions/{name}")


def _version(key: str) -> Version | None:
    """The version whose manifest this is; None for a manifest of `name/…` and for objects that are not ours."""
    stem, dot, ending = key.rpartition(".")
    try:
        return Version.parse(stem) if dot and ending == "json" and str(Version.parse(stem)) == stem else None
    except InvalidInput:
        return None
