"""Evidence of kind `scan`: what inspection found in a version's files, kept with who looked and by which policy.

Knows what an inspection says, not how it was made.
"""

from __future__ import annotations

from importlib.metadata import version as release
from typing import Any

from modelyard.repository.evidence import Evidence, EvidenceJournal
from modelyard.repository.manifest import Inspection, ModelVersion
from modelyard.store import Store
from modelyard.store.files import File
from modelyard.store.objects import ObjectFile

KIND = "scan"
_KEY = "files"


def scan_evidence(version: ModelVersion, inspection: Inspection) -> Evidence:
    """One check for each file that something was found in; those nobody objects to, or vouched for, have passed."""
    trusted = version.trusted_pickle if inspection.policy != "none" else None
    checks = [_check(path, f"holds {what}", trusted) for path, what in inspection.refused.items()]
    harmless = {path: f"a pickle ({why})" for path, why in inspection.pickles.items() if path not in inspection.refused}
    checks += [{"name": path, "passed": True, "detail": what} for path, what in (harmless | inspection.notes).items()]
    return Evidence(
        passed=all(check["passed"] for check in checks),
        digest=str(version.digest),
        suite=f"pickles: {inspection.policy}",
        engine={"modelyard": release("modelyard"), **inspection.scanners},
        checks=sorted(checks, key=lambda check: str(check["name"])),
    )


def keep_scan(store: Store, version: ModelVersion, inspection: Inspection, *, by: str) -> Evidence:
    """Append the evidence to the version's journal; the newest entry counts."""
    evidence = scan_evidence(version, inspection)
    EvidenceJournal(store, KIND).add(version.ref, _KEY, evidence, by=by)
    return evidence


def ensure_scan(store: Store, version: ModelVersion, inspection: Inspection, *, by: str) -> None:
    """Keep the evidence, unless there is some: registering again what is there already is no new finding."""
    if not EvidenceJournal(store, KIND).newest(version.ref):
        keep_scan(store, version, inspection, by=by)


def stored_files(store: Store, version: ModelVersion) -> list[File]:
    """A version's files where they lie, read by ranges: only what is looked at is fetched."""
    return [ObjectFile(store, file.key, file.path, file.size, file.sha256) for file in version.files]


def _check(path: str, what: str, trusted: str | None) -> dict[str, Any]:
    vouched = f"; vouched for: {trusted}" if trusted else ""
    return {"name": path, "passed": trusted is not None, "detail": what + vouched}
