"""Registering a version: an attempt uploads under keys of its own, the manifest created last picks the one winner.

A writer may be killed anywhere: until the manifest exists nobody sees anything, and a rerun begins a new attempt.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from modelyard.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    InvalidInput,
    ModelyardError,
    NotFound,
    StoreError,
    Unavailable,
)
from modelyard.refs import Version
from modelyard.repository.attempts import GRACE, Attempt, discard
from modelyard.repository.catalog import Catalog, Record
from modelyard.repository.changes import mark
from modelyard.repository.declared import check_serving
from modelyard.repository.manifest import Artifact, Inspection, ModelVersion, content_digest, declared_signature
from modelyard.store import Store
from modelyard.store.documents import RESTORE, to_json
from modelyard.store.files import File
from modelyard.store.objects import ObjectFile
from modelyard.store.transfer import Content, Progress, Sent, digest, no_progress, send

Check = Callable[[Sequence[File]], None]


def manifest_key(name: str, version: Version) -> str:
    return f"versions/{name}/{version}.json"


def read_manifest(store: Store, name: str, version: Version) -> ModelVersion | None:
    """The version, if it is registered. Raises IntegrityError for a manifest that can't be read."""
    key = manifest_key(name, version)
    try:
        found = ModelVersion.from_json(store.get(key), where=f"{key} in {store.url}")
    except NotFound:
        return None
    if (found.name, found.version) != (name, version):
        raise IntegrityError(f"{key} in {store.url} is the manifest of {found.name}:{found.version}", remedy=RESTORE)
    return found


class Registration:
    """One attempt to register one version; `commit` is its only public step."""

    def __init__(
        self, store: Store, catalog: Catalog, draft: ModelVersion, *, now: Callable[[], datetime] | None = None
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._now = now or (lambda: datetime.now(UTC))
        self._draft = draft
        self._attempt = Attempt(store, draft.attempt, draft.name, draft.version, draft.created_by)

    def commit(
        self,
        files: Sequence[File],
        *,
        known: Callable[[], Mapping[Content, str]] = dict,
        check: Check | None = None,
        progress: Progress = no_progress,
    ) -> ModelVersion:
        """Upload, then create the manifest. A version with the very same content counts as done.

        `known` tells which contents the store has already, and where: they are copied inside it. `check` looks at the
        files once they are in the store, and raises for those that may not be committed. Raises AlreadyExists when the
        version holds something else or was deleted, Conflict when the attempt took too long.
        """
        draft, store = self._draft, self._store
        record = self._catalog.claim(draft.name)
        refuse_deleted(record, draft.version)
        if existing := read_manifest(store, draft.name, draft.version):
            local = [Sent(file.path, "", *_content(file)) for file in files]
            return _accept(store, record, existing, _with_files(draft, local))
        self._attempt.save()
        earlier = self._attempt.earlier()
        found = {(file.size, file.sha256): file.key for each in earlier for file in each.record.files}
        try:
            mine = self._send(files, found | dict(known()), check, progress)
        except (StoreError, Unavailable, KeyboardInterrupt):  # of the store, or of the place that files come from
            self._leave()
            raise
        except ModelyardError:
            self._attempt.abandon()
            raise
        # From here on the manifest may name these files, whatever the store answers; only a look at another
        # writer's manifest tells that they are garbage.
        winner = self._create(mine)
        record = self._catalog.record(draft.name)
        if winner.id == mine.id and mine.attempt not in record.void:
            self._attempt.end()
        else:
            self._attempt.abandon()
        for each in earlier:  # none of them can win any more, but one may have won
            if each.id != winner.attempt:
                discard(store, each.prefix, each.id)
        return _accept(store, record, winner, mine)

    def _send(
        self, files: Sequence[File], known: Mapping[Content, str], check: Check | None, progress: Progress
    ) -> ModelVersion:
        """The version with its files, all of them in the store."""
        attempt = self._attempt
        sent = send(self._store, files, attempt.prefix, known=known, on_sent=attempt.add, progress=progress)
        if check:
            check([ObjectFile(self._store, each.key, each.path, each.size, each.sha256) for each in sent])
        if self._now() - self._draft.created_at > GRACE / 2:
            raise Conflict(f"uploading {self._draft.name}:{self._draft.version} took too long", remedy="run it again")
        return _with_files(self._draft, sent)

    def _leave(self) -> None:
        """Keep what was sent for the next attempt, if the store still takes the record of it."""
        with suppress(StoreError):
            self._attempt.save()

    def _create(self, mine: ModelVersion) -> ModelVersion:
        """The version as it stands now: ours, or that of a faster writer."""
        failure: StoreError | None = None
        key = manifest_key(mine.name, mine.version)
        mark(self._store, key)
        try:
            if self._store.create(key, mine.to_json()):
                return mine
        except StoreError as error:  # it may have been written all the same
            failure = error
        found = read_manifest(self._store, mine.name, mine.version)
        if found is None:
            raise failure or StoreError(f"{self._store.url} lost the manifest of {mine.name}:{mine.version}")
        return found


def finish(store: Store, version: ModelVersion) -> None:
    """What follows the commit and may be repeated: the caller's metadata beside the files, for other tools."""
    key = f"models/{version.name}/{version.version}/metadata.json"
    data = to_json(version.metadata, what=key)
    try:
        if store.get(key) == data:
            return
    except NotFound:
        pass
    store.put(key, data)


def draft(
    name: str, version: Version, inspection: Inspection, *, by: str, metadata: dict[str, Any], **fields: Any
) -> ModelVersion:
    """A version before anything of it is stored. Raises InvalidInput for metadata that can't be written and read."""
    declared_signature(metadata)
    check_serving(metadata)
    new = ModelVersion(
        id=uuid.uuid4().hex[:16],
        name=name,
        version=version,
        digest=content_digest(()),
        files=(),
        created_at=datetime.now(UTC),
        created_by=by,
        model=inspection.model,
        metadata=json.loads(to_json(metadata, what="the metadata")),
        **fields,
    )
    try:
        ModelVersion.from_json(new.to_json(), where="of the draft")
    except (ValueError, IntegrityError) as error:
        raise InvalidInput("the metadata is nested too deeply to be stored", remedy="make it flatter") from error
    return new


def refuse_pickles(inspection: Inspection, trusted: str | None) -> None:
    """Raises InvalidInput for what could run code when it is loaded and nobody vouched for."""
    if not inspection.refused or (trusted and inspection.policy != "none"):
        return
    path, what = next(iter(inspection.refused.items()))
    remedy = "convert it to safetensors"
    if inspection.policy != "none":
        remedy += ", or vouch for it with --trust-pickle and a reason"
    raise InvalidInput(f"{path} holds {what}, which can run any code when it is loaded", remedy=remedy)


def _accept(store: Store, record: Record, winner: ModelVersion, mine: ModelVersion) -> ModelVersion:
    """What stands under the version, if it says the same as ours. Raises AlreadyExists and Conflict otherwise."""
    if winner.attempt in record.void:
        raise Conflict(
            f"{winner.name}:{winner.version} was created by a writer whose time was over and whose files are gone",
            remedy="register under the next version",
        )
    if not winner.same_content(mine):
        what = "content" if winner.digest != mine.digest else "metadata"
        raise AlreadyExists(
            f"{winner.name}:{winner.version} exists with other {what} ({winner.digest.short})",
            remedy="register under the next version; versions never change",
        )
    finish(store, winner)
    return winner


def refuse_deleted(record: Record, version: Version) -> None:
    """Raises AlreadyExists for a version that was deleted: its number is never used again."""
    if (why := record.deleted.get(str(version))) is not None:
        raise AlreadyExists(
            f"{record.name}:{version} was deleted ({why}), and its number is not used again",
            remedy="register under the next version",
        )


def _content(file: File) -> Content:
    return (file.size, file.sha256) if file.sha256 else digest(file.chunks())


def _with_files(version: ModelVersion, files: Sequence[Sent]) -> ModelVersion:
    artifacts = tuple(Artifact(file.path, file.key, file.size, file.sha256) for file in files)
    return replace(version, files=artifacts, digest=content_digest(artifacts))
