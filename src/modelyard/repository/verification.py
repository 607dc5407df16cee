"""Whether what is stored is what was registered: files against manifests, journals against both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from modelyard.errors import IntegrityError, ModelyardError, NotFound
from modelyard.refs import Digest, ModelRef, Version
from modelyard.repository.catalog import Catalog
from modelyard.repository.environments import Environment
from modelyard.repository.manifest import ModelVersion
from modelyard.repository.registration import finish, read_manifest
from modelyard.repository.resolution import Resolver
from modelyard.store import Store
from modelyard.store.transfer import stored_digest

_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Damage:
    """Something stored that is not as it should be."""

    ref: str
    path: str
    what: str


def verify_files(store: Store, version: ModelVersion) -> list[Damage]:
    """Hash every stored file and look at the manifest again; returns what is damaged or missing.

    Puts back a missing metadata.json.
    """
    try:
        stored_manifest = read_manifest(store, version.name, version.version)
    except IntegrityError as error:
        return [Damage(str(version.ref), "the manifest", f"damaged ({error.message})")]
    if stored_manifest != version:
        what = "missing" if stored_manifest is None else "not what it was"
        return [Damage(str(version.ref), "the manifest", what)]

    def check(index: int) -> Damage | None:
        file = version.files[index]
        stored = stored_digest(store, file.key)
        if stored == (file.size, file.sha256):
            return None
        return Damage(str(version.ref), file.path, "missing" if stored is None else "damaged")

    with ThreadPoolExecutor(_PARALLEL) as pool:
        damaged = [found for found in pool.map(check, range(len(version.files))) if found]
    finish(store, version)
    return damaged


def verify_all(
    store: Store, resolver: Resolver, catalog: Catalog, environments: Mapping[str, Environment]
) -> tuple[list[ModelVersion], list[Damage]]:
    """All versions that can be read, and all damage: to them, to manifests that can't be read, to journals."""
    read: list[ModelVersion] = []
    damaged: list[Damage] = []
    names = resolver.names()
    for name in names:
        try:
            versions = resolver.versions(name)
        except (NotFound, IntegrityError):  # all deleted; or the journal is damaged, which is told below
            continue
        for version in versions:
            try:
                read.append(resolver.resolve(ModelRef(name, version)))
            except IntegrityError as error:
                damaged.append(Damage(f"{name}:{version}", "the manifest", f"damaged ({error.message})"))
    for found in read:
        damaged += verify_files(store, found)
    return read, damaged + verify_journals(names, catalog, environments, resolver.resolve)


def verify_journals(
    names: Iterable[str],
    catalog: Catalog,
    environments: Mapping[str, Environment],
    resolve: Callable[[ModelRef], ModelVersion],
) -> list[Damage]:
    """Every journal entry that can't be read, and every tag and deployment whose version is not there any more."""
    damaged: list[Damage] = []
    pointing: list[tuple[str, str, ModelRef]] = []
    for name in names:
        try:
            catalog.history(name)
            tags = catalog.record(name).tags
            pointing += [(f"catalog/{name.lower()}", f"the tag {tag}", _ref(name, tags[tag])) for tag in tags]
        except IntegrityError as error:
            damaged.append(_unreadable(f"catalog/{name.lower()}", error))
    for name, environment in environments.items():
        try:
            environment.history()
            refs = [ref for model, each in environment.read().items() for ref in each.refs(model)]
            pointing += [(f"deployments/{name}", f"the deployment of {ref.name}", ref) for ref in refs]
        except IntegrityError as error:
            damaged.append(_unreadable(f"deployments/{name}", error))
    with ThreadPoolExecutor(_PARALLEL) as pool:
        lost = pool.map(lambda each: _lost(resolve, each[2]), pointing)
        damaged += [Damage(where, what, why) for (where, what, _), why in zip(pointing, lost, strict=True) if why]
    return damaged


def _ref(name: str, value: str) -> ModelRef:
    version, _, digest = value.partition("@")
    return ModelRef(name, Version.parse(version), digest=Digest.parse(digest))


def _lost(resolve: Callable[[ModelRef], ModelVersion], ref: ModelRef) -> str | None:
    try:
        resolve(ref)
    except ModelyardError as error:
        return f"without its version ({error.message})"
    return None


def _unreadable(prefix: str, error: IntegrityError) -> Damage:
    return Damage(prefix, "a journal entry", f"damaged ({error.message})")
