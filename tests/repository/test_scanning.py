"""What inspection found becomes evidence, bound to the version and kept in its journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import InvalidInput
from modelyard.repository import EvidenceJournal, Inspection, ModelRepository
from modelyard.repository.scanning import keep_scan, scan_evidence, stored_files
from modelyard.store import Memory, Store

BAD = {"bad.pkl": "a pickle (protocol 2; it asks for os.system)"}
FOUND = Inspection(
    pickles={"bad.pkl": "pickle, protocol 2", "ok.bin": "pickle, protocol 2, in a/data.pkl"},
    refused=BAD,
    notes={"model.py": "Python code"},
    scanners={"fickling": "0.1.12"},
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ok.bin").write_bytes(b"weights")
    return tmp_path / "model"


def test_what_was_found_and_who_looked(open_repository: Callable[..., ModelRepository], model: Path) -> None:
    version = open_repository(Memory()).register_model("m", "v1.0.0", model)
    evidence = scan_evidence(version, FOUND)
    assert (evidence.passed, evidence.digest, evidence.suite) == (False, str(version.digest), "pickles: allow-listed")
    assert list(evidence.engine) == ["modelyard", "fickling"]
    assert evidence.checks == [
        {"name": "bad.pkl", "passed": False, "detail": "holds a pickle (protocol 2; it asks for os.system)"},
        {"name": "model.py", "passed": True, "detail": "Python code"},
        {"name": "ok.bin", "passed": True, "detail": "a pickle (pickle, protocol 2, in a/data.pkl)"},
    ]
    assert scan_evidence(version, Inspection()).passed


def test_what_somebody_vouched_for_has_passed_and_says_so(
    open_repository: Callable[..., ModelRepository], model: Path
) -> None:
    repository = open_repository(Memory(), inspect=lambda files: FOUND)
    version = repository.register_model("m", "v1.0.0", model, trust_pickle="trained here")
    evidence = scan_evidence(version, FOUND)
    assert evidence.passed
    assert evidence.checks[0]["detail"].endswith("os.system); vouched for: trained here")


def test_it_is_kept_and_the_newest_counts(store: Store, open_repository: Callable[..., ModelRepository]) -> None:
    repository = open_repository(store)
    path = Path(__file__)
    version = repository.register_model("m", "v1.0.0", path)
    for found in (Inspection(), FOUND):
        keep_scan(store, version, found, by="tester")
        newest = EvidenceJournal(store, "scan").newest(version.ref)
        assert {key: each.passed for key, each in newest.items()} == {"files": found is not FOUND}
    (file,) = stored_files(store, version)
    with file.open() as stream:
        assert stream.read(10) == path.read_bytes()[:10]


def test_where_no_pickles_are_taken_nobody_can_vouch(
    open_repository: Callable[..., ModelRepository], model: Path
) -> None:
    found = Inspection(refused=BAD, policy="none")
    repository = open_repository(Memory(), inspect=lambda files: found)
    with pytest.raises(InvalidInput, match=r"bad\.pkl holds a pickle .*convert it to safetensors$"):
        repository.register_model("m", "v1.0.0", model, trust_pickle="trained here")
    assert repository.list_models() == []
