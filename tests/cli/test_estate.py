"""`modelyard import --all`: what it says, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Cli, refused


@pytest.fixture
def estate(folder: Path) -> Path:
    """Two good versions, and a file in no version's folder."""
    for path in ("good/1/w.bin", "good/2/w.bin", "loose/w.bin"):
        (folder / "estate" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "estate" / path).write_bytes(path.encode())
    return folder / "estate"


def test_a_dry_run_says_what_would_come(cli: Cli, estate: Path) -> None:
    assert cli("init").code == 0
    result = cli("import", "--all", str(estate), "--dry-run")
    refused(result, "1 of 3 model versions would not come")
    assert [line.split() for line in result.out.splitlines()[:3]] == [
        ["NAME", "VERSION", "BECOMES", "SIZE", "STATE"],
        ["good", "1", "good:v1.0.0", "12", "B", "would", "be", "imported"],
        ["good", "2", "good:v2.0.0", "12", "B", "would", "be", "imported"],
    ]
    assert result.out.splitlines()[-2:] == [
        "3 model versions: 2 would be imported, 1 refused (24 B)",
        "  loose: it lies in no version's folder; put it into a folder such as 1 or v1.0.0",
    ]
    assert cli("ls", "--json").json == []


def test_one_that_can_not_come_does_not_stop_the_rest(cli: Cli, estate: Path) -> None:
    cli("init")
    refused(cli("import", "--all", str(estate), "--json"), "1 of 3 model versions did not come")
    again = cli("import", "--all", str(estate), "--exclude", "loose", "--json")
    assert again.code == 0
    assert [(each["ref"], each["state"]) for each in again.json] == [
        ("good:v1.0.0", "present"),
        ("good:v2.0.0", "present"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("estate", "name"), "--all takes no REF"),
        (("estate", "--tag", "best"), "--all takes no REF and no --tag"),
        (("estate", "--include", "x*"), "holds no model that is chosen"),
        (("hf://org/model",), "can't say what it holds"),
        (("nowhere",), "there is no store at nowhere"),
        (("mlflow://127.0.0.1:1/runs/abc",), "names one model"),
    ],
)
def test_what_is_refused(cli: Cli, estate: Path, arguments: tuple[str, ...], said: str) -> None:
    cli("init")
    refused(cli("import", "--all", *arguments), said)
