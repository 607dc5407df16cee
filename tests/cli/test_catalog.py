"""ls: names and versions as they are, and searches with conditions."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Cli, refused


@pytest.fixture
def filled(yard: Cli) -> Cli:
    """Models with metrics, some yanked."""
    for ref, f1 in (
        ("bert:v1.0.0", "0.7"),
        ("bert:v1.1.0", "0.9"),
        ("bert:v2.0.0-rc.1", "0.95"),
        ("gpt:v1.0.0", "0.8"),
    ):
        assert yard("register", "model", ref, "--set", f'metrics={{"f1": {f1}}}', "--set", "license=mit").code == 0
    assert yard("tag", "bert:v1.0.0", "stable").code == 0
    assert yard("yank", "gpt:v1.0.0", "--reason", "biased").code == 0
    return yard


def test_versions_that_meet_conditions(filled: Cli) -> None:
    listed = filled("ls", "--where", "metrics.f1>=0.7", "--where", "license in mit,apache-2.0")

    assert [line.split()[:3] for line in listed.out.splitlines()] == [
        ["NAME", "VERSION", "TAGS"],
        ["bert", "v1.0.0", "stable"],
        ["bert", "v1.1.0", "latest"],
        ["bert", "v2.0.0-rc.1", "-"],
    ]
    assert listed.err == "" and listed.code == 0


def test_the_best_first(filled: Cli) -> None:
    listed = filled("ls", "--where", "license=mit", "--sort", "-metrics.f1", "--limit", "2").out.splitlines()
    assert listed[0].endswith("METRICS.F1") and [line.split()[1] for line in listed[1:]] == ["v2.0.0-rc.1", "v1.1.0"]
    assert listed[1].endswith("0.95")


def test_only_the_highest_releases(filled: Cli) -> None:
    assert [row["name"] for row in filled("ls", "--latest", "--json").json] == ["bert", "good"]
    assert [row["version"] for row in filled("ls", "bert", "--latest", "--json").json] == ["v1.1.0"]


def test_yanked_versions_are_shown_when_asked_for(filled: Cli) -> None:
    assert "v1.0.0 (yanked)" in filled("ls", "gpt", "--yanked").out
    assert filled("ls", "gpt", "--where", "license=mit").out == "no version matches\n"


def test_json_says_all_that_is_known(filled: Cli) -> None:
    (row,) = filled("ls", "--where", "tag=stable", "--json").json
    assert (row["name"], row["version"], row["tags"], row["yanked"]) == ("bert", "v1.0.0", ["stable"], False)
    assert row["metadata"] == {"metrics": {"f1": 0.7}, "license": "mit"}
    assert row["digest"].startswith("sha256:") and row["created_by"] == "tester"


def test_a_path_that_nothing_has_is_said(filled: Cli) -> None:
    listed = filled("ls", "--where", "liscense=mit")
    assert (listed.code, listed.out) == (0, "no version matches; none has liscense at all\n")
    assert filled("ls", "--where", "liscense=mit", "--json").json == []


def test_what_is_no_condition_is_refused(yard: Cli) -> None:
    refused(yard("ls", "--where", "license"), "'license'", "no operator", "task=text-classification")
    refused(yard("ls", "--where", "version>=2"), "'2'", "v1.2.0")
    refused(yard("ls", "--sort", "-"), "can't sort", "metrics.f1")
    refused(yard("ls", "--limit", "0"), "--limit", code=2)


def test_a_limit_holds_for_names_too(filled: Cli) -> None:
    assert filled("ls", "--limit", "2").out == "bert\ngood\n"
    assert filled("ls", "bert", "--limit", "1").out.split()[0] == "v1.0.0"


def test_what_can_t_be_read_is_noted(filled: Cli, folder: Path) -> None:
    (folder / ".modelyard" / "versions" / "bert" / "v1.0.0.json").write_text("{")
    listed = filled("ls", "--where", "name=bert")
    assert "v1.1.0" in listed.out and "v1.0.0 " not in listed.out
    assert listed.err.startswith("note: not listed, as it can't be read: versions/bert/v1.0.0.json (")
