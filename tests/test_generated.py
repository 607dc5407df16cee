"""The pages that docs/generate.py makes from the code are those that are there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import typer

from modelyard.cli.app import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("reference/commands.md", "settings.md", "reference/openapi.json")


def generate(docs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(docs / "generate.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_the_pages_are_up_to_date() -> None:
    checked = generate(DOCS, "--check")

    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_page_that_lies_is_found_and_written_anew(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    (docs / PAGES[0]).write_text("# Commands\n")
    (docs / PAGES[1]).unlink()

    checked = generate(docs, "--check")
    left = (docs / PAGES[0]).read_text()
    written = generate(docs)

    assert checked.returncode == 1 and [line.split()[0] for line in checked.stderr.splitlines()] == [
        str(docs / page) for page in PAGES[:2]
    ]
    assert left == "# Commands\n"
    assert written.returncode == 0 and generate(docs, "--check").returncode == 0
    for page in PAGES:
        assert (docs / page).read_text() == (DOCS / page).read_text()


def test_defaults_are_written_as_the_file_has_them() -> None:
    rows = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in settings_rows()}

    assert rows["`oidc_roles`"] == "`{}`"
    assert rows["`trust_code`"] == "`[]`"
    assert rows["`token_metrics`"] == "`true`"
    assert rows["`env`"] == "`development`"


def settings_rows() -> list[str]:
    return [line for line in (DOCS / PAGES[1]).read_text().splitlines() if line.startswith("| `")]


def test_every_command_and_option_is_on_the_page() -> None:
    page = (DOCS / PAGES[0]).read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    for name, command in commands.items():
        assert f"## modelyard {name}" in page
        for parameter in command.params:
            assert getattr(parameter, "hidden", False) or parameter.opts[0] in page or parameter.metavar in page
    assert "replica-id" not in page
