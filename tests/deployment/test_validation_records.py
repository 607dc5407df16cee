"""Checks of what is recorded of a version, and checks of the team's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.deployment.checks.base import Check
from modelyard.deployment.checks.subject import Known
from modelyard.deployment.suite import Suite, parse_suite
from modelyard.errors import InvalidInput, ModelyardError, NotFound, Refused
from modelyard.repository import Evidence

from .bench import VERSION, Bench

SCAN = Evidence(True, str(VERSION.digest), "pickles: allow-listed", {}, at="2026-03-01T10:00:00", by="ci")
FOUND = [{"name": "model.pkl", "passed": False, "detail": "holds os.system"}]
SCANS: dict[str, tuple[Evidence | None, bool, str]] = {
    "clean": (SCAN, True, "pickles: allow-listed, 2026-03-01 by ci"),
    "none": (None, False, "its files were never scanned; run `modelyard scan digit:v1.1.0`"),
    "of other bytes": (replace(SCAN, digest="sha256:0"), False, "its files were never scanned; run"),
    "found something": (replace(SCAN, passed=False, checks=FOUND), False, "model.pkl holds os.system"),
}


@pytest.mark.parametrize("case", SCANS)
def test_a_scan(bench: Bench, case: str) -> None:
    scan, passed, text = SCANS[case]
    check = bench.run(Suite(scanned=True), known=Known(scan=lambda: scan))["scanned"]
    assert check.passed == passed
    assert check.detail.startswith(text)


def test_a_signature(bench: Bench) -> None:
    def refuse() -> str:
        raise Refused("digit:v1.1.0 has no signature that counts: it is not signed", remedy="sign it")

    check = bench.run(Suite(signed=True), known=Known(verify=lambda: "signed with a key"))["signed"]
    assert check == Check("signed", True, "signed with a key")
    check = bench.run(Suite(signed=True), known=Known(verify=refuse))["signed"]
    assert check == Check("signed", False, "digit:v1.1.0 has no signature that counts: it is not signed")


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("MIT", Check("license", True, "MIT")),
        ("gpl-3.0", Check("license", False, "gpl-3.0 is not allowed; allowed are mit, apache-2.0")),
        (None, Check("license", False, "its files name no licence; allowed are mit, apache-2.0")),
    ],
)
def test_a_license(bench: Bench, license: str | None, expected: Check) -> None:
    bench.version = replace(VERSION, model=replace(VERSION.model, license=license))
    assert bench.run(Suite(licenses=("mit", "apache-2.0")))["license"] == expected


def test_what_is_recorded_is_looked_at_without_an_answer(bench: Bench) -> None:
    bench.staged.answer = lambda request: (500, {"error": "out of memory"})
    checks = bench.run(Suite(licenses=("mit",), scanned=True))
    assert list(checks) == ["scanned", "license", "answers"]


CHECKS = """
from modelyard.deployment import StagedModel


def doubles(model: StagedModel) -> str:
    answer = model.ask({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]})
    assert answer["outputs"][0]["data"] == [2.0, 4.0], f"{model.name}:{model.version} does not double"
    return "it doubles"


def silent(model):
    assert model.metadata


def broken(model):
    return {}["key"]


def leaves(model):
    raise SystemExit(0)


def mute(model):
    return None


def asks_nonsense(model):
    model.ask({"inputs": []})
    return "never"
"""


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Suite]:
    (tmp_path / "checks.py").write_text(CHECKS)

    def make(function: str) -> Suite:
        document = {"custom": [{"check": f"checks.py:{function}"}]}
        return parse_suite(document, "suite.yaml", lambda name, _: tmp_path / name)

    return make


ANY = Known(trusted=None)


def test_a_check_of_the_teams_own(bench: Bench, own: Callable[..., Suite]) -> None:
    check = bench.run(own("doubles"), known=ANY)["doubles"]
    assert check == Check("doubles", False, "digit:v1.1.0 does not double")
    bench.staged.factor = 2
    assert bench.run(own("doubles"), known=ANY)["doubles"] == Check("doubles", True, "it doubles")


def test_an_assertion_without_words(bench: Bench, own: Callable[..., Suite]) -> None:
    assert bench.run(own("silent"), known=ANY)["silent"].detail == "the assertion in it does not hold"


def test_an_error_of_the_model_fails_the_check(bench: Bench, own: Callable[..., Suite]) -> None:
    plain = bench.staged.infer

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        if not request["inputs"]:
            return 400, {"error": "no inputs"}
        bench.staged.answer = None
        try:
            return plain(request)
        finally:
            bench.staged.answer = answer

    bench.staged.answer = answer
    assert bench.run(own("asks_nonsense"), known=ANY)["asks_nonsense"].detail == "400: no inputs"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("broken", r"^checks\.py:broken failed: KeyError: 'key'; mend the check$"),
        ("absent", r"^checks\.py:absent failed: AttributeError: .*absent"),
        ("leaves", r"^checks\.py:leaves failed: SystemExit: 0; mend the check$"),
        ("mute", r"^checks\.py:mute returned None; return a line"),
    ],
)
def test_a_broken_check_is_nobodys_failure(bench: Bench, own: Callable[..., Suite], function: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        bench.run(own(function), known=ANY)


def test_its_code_runs_only_where_it_is_trusted(bench: Bench, own: Callable[..., Suite]) -> None:
    suite = own("doubles")
    digest = suite.custom[0].digest
    assert digest
    for trusted in ((), ("another-model",), ("sha256:" + "0" * 64,)):
        with pytest.raises(
            Refused, match=rf"checks\.py:doubles is Python code, .* add {digest} to serving\.trust_code"
        ):
            bench.run(suite, known=Known(trusted=trusted))
    assert bench.staged.asked == 0
    for entry in (digest, "digit", "digit:v1.1.0", str(VERSION.digest)):
        assert "doubles" in bench.run(suite, known=Known(trusted=(entry,)))


def test_code_that_is_changed_meanwhile_does_not_run(bench: Bench, own: Callable[..., Suite], tmp_path: Path) -> None:
    suite = own("doubles")
    (tmp_path / "checks.py").write_text("raise SystemExit(1)")
    with pytest.raises(InvalidInput, match="was changed meanwhile"):
        bench.run(suite, known=ANY)


def test_the_digest_of_a_suite_speaks_of_its_code(own: Callable[..., Suite], tmp_path: Path) -> None:
    before = own("doubles").digest
    assert own("silent").digest != before
    (tmp_path / "checks.py").write_text(CHECKS + "\n# another line\n")
    assert own("doubles").digest != before


@pytest.mark.parametrize(
    ("entry", "error", "text"),
    [
        ({"check": "nowhere.py:f"}, NotFound, "suite.yaml: custom: nowhere.py can't be read: No such file"),
        ({"check": "checks.py"}, InvalidInput, "suite.yaml: custom.0.check: it must match the pattern"),
        ({"check": "checks.py:f", "digest": "sha256:" + "0" * 64}, InvalidInput, "is sha256:.*, not sha256:000"),
    ],
)
def test_an_entry_that_can_not_be_used(
    own: Callable[..., Suite], tmp_path: Path, entry: Any, error: type[ModelyardError], text: str
) -> None:
    def locate(name: str, _: str | None) -> Path:
        return tmp_path / name if name == "checks.py" else Path(name)

    with pytest.raises(error, match=text):
        parse_suite({"custom": [entry]}, "suite.yaml", locate)
