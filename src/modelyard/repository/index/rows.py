"""What is written into the index: versions with their facts, models with their state, and how far the index has come.

Every function works inside one transaction of `IndexFile`. Knows nothing of the store.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from modelyard.errors import IntegrityError
from modelyard.refs import Version
from modelyard.repository.catalog import Record
from modelyard.repository.index.facts import Scalar, facts_of, order_key
from modelyard.repository.manifest import ModelVersion
from modelyard.store import Entry
from modelyard.store.documents import RESTORE, problem

CURRENT, YANKED, GONE = "current", "yanked", "gone"


@dataclass(frozen=True, slots=True)
class Model:
    """A model (its lower-case name) as one entry of its journal has it."""

    model: str
    number: int
    entry: str
    record: Record


@dataclass(frozen=True, slots=True)
class Position:
    """How far the index has come.

    `anchor` is the newest mark that was seen, `horizon` where the next look must begin, `full_at` the last full sync;
    without it the index is not complete. `epoch` is another whenever everything was forgotten.
    """

    anchor: str | None = None
    horizon: datetime | None = None
    full_at: datetime | None = None
    epoch: str = ""


_record = TypeAdapter(Record)
_manifest = TypeAdapter(ModelVersion)
_AMONG = "IN (SELECT value FROM json_each(?))"


def model_of(name: str, entry: Entry) -> Model:
    """Raises IntegrityError for a state that can't be read."""
    try:
        record = _record.validate_python({"name": name} | entry.state)
    except ValidationError as error:
        raise IntegrityError(f"catalog/{name.lower()} can't be read: {problem(error)}", remedy=RESTORE) from error
    return Model(name.lower(), entry.number, entry.id, record)


def put_versions(db: sqlite3.Connection, versions: Sequence[ModelVersion]) -> None:
    """Add versions; those that are there already stay as they are."""
    facts: list[tuple[str, Scalar, int]] = []
    for version in versions:
        row = (
            *(version.name.lower(), version.name, str(version.version), order_key(version.version)),
            *(str(version.digest), version.size, version.created_at.astimezone(UTC).isoformat(), version.created_by),
            *(version.model.task, version.attempt),
        )
        added = db.execute(
            "INSERT INTO versions (model, name, version, place, digest, size, created, created_by, task, attempt)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
            row,
        ).fetchone()
        if added:
            data = zlib.compress(_manifest.dump_json(version), 1)
            db.execute("INSERT INTO manifests VALUES (?, ?)", (added[0], data))
            facts += [(path, value, added[0]) for path, value in facts_of(version)]
    _put_facts(db, facts)
    _judge(db, {version.name.lower() for version in versions})


def put_models(db: sqlite3.Connection, models: Sequence[Model]) -> None:
    """Keep what the newest entry says; an older one changes nothing."""
    for each in models:
        db.execute(
            "INSERT INTO models VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " number = excluded.number, entry = excluded.entry, record = excluded.record"
            " WHERE excluded.number > models.number",
            (each.model, each.number, each.entry, _record.dump_json(each.record)),
        )
    _judge(db, {each.model for each in models})


def remove_versions(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    wanted = (json.dumps(ids),)
    models = {row[0] for row in db.execute(f"SELECT DISTINCT model FROM versions WHERE id {_AMONG}", wanted)}
    for table in ("facts", "tags", "manifests"):
        db.execute(f"DELETE FROM {table} WHERE version {_AMONG}", wanted)
    db.execute(f"DELETE FROM versions WHERE id {_AMONG}", wanted)
    _judge(db, models)


def clear(db: sqlite3.Connection, position: Position | None = None) -> str:
    """Forget everything, as the store is not the one that it was; returns the new epoch."""
    for table in ("facts", "tags", "manifests", "versions", "models", "pending", "paths"):
        db.execute(f"DELETE FROM {table}")
    epoch = uuid.uuid4().hex
    put_position(db, replace(position or Position(), epoch=epoch))
    return epoch


def position_of(db: sqlite3.Connection) -> Position:
    values = dict(db.execute("SELECT key, value FROM meta").fetchall())
    moments = {key: datetime.fromisoformat(values[key]) for key in ("horizon", "full_at") if key in values}
    return Position(values.get("anchor"), moments.get("horizon"), moments.get("full_at"), values.get("epoch", ""))


def put_position(db: sqlite3.Connection, now: Position) -> None:
    values = {
        "anchor": now.anchor,
        "horizon": now.horizon and now.horizon.isoformat(),
        "full_at": now.full_at and now.full_at.isoformat(),
        "epoch": now.epoch,
    }
    db.execute("DELETE FROM meta")
    db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, value) for key, value in values.items() if value])


def known_versions(db: sqlite3.Connection, wanted: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of these names and versions, those that are here."""
    rows = db.execute(
        "SELECT name, version FROM json_each(?) w CROSS JOIN versions"  # which keeps this order
        " ON name = json_extract(w.value, '$[0]') AND version = json_extract(w.value, '$[1]')",
        (json.dumps([list(each) for each in wanted]),),
    )
    return {(name, version) for name, version in rows}


def entry_of(db: sqlite3.Connection, model: str) -> tuple[int, str] | None:
    """Number and id of the newest entry that is known of a model's journal."""
    row: tuple[int, str] | None = db.execute("SELECT number, entry FROM models WHERE model = ?", (model,)).fetchone()
    return row


def manifest(db: sqlite3.Connection, name: str, version: str) -> bytes | None:
    """The manifest of a version, compressed."""
    row = db.execute(
        "SELECT data FROM versions v JOIN manifests m ON m.version = v.id WHERE v.name = ? AND v.version = ?",
        (name, version),
    ).fetchone()
    return row[0] if row else None


def pending(db: sqlite3.Connection) -> list[str]:
    """Keys of objects that were announced, or listed, and could not be read yet."""
    return [row[0] for row in db.execute("SELECT key FROM pending")]


def problems(db: sqlite3.Connection) -> dict[str, str]:
    """Keys of objects that are there and can't be read, with the reason."""
    return dict(db.execute("SELECT key, problem FROM pending WHERE problem != '' ORDER BY key").fetchall())


def put_pending(db: sqlite3.Connection, keys: Mapping[str, str], *, now: datetime, patience: timedelta) -> None:
    """Key → what is wrong with the object, "" if it is not there. Those that never came are forgotten in the end."""
    db.executemany(
        "INSERT INTO pending VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET problem = excluded.problem",
        [(key, now.timestamp(), problem) for key, problem in keys.items()],
    )
    db.execute(
        "DELETE FROM pending WHERE problem = '' AND since NOT BETWEEN ? AND ?",
        ((now - patience).timestamp(), now.timestamp()),
    )


def remove_pending(db: sqlite3.Connection, keys: Iterable[str]) -> None:
    db.executemany("DELETE FROM pending WHERE key = ?", [(key,) for key in keys])


def _put_facts(db: sqlite3.Connection, facts: Iterable[tuple[str, Scalar, int]]) -> None:
    facts = list(facts)
    db.executemany("INSERT OR IGNORE INTO paths (path) VALUES (?)", {(path,) for path, _, _ in facts})
    ids = dict(db.execute("SELECT path, id FROM paths").fetchall())
    rows = ((ids[path], value, version) for path, value, version in facts)
    db.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?, ?)", rows)


def _judge(db: sqlite3.Connection, models: Iterable[str]) -> None:
    """Bring standing, `latest` and tags of these models' versions in line with their record."""
    for model in models:
        row = db.execute("SELECT record FROM models WHERE model = ?", (model,)).fetchone()
        record = _record.validate_json(row[0]) if row else Record(model)
        found = db.execute("SELECT id, version, attempt FROM versions WHERE model = ?", (model,)).fetchall()
        standings = {id_: _standing(record, version, attempt) for id_, version, attempt in found}
        releases = {
            Version.parse(version): id_ for id_, version, _ in found if standings[id_] == CURRENT and "-" not in version
        }
        latest = releases[max(releases)] if releases else None
        db.executemany(
            "UPDATE versions SET standing = ?, latest = ? WHERE id = ?",
            [(standing, id_ == latest, id_) for id_, standing in standings.items()],
        )
        tags = [(id_, tag) for id_, version, _ in found for tag in record.tagged(version)]
        db.execute("DELETE FROM tags WHERE version IN (SELECT id FROM versions WHERE model = ?)", (model,))
        db.executemany("INSERT INTO tags VALUES (?, ?)", tags)


def _standing(record: Record, version: str, attempt: str) -> str:
    if version in record.deleted or attempt in record.void:
        return GONE
    return YANKED if version in record.yanked else CURRENT
