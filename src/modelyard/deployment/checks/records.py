"""Checks of what is recorded of a version: its scan, its signatures, its licence. None of them asks the model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from modelyard.deployment.checks.base import Failed, Planned
from modelyard.deployment.checks.subject import Subject
from modelyard.deployment.suite import Suite
from modelyard.errors import Refused


def scanned(suite: Suite, subject: Subject) -> Iterator[Planned]:
    if suite.scanned:
        yield Planned("scanned", "the newest scan of its files", partial(_scanned, subject))


def signed(suite: Suite, subject: Subject) -> Iterator[Planned]:
    if suite.signed:
        yield Planned("signed", "a signature of a key that is trusted here", partial(_signed, subject))


def licensed(suite: Suite, subject: Subject) -> Iterator[Planned]:
    if suite.licenses:
        yield Planned("license", f"one of {', '.join(suite.licenses)}", partial(_licensed, suite, subject))


def _scanned(subject: Subject) -> str:
    found = subject.known.scan()
    name = f"{subject.version.name}:{subject.version.version}"
    if found is None or found.digest != str(subject.version.digest):
        raise Failed(f"its files were never scanned; run `modelyard scan {name}`")
    if not found.passed:
        raise Failed("; ".join(f"{c['name']} {c['detail']}" for c in found.checks if not c["passed"]))
    return f"{found.suite}, {found.at[:10]} by {found.by}"


def _signed(subject: Subject) -> str:
    try:
        return subject.known.verify()
    except Refused as refused:
        raise Failed(refused.message) from refused


def _licensed(suite: Suite, subject: Subject) -> str:
    found, allowed = subject.version.model.license, ", ".join(suite.licenses)
    if found is None:
        raise Failed(f"its files name no licence; allowed are {allowed}")
    if found.lower() not in {each.lower() for each in suite.licenses}:
        raise Failed(f"{found} is not allowed; allowed are {allowed}")
    return found
