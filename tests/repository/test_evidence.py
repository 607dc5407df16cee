"""Evidence: the newest result of each suite and engine counts."""

from __future__ import annotations

import pytest

from modelyard.errors import IntegrityError, InvalidInput
from modelyard.refs import ModelRef
from modelyard.repository import Evidence, EvidenceJournal
from modelyard.store import Memory, Store

REF = ModelRef.parse("ns/digits:v1.0.0")
ENGINE = {"name": "pytorch", "version": "2.13", "precision": "fp32", "device": "cpu"}


def result(passed: bool) -> Evidence:
    return Evidence(passed, f"sha256:{'0' * 64}", "suite-1", ENGINE, [{"name": "accuracy", "value": 0.9}])


def test_nothing_is_known_at_first(store: Store) -> None:
    assert EvidenceJournal(store, "validation").newest(REF) == {}


def test_a_later_failure_revokes_a_pass(store: Store) -> None:
    journal = EvidenceJournal(store, "validation")
    for passed in (True, True, False):
        journal.add(REF, "suite-1", result(passed), by="tester")
        newest = journal.newest(REF)
        assert set(newest) == {"suite-1"}
        assert newest["suite-1"].passed is passed
    found = newest["suite-1"]
    assert (found.by, found.engine, found.checks) == ("tester", ENGINE, [{"name": "accuracy", "value": 0.9}])
    assert found.at > "2026"
    journal.add(REF, "suite-1", result(True), by="tester")
    assert journal.newest(REF)["suite-1"].passed is True


def test_the_same_result_twice_is_two_entries(requests: list[tuple[str, str]]) -> None:
    journal = EvidenceJournal(Memory(), "validation")
    for _ in range(3):
        journal.add(REF, "suite-1", result(True), by="tester")
    assert len({key for operation, key in requests if operation == "create"}) == 3


def test_kinds_keys_and_versions_do_not_mix(store: Store) -> None:
    journal = EvidenceJournal(store, "validation")
    journal.add(REF, "suite-1", result(True), by="tester")
    journal.add(REF, "suite-2", result(False), by="tester")
    EvidenceJournal(store, "profile").add(REF, "suite-3", result(True), by="tester")
    journal.add(ModelRef.parse("ns/digits:v1.0.1"), "suite-4", result(True), by="tester")
    assert {key: found.passed for key, found in journal.newest(REF).items()} == {"suite-1": True, "suite-2": False}


def test_a_key_that_would_be_lost_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'a/b' can't be the key of evidence"):
        EvidenceJournal(Memory(), "validation").add(REF, "a/b", result(False), by="tester")


def test_evidence_nobody_can_read_is_named() -> None:
    store = Memory()
    entry = {"number": 1, "id": "x", "at": "", "by": "", "why": "", "state": {"strange": True}}
    store.put_json(entry, "evidence/ns/digits/v1.0.0/validation/suite-1/999999999998.json")
    with pytest.raises(IntegrityError, match=r"evidence/ns/digits/v1\.0\.0/validation/suite-1 can't be read"):
        EvidenceJournal(store, "validation").newest(REF)
