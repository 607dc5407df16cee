"""The catalog: one journal for each model, with its spelling, its free tags, and what was taken back of it.

Two names may not differ by case alone, so the journal lies under the lower-case name and keeps the spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelyard.errors import AlreadyExists, IntegrityError, NotFound, Refused
from modelyard.refs import ModelRef, parse_free_tag
from modelyard.repository.changes import mark
from modelyard.store import Entry, Journal, Store
from modelyard.store.documents import RESTORE, problem

_State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """What a model's journal holds.

    `tags` maps each free tag to `version@digest`; `yanked` and `deleted` map versions to the reason. `void` maps
    attempts to register whose files were collected as garbage to their versions: a manifest that such an attempt
    creates all the same, long after its time, counts for nothing.
    """

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    yanked: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)

    def tagged(self, version: str) -> list[str]:
        """The free tags that point at a version."""
        return sorted(tag for tag, value in self.tags.items() if value.partition("@")[0] == version)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a model's history, with the free tags after it."""

    number: int
    at: str
    by: str
    why: str
    tags: dict[str, str]


_record = TypeAdapter(Record)


class Catalog:
    """The journals below `catalog/`."""

    def __init__(self, store: Store, *, by: str) -> None:
        self._store = store
        self._by = by

    def record(self, name: str) -> Record:
        """What is known of a model now; an empty record for one that is unknown in this spelling."""
        return self.look(name)[0]

    def look(self, name: str) -> tuple[Record, Entry | None]:
        """The record, and the entry of the journal that it was read from."""
        entry = self._journal(name).read()
        found = self._parse(entry.state, name) if entry else None
        return (found, entry) if found and found.name == name else (Record(name), None)

    def claim(self, name: str) -> Record:
        """Fix a name's spelling at its first registration. Raises AlreadyExists for another spelling."""

        def decide(state: _State) -> _State | None:
            if not state:
                return {"name": name, "tags": {}}
            spelling = self._parse(state, name).name
            if spelling != name:
                raise AlreadyExists(
                    f"{name!r} differs from the model {spelling!r} by case alone",
                    remedy=f"write {spelling!r} or choose another name",
                )
            return None

        entry = self._journal(name).update(decide, by=self._by, why=f"{name} is a new model")
        return self._parse(entry.state, name) if entry else Record(name)

    def change(self, name: str, decide: Callable[[Record], Record], *, why: str) -> Record:
        """Change a model's record; `decide` sees the newest one, and may raise."""

        def whole(state: _State) -> _State:
            new = asdict(decide(self._parse(state, name)))
            return state | {"name": name} | {key: value for key, value in new.items() if value or key in state}

        entry = self._journal(name).update(whole, by=self._by, why=why)
        return self._parse(entry.state, name) if entry else Record(name)

    def tag(self, ref: ModelRef, tag: str, *, why: str) -> None:
        """Point a free tag at an exact version. Raises Refused for computed tags, and for yanked versions."""
        parse_free_tag(tag)

        def decide(record: Record) -> Record:
            version = str(ref.version)
            if version in record.deleted:
                raise NotFound(f"{ref.name}:{version} was deleted in between", remedy="choose another version")
            if version in record.yanked and tag not in record.tagged(version):
                raise Refused(
                    f"{ref.name}:{version} is yanked: {record.yanked[version]}", remedy="choose another version"
                )
            return replace(record, tags=record.tags | {tag: f"{version}@{ref.digest}"})

        self.change(ref.name, decide, why=why)

    def untag(self, name: str, tag: str, *, why: str) -> None:
        """Remove a free tag. Raises NotFound when there is none."""
        parse_free_tag(tag)

        def decide(record: Record) -> Record:
            if tag not in record.tags:
                raise NotFound(f"{name} has no tag {tag!r}", remedy=f"see `modelyard ls {name}`")
            return replace(record, tags=_without(record.tags, tag))

        self.change(name, decide, why=why)

    def undo_tag(self, name: str, tag: str, *, why: str) -> str | None:
        """Point a tag at what it meant before its last change; None if it did not exist then."""
        parse_free_tag(tag)
        history = self.history(name)
        now = history[-1].tags.get(tag) if history else None
        if not any(tag in change.tags for change in history):
            raise NotFound(f"{name} never had the tag {tag!r}", remedy=f"see `modelyard history {name}`")
        earlier = next((c.tags.get(tag) for c in reversed(history) if c.tags.get(tag) != now), None)

        def undone(record: Record) -> Record:
            if record.tags.get(tag) != now:
                raise Refused(f"the tag {tag!r} of {name} was moved in between", remedy="look again, then undo")
            version = earlier.partition("@")[0] if earlier else ""
            if version in record.deleted:
                raise Refused(f"{name}:{version}, which {tag!r} meant before, was deleted", remedy="set the tag anew")
            others = _without(record.tags, tag)
            return replace(record, tags=others | {tag: earlier} if earlier else others)

        self.change(name, undone, why=why)
        return earlier

    def history(self, name: str) -> list[Change]:
        """Every change, oldest first."""
        entries = self._journal(name).history()
        return [Change(e.number, e.at, e.by, e.why, self._parse(e.state, name).tags) for e in entries]

    def _journal(self, name: str) -> Journal:
        return Journal(self._store, f"catalog/{name.lower()}", announce=partial(mark, self._store))

    @staticmethod
    def _parse(state: _State, name: str) -> Record:
        try:
            return _record.validate_python({"name": name} | state)
        except ValidationError as error:
            raise IntegrityError(f"catalog/{name.lower()} can't be read: {problem(error)}", remedy=RESTORE) from error


def _without(values: Mapping[str, str], key: str) -> dict[str, str]:
    return {k: v for k, v in values.items() if k != key}
