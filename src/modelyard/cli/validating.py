"""The command of validation: validate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import Json, Selected, print_json, print_table, yard_of
from modelyard.cli.deployment import SuiteFile, named_version, suite_in
from modelyard.errors import InvalidInput, ValidationFailed

if TYPE_CHECKING:
    from modelyard.deployment import Report
    from modelyard.deployment.gate import ValidationPlan


def add_to(app: typer.Typer) -> None:
    app.command()(validate)


def validate(
    context: typer.Context,
    ref: Selected,
    suite: SuiteFile = None,
    as_json: Json = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the report as JUnit XML, too.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the report as Markdown, too.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be checked and with what.")] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let the suite's own Python checks run in this process.")
    ] = False,
) -> None:
    """Run a validation suite against the staged version and keep the evidence."""
    deployments, (name, version) = yard_of(context).deployments, named_version(context, ref)
    chosen = suite_in(suite)
    if dry_run:
        _print_plan(deployments.plan_validation(name, version, suite=chosen, trust_code=trust_code), as_json=as_json)
        return
    _require_folders(junit, markdown)
    report = deployments.run_validation_tests(name, version, suite=chosen, trust_code=trust_code)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
    _write(report, junit, markdown)
    if not report:
        raise ValidationFailed(f"{name}:{version} did not pass: {report.failures}", remedy="mend the model")


def _require_folders(*files: Path | None) -> None:
    """Before a validation that may take long."""
    for file in files:
        if file and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise InvalidInput(f"{file} can't be written", remedy="give a file in a folder that exists")


def _write(report: Report, junit: Path | None, markdown: Path | None) -> None:
    from modelyard.deployment import reports

    if junit:
        reports.write(junit, reports.junit(report))
    if markdown:
        reports.write(markdown, reports.markdown(report))


def _print_plan(plan: ValidationPlan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan.to_dict())
        return
    print(f"{plan.ref}\nsuite {plan.suite} ({plan.origin})")
    print_table(("CHECK", "WHAT"), [(check.name, check.what) for check in plan.checks])


def _print_report(report: Report) -> None:
    engine = report.engine
    print(f"{report.ref}\nsuite {report.suite} ({report.origin}) on {engine['engine']} ({engine['version']})")
    rows = [(check.name, "passed" if check.passed else "FAILED", _one_line(check.detail)) for check in report.checks]
    print_table(("CHECK", "RESULT", "DETAIL"), rows)


def _one_line(text: str) -> str:
    return " ".join(text.split())
