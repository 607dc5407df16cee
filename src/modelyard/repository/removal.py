"""Deleting a version: a tombstone in the catalog first, then the files.

The manifest stays, so that the number is never used again. Deploying and deleting at once: each writes its journal
first and looks at the other one's afterwards, so at least one of them sees the other and steps back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelyard.errors import NotFound, Refused
from modelyard.repository.attempts import Attempt
from modelyard.repository.catalog import Catalog, Record
from modelyard.repository.environments import Environment
from modelyard.repository.manifest import ModelVersion
from modelyard.store import Store


def delete(
    store: Store, catalog: Catalog, environments: Mapping[str, Environment], version: ModelVersion, *, why: str
) -> None:
    """Raises Refused while the version is tagged, serves or should serve; NotFound when it is deleted already."""
    number, name = str(version.version), version.name
    refuse_deployed(environments, version)

    def bury(record: Record) -> Record:
        if number in record.deleted:
            raise NotFound(f"{name}:{number} was deleted: {record.deleted[number]}", remedy="there is nothing to do")
        refuse_tagged(record, number)
        return replace(record, deleted=record.deleted | {number: why})

    # The record of an attempt tells the garbage collector to look at these files, if we are killed in between.
    attempt = Attempt(store, version.attempt, name, version.version, version.created_by)
    attempt.save()
    catalog.change(name, bury, why=f"delete {number}: {why}")
    try:
        refuse_deployed(environments, version)
    except Refused:
        catalog.change(name, lambda record: _unbury(record, number), why=f"undo delete {number}: it is deployed")
        attempt.end()
        raise
    store.delete([found.key for found in store.objects(f"models/{name}/{number}")])
    attempt.end()


def _unbury(record: Record, number: str) -> Record:
    return replace(record, deleted={v: why for v, why in record.deleted.items() if v != number})


def refuse_tagged(record: Record, version: str) -> None:
    """Raises Refused for a version that a free tag points at."""
    for tag in record.tagged(version):
        raise Refused(
            f"{record.name}:{version} has the tag {tag!r}",
            remedy=f"move it, or remove it with `modelyard tag {record.name} {tag} --remove`",
        )


def refuse_deployed(environments: Mapping[str, Environment], version: ModelVersion) -> None:
    """Raises Refused for a version that serves or should serve."""
    for place in _deployed_in(environments.values(), version):
        raise Refused(
            f"{version.name}:{version.version} is deployed in {place}",
            remedy=f"replace it there, or stop it with `modelyard undeploy {version.name} --from {place}`",
        )


def _deployed_in(environments: Iterable[Environment], version: ModelVersion) -> list[str]:
    pins = {each.name: each.get(version.name) for each in environments}
    return [
        name
        for name, found in pins.items()
        if any(pin and pin.version == version.version for pin in (found.serving, found.target))
    ]
