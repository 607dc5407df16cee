"""Reports as files. The JUnit is read as the schema of Ant's reports has it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from modelyard.deployment import Check, Report, reports
from modelyard.errors import InvalidInput

ENGINE = {"engine": "pytorch", "version": "torch 2.13.0", "precision": "fp32", "device": "cpu"}
REPORT = Report(
    "digit:v1.1.0@sha256:ab",
    "wines",
    "sha256:cd",
    ENGINE,
    (
        Check("answers", True, "answered in 3 ms", 0.003),
        Check("golden 1", False, "the answer <is> \x1b[31m\x00 | 'a' & \"b\"", 1.25),
    ),
    origin="validation.digit of the configuration",
    at="2026-03-01T10:00:00+00:00",
)

# element → its attributes and the elements in it, in this order; those of a test case may be missing
SCHEMA: dict[str, tuple[list[str], list[str]]] = {
    "testsuites": ([], ["testsuite"]),
    "testsuite": (
        ["name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "skipped", "time"],
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": ([], ["property"]),
    "property": (["name", "value"], []),
    "testcase": (["name", "classname", "time"], ["failure"]),
    "failure": (["message", "type"], []),
    "system-out": ([], []),
    "system-err": ([], []),
}
VALUES = {
    "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
    "time": r"\d+\.\d{3}",
    **dict.fromkeys(("tests", "failures", "errors", "skipped", "id"), r"\d+"),
    **dict.fromkeys(("name", "classname", "hostname", "type", "package"), r".+"),
}


def check_schema(element: ElementTree.Element) -> None:
    attributes, children = SCHEMA[element.tag]
    assert sorted(element.attrib) == sorted(attributes), element.tag
    for name, value in element.attrib.items():
        assert re.fullmatch(VALUES.get(name, r"(?s).*"), value), (element.tag, name, value)
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order), element.tag
    assert element.tag == "testcase" or set(order) == set(range(len(children))), element.tag
    for child in element:
        check_schema(child)


def test_junit() -> None:
    root = ElementTree.fromstring(reports.junit(REPORT))
    check_schema(root)
    (suite,) = root
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("wines", "2", "1")
    assert (suite.get("time"), suite.get("timestamp")) == ("1.253", "2026-03-01T10:00:00")
    facts = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert facts["ref"] == REPORT.ref and facts["engine.version"] == "torch 2.13.0"
    good, bad = suite.findall("testcase")
    assert (good.get("classname"), good.get("name"), good.find("failure")) == ("digit:v1.1.0", "answers", None)
    assert suite.findtext("system-out") == "answers: answered in 3 ms"
    failure = bad.find("failure")
    assert failure is not None and failure.text == "the answer <is> �[31m� | 'a' & \"b\""


def test_markdown() -> None:
    text = reports.markdown(REPORT)
    assert text.startswith("# digit:v1.1.0 did not pass the suite wines\n")
    assert "- suite: `sha256:cd` (validation.digit of the configuration)\n" in text
    assert "| answers | passed | 0.00 | answered in 3 ms |\n" in text
    row = text.splitlines()[-1]
    assert row.startswith("| golden 1 | **failed** | 1.25 | the answer &lt;is> ")
    assert len(re.findall(r"(?<!\\)\|", row)) == 5  # no cell ends early


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.xml"
    reports.write(path, "old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InvalidInput, match=r"report\.xml can't be written: No space left on device"):
        reports.write(path, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["report.xml"]
    assert path.read_text() == "old"
