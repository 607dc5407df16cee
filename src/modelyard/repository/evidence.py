"""Evidence: what was found out about a version, bound to its digest, the suite and the engine that was asked.

One journal for each version, kind and key; its newest entry counts, so a later failure revokes a pass.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelyard.errors import IntegrityError, InvalidInput
from modelyard.refs import ModelRef
from modelyard.store import Journal, Store
from modelyard.store.documents import RESTORE, problem


@dataclass(frozen=True, slots=True)
class Evidence:
    """One result. `engine` names the engine, its version, the precision and the class of device; `against` the digest
    of what the version was compared with, `nothing` if there was nothing, and empty if it was not to be."""

    passed: bool
    digest: str
    suite: str
    engine: dict[str, str]
    checks: list[dict[str, Any]] = field(default_factory=list)
    at: str = ""
    by: str = ""
    against: str = ""


_evidence = TypeAdapter(Evidence)


class EvidenceJournal:
    """The evidence of one kind (`validation`, `profile`, …) below `evidence/`."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind

    def add(self, ref: ModelRef, key: str, evidence: Evidence, *, by: str) -> None:
        """Append a result; `key` names the suite and the engine, without '/', or `newest` would not find it."""
        if "/" in key:
            raise InvalidInput(f"{key!r} can't be the key of evidence", remedy="leave out the '/'")
        state = {k: v for k, v in asdict(evidence).items() if k not in ("at", "by")}
        why = f"{self._kind} {'passed' if evidence.passed else 'failed'}"
        # A result is an event: the same outcome twice is two entries.
        self._journal(ref, key).update(lambda old: state | {"run": old.get("run", 0) + 1}, by=by, why=why)

    def newest(self, ref: ModelRef) -> dict[str, Evidence]:
        """Key → newest result for the version."""
        keys = self._store.list_directories(self._folder(ref))
        found = {}
        for key in keys:
            entry = self._journal(ref, key).read()
            if entry is None:
                continue
            try:
                found[key] = _evidence.validate_python(entry.state | {"at": entry.at, "by": entry.by})
            except ValidationError as error:
                raise IntegrityError(
                    f"the evidence {self._folder(ref)}/{key} can't be read: {problem(error)}", remedy=RESTORE
                ) from error
        return found

    def _folder(self, ref: ModelRef) -> str:
        return f"evidence/{ref.name}/{ref.version}/{self._kind}"

    def _journal(self, ref: ModelRef, key: str) -> Journal:
        return Journal(self._store, f"{self._folder(ref)}/{key}")
