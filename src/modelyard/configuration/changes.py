"""What differs between two states of a section, and what undoing makes of a history. Pure: reads and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

State = dict[str, Any]


class _Absent:
    def __repr__(self) -> str:
        return "not set"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Change:
    """One key that was changed; a value that is not there is ABSENT."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {_text(self.before)} → {_text(self.after)}"


def changes(before: State, after: State) -> list[Change]:
    """The keys whose values differ, in order."""
    pairs = ((key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in sorted({*before, *after}))
    return [Change(key, old, new) for key, old, new in pairs if _text(old) != _text(new)]


def previous(states: Sequence[State], key: str | None) -> State | None:
    """The newest state with its last change taken back: one key's, or all that the last entry changed.

    A change that undid another is itself one, so undoing twice brings back what was there. None if nothing was ever
    changed.
    """
    if not states:
        return None
    now, earlier = states[-1], [{}, *states[:-1]]
    if key is None:
        return earlier[-1]
    value = now.get(key, ABSENT)
    before = next((s.get(key, ABSENT) for s in reversed(earlier) if _text(s.get(key, ABSENT)) != _text(value)), None)
    if before is None and not any(key in state for state in states):
        return None
    others = {name: each for name, each in now.items() if name != key}
    return others if before is ABSENT else others | {key: before}


def _text(value: Any) -> str:
    """For people, and for comparing: in Python 1 == True, in JSON they differ."""
    return "not set" if value is ABSENT else json.dumps(value, ensure_ascii=False, sort_keys=True)
