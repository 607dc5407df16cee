"""Taking over a whole estate, every model version of a place: `import --all`.

`plan` says what each is called here and what can't come; `Takeover` brings the rest in, several at a time. What is
there already is passed over, so that a run that was cut off is simply repeated. One bad model does not stop the rest.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from modelyard.errors import AlreadyExists, InvalidInput, ModelyardError, StoreError, Unavailable
from modelyard.importer.importer import valid_name
from modelyard.importer.sources import Estate, Fetched, Listed
from modelyard.refs import Version, parse_name
from modelyard.repository import ModelRepository, ModelVersion
from modelyard.repository.registration import read_manifest, refuse_deleted
from modelyard.store.files import File
from modelyard.store.transfer import Progress, digest, no_progress

_PARALLEL = 4
_GONE_AFTER = 8  # failures to reach anything, one after another: the place is away, not a model of it
_SHORT_VERSION = re.compile(r"v?(0*[0-9]{1,18})(?:\.([0-9]{1,18}))?")

State = Literal["imported", "present", "refused", "possible"]


@dataclass(frozen=True, slots=True)
class Item:
    """One model version of the estate: what it is there, and what it becomes here; `why` it can't come, if so."""

    listed: Listed
    name: str = ""
    version: Version | None = None
    why: str = ""

    @property
    def ref(self) -> str | None:
        """`name:v1.0.0`, as far as it can be told."""
        return f"{self.name}:{self.version}" if self.version else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item. `size` in bytes, where it was found out; `possible` is what a dry run says."""

    item: Item
    state: State
    size: int | None = None
    why: str = ""


def plan(
    listed: Iterable[Listed], *, taken: Iterable[str] = (), include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Item]:
    """The items, by name and version. Pure.

    `include` and `exclude` are shell patterns of names as they are there; `taken` are the names in the repository. No
    two names of the estate become one name here, and none differs from another by case alone.
    """
    spelling = {name.lower(): name for name in taken}
    owners: dict[str, str] = {}
    chosen = [each for each in listed if _chosen(each.name, include, exclude)]
    items: list[Item] = []
    seen: dict[tuple[str, Version], Listed] = {}
    for each in sorted(chosen, key=_order):
        try:
            name, version = our_name(each.name), our_version(each.version)
            owner = owners.setdefault(name.lower(), each.name)
            if owner != each.name:
                raise InvalidInput(f"{owner!r} becomes {name} too", remedy="import one of them under another name")
            known = spelling.setdefault(name.lower(), name)
            if known != name:
                raise InvalidInput(f"{name} differs from the model {known} by case alone")
            other = seen.setdefault((name, version), each)
            if other is not each:
                raise InvalidInput(f"version {other.version!r} becomes {version} too")
            items.append(Item(each, why=each.why) if each.why else Item(each, name, version))
        except InvalidInput as error:
            items.append(Item(each, why=str(error)))
    return items


def our_name(text: str) -> str:
    """The name that a model gets here: its own as far as possible, with one namespace. Raises InvalidInput."""
    space, slash, rest = text.strip("/").partition("/")
    return parse_name(f"{valid_name(space)}/{valid_name(rest)}") if slash else valid_name(space)


def our_version(text: str) -> Version:
    """`3` becomes v3.0.0 and `1.2` v1.2.0; semantic versions stay. Raises InvalidInput."""
    if not text:
        raise InvalidInput("it lies in no version's folder", remedy="put it into a folder such as 1 or v1.0.0")
    if short := _SHORT_VERSION.fullmatch(text):
        return Version(int(short[1]), int(short[2] or 0), 0)
    return Version.parse(text)


def _order(listed: Listed) -> tuple[str, bool, Version | str, str]:
    try:
        return (listed.name, False, our_version(listed.version), listed.version)
    except InvalidInput:
        return (listed.name, True, listed.version, listed.version)


def _chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    wanted = not include or any(fnmatchcase(name, pattern) for pattern in include)
    return wanted and not any(fnmatchcase(name, pattern) for pattern in exclude)


@dataclass(slots=True)
class _Failures:
    """How often in a row nothing could be reached."""

    count: int = 0
    last: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, error: ModelyardError | None) -> None:
        with self.lock:
            away = isinstance(error, StoreError | Unavailable)
            self.count, self.last = (self.count + 1, str(error)) if away else (0, "")

    @property
    def away(self) -> bool:
        return self.count >= _GONE_AFTER


class Takeover:
    """Brings an estate into a repository. `metadata` is added to every version's own and wins."""

    def __init__(
        self,
        repository: ModelRepository,
        estate: Estate,
        *,
        metadata: dict[str, Any] | None = None,
        trust_pickle: str | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self._repository = repository
        self._estate = estate
        self._metadata = metadata or {}
        self._trust_pickle = trust_pickle
        self._progress = progress
        self._failures = _Failures()

    def run(
        self, items: Sequence[Item], *, dry_run: bool = False, done: Callable[[Outcome], object] = lambda _: None
    ) -> list[Outcome]:
        """What became of each, in order; `done` hears of each at once. A dry run reads lists and headers alone."""
        outcomes: dict[int, Outcome] = {}
        with ThreadPoolExecutor(_PARALLEL) as pool:
            futures = {pool.submit(self._one, item, dry_run=dry_run): index for index, item in enumerate(items)}
            try:
                for future in as_completed(futures):
                    outcomes[futures[future]] = future.result()
                    done(future.result())
            except BaseException:
                _cancel(futures)
                raise
        return [outcomes[index] for index in range(len(items))]

    def _one(self, item: Item, *, dry_run: bool) -> Outcome:
        if item.version is None:
            return Outcome(item, "refused", why=item.why)
        if self._failures.away:
            return Outcome(item, "refused", why=f"not tried after {_GONE_AFTER} failures: {self._failures.last}")
        try:
            outcome = self._bring(item, item.version, dry_run=dry_run)
        except ModelyardError as error:
            self._failures.note(error)
            return Outcome(item, "refused", why=str(error))
        self._failures.note(None)
        return outcome

    def _bring(self, item: Item, version: Version, *, dry_run: bool) -> Outcome:
        repository, name, listed = self._repository, item.name, item.listed
        record = repository.record(name)
        refuse_deleted(record, version)
        existing = read_manifest(repository.storage, name, version)
        if existing and existing.attempt in record.void:
            existing = None  # nobody's version; `register` says so
        if existing and listed.pin and listed.pin == existing.lineage.get("source"):
            return self._present(item, existing, dry_run=dry_run)
        with self._estate.open(listed.address) as fetched:
            size = sum(file.size for file in fetched.files)
            if existing:
                _refuse_other(existing, fetched.files)
                return self._present(item, existing, dry_run=dry_run)
            if dry_run:
                self._preview(name, version, fetched)
                return Outcome(item, "possible", size)
            repository.register(
                name,
                version,
                fetched.files,
                fetched.metadata | self._metadata,
                lineage=fetched.lineage,
                tags=listed.tags,
                trust_pickle=self._trust_pickle,
                progress=self._progress,
            )
            return Outcome(item, "imported", size)

    def _preview(self, name: str, version: Version, fetched: Fetched) -> None:
        metadata = fetched.metadata | self._metadata
        self._repository.preview(
            name, version, fetched.files, metadata, lineage=fetched.lineage, trust_pickle=self._trust_pickle
        )

    def _present(self, item: Item, existing: ModelVersion, *, dry_run: bool) -> Outcome:
        """Nothing to move. Tags that an earlier run did not come to set are set; others stay where they are."""
        if item.listed.tags and not dry_run:
            there = self._repository.record(existing.name).tags
            for tag in set(item.listed.tags) - there.keys():
                self._repository.tag(existing.name, tag, str(existing.version), reason="imported with it")
        return Outcome(item, "present", existing.size)


def _refuse_other(existing: ModelVersion, files: Sequence[File]) -> None:
    """Raises AlreadyExists unless the files are those of the version. They are read only if nothing else tells."""
    there = {file.path: (file.size, file.sha256) for file in existing.files}
    same = {path: size for path, (size, _) in there.items()} == {file.path: file.size for file in files}
    if not same or any(there[file.path][1] != (file.sha256 or digest(file.chunks())[1]) for file in files):
        raise AlreadyExists(
            f"{existing.name}:{existing.version} exists with other content ({existing.digest.short})",
            remedy="import that one by itself, under another version",
        )


def _cancel(futures: Iterable[Future[Outcome]]) -> None:
    for future in futures:
        future.cancel()


def failed(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Those that did not come."""
    return (outcome for outcome in outcomes if outcome.state == "refused")
