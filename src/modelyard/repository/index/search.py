"""Questions to the index: names, and versions that match conditions, ordered, with their tags.

Reads what is there; whether it is up to date is for those who call.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelyard.refs import Digest, Version
from modelyard.repository.index.conditions import COLUMNS, NO_ORDER, Condition, Order, Sql, where
from modelyard.repository.index.facts import Scalar, path_of
from modelyard.repository.index.rows import CURRENT, GONE, YANKED

Deployed = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Found:
    """One version in a list. `size` in bytes; `sorted_by` is the value that the list is sorted by, if it is.

    `model` and `metadata` are there if they were asked for.
    """

    name: str
    version: Version
    digest: Digest
    task: str | None
    size: int
    created_at: datetime
    created_by: str
    tags: tuple[str, ...] = ()
    yanked: bool = False
    sorted_by: Scalar | None = None
    model: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted: every version that meets all conditions, or only each model's highest release.

    Without an order they come by name and version. Yanked versions are left out unless asked for, deleted ones always.
    """

    where: tuple[Condition, ...] = ()
    name: str | None = None
    latest: bool = False
    yanked: bool = False
    order: Order = NO_ORDER
    limit: int | None = None
    details: bool = False


def names(db: sqlite3.Connection) -> list[str]:
    """Every model with a version that is not deleted, sorted."""
    found = db.execute("SELECT DISTINCT name FROM versions WHERE standing != ? ORDER BY name", (GONE,))
    return [row[0] for row in found]


def search(db: sqlite3.Connection, query: Query, deployed: Deployed) -> list[Found]:
    """`deployed` maps the tag of each environment to name → version."""
    statement = _statement(query, deployed)
    rows = db.execute(statement.text, statement.parameters).fetchall()
    tags = _tags(db, [row[0] for row in rows])
    found = []
    for id_, name, version, digest, task, size, created, created_by, standing, latest, value, data in rows:
        mine = {*tags.get(id_, ()), *(tag for tag, pins in deployed.items() if pins.get(name) == version)}
        document = json.loads(zlib.decompress(data)) if data else {}
        found.append(
            Found(
                *(name, Version.parse(version), Digest(digest), task, size, datetime.fromisoformat(created)),
                created_by,
                tags=tuple(sorted(mine | ({"latest"} if latest else set()))),
                yanked=standing == YANKED,
                sorted_by=value,
                model={key: value for key, value in document.get("model", {}).items() if value is not None},
                metadata=document.get("metadata", {}),
            )
        )
    return found


def absent(db: sqlite3.Connection, conditions: Sequence[Condition]) -> list[str]:
    """Those paths of conditions that no version has."""
    known = {path for (path,) in db.execute("SELECT path FROM paths")} | {*COLUMNS, "tag"}
    return [each.path for each in conditions if not known.intersection((each.path, path_of(each.path)))]


def _statement(query: Query, deployed: Deployed) -> Sql:
    pins = [[tag, name, version] for tag, mine in deployed.items() for name, version in mine.items()]
    order = query.order
    tests = [where(each) for each in query.where]
    tests.append(Sql("v.standing IN (?, ?)", (CURRENT, YANKED if query.yanked else CURRENT)))
    if query.name:
        tests.append(Sql("v.name = ?", (query.name,)))
    if query.latest:
        tests.append(Sql("v.latest"))
    data = "(SELECT data FROM manifests m WHERE m.version = v.id)" if query.details else "NULL"
    text = f"""
        WITH every_tag(version, tag) AS (
            SELECT version, tag FROM tags
            UNION ALL SELECT id, 'latest' FROM versions WHERE latest
            UNION ALL SELECT d.id, json_extract(p.value, '$[0]') FROM json_each(?) p CROSS JOIN versions d
                ON d.name = json_extract(p.value, '$[1]') AND d.version = json_extract(p.value, '$[2]')
        ),
        matching(id) AS MATERIALIZED (
            SELECT v.id FROM versions v WHERE {" AND ".join(test.text for test in tests)}
        )
        SELECT v.id, v.name, v.version, v.digest, v.task, v.size, v.created, v.created_by, v.standing, v.latest,
            {order.value}, {data}
        FROM matching CROSS JOIN versions v ON v.id = matching.id {order.join.text}
        ORDER BY {order.clause}v.name, v.place
        LIMIT ?
    """
    limit = -1 if query.limit is None else query.limit
    parameters = (parameter for test in tests for parameter in test.parameters)
    return Sql(text, (json.dumps(pins), *parameters, *order.join.parameters, limit))


def _tags(db: sqlite3.Connection, ids: Sequence[int]) -> dict[int, list[str]]:
    """The free tags of these versions."""
    found: dict[int, list[str]] = {}
    for version, tag in db.execute(
        "SELECT version, tag FROM tags WHERE version IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
    ):
        found.setdefault(version, []).append(tag)
    return found
