"""Validation: ask a staged version what its suite demands, through the gateway, and say what came out.

Knows how a run goes; what each check looks at is in `checks`, where evidence is kept and what it permits in `gate`.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from modelyard.deployment.checks import ASKED, RECORDED, Plan
from modelyard.deployment.checks.base import Check, Failed, Planned
from modelyard.deployment.checks.subject import Known, Production, Subject
from modelyard.deployment.client import ModelClient
from modelyard.deployment.suite import Suite
from modelyard.repository import ModelVersion

__all__ = ["Check", "Report", "Validation"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a validation run found; falsy when any check failed. `origin` says where the suite comes from, `at` when it
    ran."""

    ref: str
    suite: str
    suite_digest: str
    engine: dict[str, str]
    checks: tuple[Check, ...]
    origin: str = ""
    at: str = ""

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> str:
        """The failed checks in one line."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": bool(self)}


class Validation:
    """One run of a suite against a staged version; `production` is what serves today, if anything does."""

    def __init__(
        self,
        version: ModelVersion,
        suite: Suite,
        staged: ModelClient,
        production: Production | None = None,
        known: Known | None = None,
    ) -> None:
        self._suite = suite
        self._subject = Subject(version, staged, production, known or Known())

    def plan(self) -> tuple[Planned, ...]:
        """What `run` would look at, in its order. Reads the suite's data and asks nobody.

        Raises what is the suite's fault: NotFound and InvalidInput for its data, Refused for code that is not trusted.
        """
        return (*self._planned(RECORDED), *self._planned(ASKED))

    def run(self) -> tuple[Check, ...]:
        """Every check; without an answer those that ask would say nothing new.

        Raises what `plan` does and what says nothing about the version: Unavailable for the gateway, Conflict when
        another version took its place meanwhile.
        """
        recorded, (first, *others) = self._planned(RECORDED), self._planned(ASKED)
        checks = [*map(_done, recorded), _done(first)]
        if checks[-1].passed:
            checks += map(_done, others)
        return tuple(checks)

    def _planned(self, kinds: dict[str, Plan]) -> list[Planned]:
        """Of several checks with one name, those after the first are numbered."""
        seen: Counter[str] = Counter()
        found = []
        for planned in (each for plan in kinds.values() for each in plan(self._suite, self._subject)):
            seen[planned.name] += 1
            number = seen[planned.name]
            found.append(replace(planned, name=f"{planned.name} {number}") if number > 1 else planned)
        return found


def _done(planned: Planned) -> Check:
    began = time.perf_counter()
    try:
        detail, passed = planned.run(), True
    except Failed as failed:
        detail, passed = str(failed), False
    return Check(planned.name, passed, detail, time.perf_counter() - began)
