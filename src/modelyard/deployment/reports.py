"""Validation reports as files: JUnit for continuous integration, Markdown for people. Pure, but for `write`."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path
from xml.etree import ElementTree

from modelyard.deployment.validation import Check, Report
from modelyard.errors import InvalidInput

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """One `testsuite` with a `testcase` for each check; what the passed ones found is in `system-out`.

    Follows the schema of Ant's JUnit reports, the strictest of those that readers go by.
    """
    suite = ElementTree.Element(
        "testsuite",
        name=report.suite,
        package=report.ref.partition("@")[0],
        id="0",
        tests=str(len(report.checks)),
        failures=str(sum(not check.passed for check in report.checks)),
        errors="0",
        skipped="0",
        time=_seconds(sum(check.seconds for check in report.checks)),
        timestamp=report.at[:19],
        hostname=socket.gethostname() or "localhost",
    )
    properties = ElementTree.SubElement(suite, "properties")
    engine = {f"engine.{name}": value for name, value in report.engine.items()}
    facts = {"ref": report.ref, "suite": report.suite_digest, "origin": report.origin, **engine}
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", name=name, value=_text(value))
    suite.extend(_case(report, check) for check in report.checks)
    found = [f"{check.name}: {check.detail}" for check in report.checks if check.passed]
    ElementTree.SubElement(suite, "system-out").text = _text("\n".join(found))
    ElementTree.SubElement(suite, "system-err").text = ""
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(report: Report, check: Check) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", name=check.name, classname=report.ref.partition("@")[0], time=_seconds(check.seconds)
    )
    if not check.passed:
        failure = ElementTree.SubElement(case, "failure", message=_text(check.detail), type="failed")
        failure.text = _text(check.detail)
    return case


def markdown(report: Report) -> str:
    """A heading with the outcome, what was validated on what, and a table of the checks."""
    engine = report.engine
    lines = [
        f"# {report.ref.partition('@')[0]} {'passed' if report else 'did not pass'} the suite {report.suite}",
        "",
        f"- version: `{report.ref}`",
        f"- suite: `{report.suite_digest}` ({report.origin})",
        f"- engine: {engine['engine']} ({engine['version']}, {engine['precision']}, {engine['device']})",
        f"- at: {report.at}",
        "",
        "| check | result | seconds | detail |",
        "| --- | --- | ---: | --- |",
    ]
    for check in report.checks:
        cells = (check.name, "passed" if check.passed else "**failed**", f"{check.seconds:.2f}", _cell(check.detail))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """All or nothing: whoever reads the file meanwhile sees the old one or the new one. Raises InvalidInput."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise InvalidInput(f"{path} can't be written: {error.strerror}", remedy="give another file") from error


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _text(value: str) -> str:
    """Without what XML can't hold: a model may have answered anything."""
    return _NOT_IN_XML.sub("�", value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
