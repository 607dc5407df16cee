"""The catalog: one journal for each model, with its spelling, its free tags, and who changed them.

Two names may not differ by case alone, so the journal lies under the lower-case name and keeps the spelling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelyard.errors import AlreadyExists, IntegrityError, NotFound, Refused
from modelyard.refs import ModelRef, parse_free_tag
from modelyard.store import Journal, Store
from modelyard.store.documents import RESTORE, problem

_State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a model's history; `tags` maps each free tag to `version@digest` after the change."""

    number: int
    at: str
    by: str
    why: str
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Record:
    """What a model's journal holds."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)


_record = TypeAdapter(_Record)


class Catalog:
    """The journals below `catalog/`."""

    def __init__(self, store: Store, *, by: str) -> None:
        self._store = store
        self._by = by

    def claim(self, name: str) -> None:
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

        self._journal(name).update(decide, by=self._by, why="named")

    def tags(self, name: str) -> dict[str, str]:
        """Free tag → `version@digest`."""
        entry = self._journal(name).read()
        record = self._parse(entry.state, name) if entry else None
        return record.tags if record and record.name == name else {}

    def tag(self, ref: ModelRef, tag: str, *, why: str) -> None:
        """Point a free tag at an exact version. Raises Refused for computed tags."""
        self._change(ref.name, tag, lambda _: f"{ref.version}@{ref.digest}", why=why)

    def undo_tag(self, name: str, tag: str, *, why: str) -> str | None:
        """Point a tag at what it meant before its last change; None if it did not exist then."""
        parse_free_tag(tag)
        history = self.history(name)
        now = history[-1].tags.get(tag) if history else None
        if not any(tag in change.tags for change in history):
            raise NotFound(f"{name} never had the tag {tag!r}", remedy=f"see `modelyard history {name}`")
        earlier = next((c.tags.get(tag) for c in reversed(history) if c.tags.get(tag) != now), None)

        def undone(current: str | None) -> str | None:
            if current != now:
                raise Refused(f"the tag {tag!r} of {name} was moved in between", remedy="look again, then undo")
            return earlier

        self._change(name, tag, undone, why=why)
        return earlier

    def history(self, name: str) -> list[Change]:
        """Every change, oldest first."""
        entries = self._journal(name).history()
        return [Change(e.number, e.at, e.by, e.why, self._parse(e.state, name).tags) for e in entries]

    def _change(self, name: str, tag: str, new: Callable[[str | None], str | None], *, why: str) -> None:
        parse_free_tag(tag)

        def decide(state: _State) -> _State:
            tags = dict(self._parse(state, name).tags)
            value = new(tags.pop(tag, None))
            return state | {"name": name, "tags": tags | ({tag: value} if value else {})}

        self._journal(name).update(decide, by=self._by, why=why)

    def _journal(self, name: str) -> Journal:
        return Journal(self._store, f"catalog/{name.lower()}")

    @staticmethod
    def _parse(state: _State, name: str) -> _Record:
        try:
            return _record.validate_python({"name": name} | state)
        except ValidationError as error:
            raise IntegrityError(f"catalog/{name.lower()} can't be read: {problem(error)}", remedy=RESTORE) from error
