"""Versions compared, taken back, cleaned up after and copied, by commands."""

from __future__ import annotations

from pathlib import Path

from modelyard.store import LocalDisk

from .conftest import Cli, refused


def test_what_differs_is_told(yard: Cli, folder: Path) -> None:
    (folder / "model" / "more.bin").write_bytes(b"more")
    yard("register", "model", "good:v1.1.0", "--set", "metrics.f1=0.9", "--lineage", "base_model=good:v1.0.0")

    found = {row["what"]: row for row in yard("diff", "good:v1.0.0", "good", "--json").json}
    shown = yard("diff", "good:v1.0.0", "good").out

    assert set(found) == {"more.bin", "metrics.f1", "base_model"}
    assert (found["metrics.f1"]["old"], found["metrics.f1"]["new"]) == (None, 0.9)
    assert found["more.bin"]["new"]["size"] == 4
    assert "metadata  metrics.f1  -" in shown
    assert "(4 B)" in shown
    assert yard("diff", "good", "good:v1.1.0").out == "they are the same\n"


def test_lineage_goes_up_and_down(yard: Cli) -> None:
    yard("register", "model", "tuned:v1.0.0", "--lineage", "base_model=good", "--lineage", "dataset=digits:v3.0.0")
    yard("register", "model", "small:v1.0.0", "--lineage", "base_model=tuned:v1.0.0")

    up = yard("show", "small", "--lineage", "--json").json["ancestors"]
    down = yard("show", "good", "--lineage").out.splitlines()

    assert [link["parent"].partition("@")[0] for link in up] == ["tuned:v1.0.0", "good:v1.0.0", "digits:v3.0.0"]
    assert [line.strip().partition("@")[0] for line in down] == ["↓ tuned:v1.0.0", "↓ small:v1.0.0"]
    refused(
        yard("register", "model", "other:v1.0.0", "--lineage", "base_model=good:v9.0.0"), "good has no version v9.0.0"
    )
    refused(yard("register", "model", "other:v1.0.0", "--lineage", "good"), "is not kind=ref")


def test_a_yanked_version_is_passed_over(yard: Cli) -> None:
    yard("register", "model", "good:v1.1.0")

    assert yard("yank", "good:v1.1.0", "--reason", "wrong labels").out == "good:v1.1.0 is yanked\n"
    assert yard("show", "good").out.startswith("good:v1.0.0@")
    assert "yanked: wrong labels" in yard("show", "good:v1.1.0").out
    refused(yard("tag", "good:v1.1.0", "best"), "good:v1.1.0 is yanked: wrong labels")
    refused(yard("stage", "good:v1.1.0"), "good:v1.1.0 is yanked: wrong labels")
    assert yard("yank", "good:v1.1.0", "--undo").code == 0
    assert yard("show", "good").out.startswith("good:v1.1.0@")
    refused(yard("yank", "good:v1.1.0"), "needs a reason", "--reason")
    refused(yard("yank", "good", "--reason", "x"), "names no version")


def test_a_deleted_version_is_gone(yard: Cli) -> None:
    yard("register", "model", "good:v1.1.0", "--tag", "best")

    refused(yard("delete", "good:v1.0.0"), "needs a reason")
    refused(yard("delete", "good:v1.1.0", "--reason", "x", "--dry-run"), "has the tag 'best'", "--remove")
    assert yard("delete", "good:v1.0.0", "--reason", "x", "--dry-run").out.startswith("would delete good:v1.0.0@")
    assert yard("delete", "good:v1.0.0", "--reason", "stolen data").out.startswith("deleted good:v1.0.0@")
    refused(yard("show", "good:v1.0.0"), "good:v1.0.0 was deleted: stolen data")
    refused(yard("register", "model", "good:v1.0.0"), "its number is not used again")
    assert yard("ls", "good").out == "v1.1.0  best, latest\n"
    assert yard("tag", "good", "best", "--remove").out == "good has no tag best any more\n"
    assert yard("verify").code == 0
    yard("delete", "good:v1.1.0", "--reason", "all of it")
    told = [row["what"] for row in yard("history", "good", "--json").json]
    assert {"registered v1.0.0", "delete v1.0.0: stolen data", "delete v1.1.0: all of it"} <= set(told)
    refused(yard("ls", "good"), "there is no model 'good'")


def test_garbage_waits_for_a_day(yard: Cli, folder: Path) -> None:
    left = folder / ".modelyard/models/good/v9.0.0/20260101T000000-0123456789abcdef/weights.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")

    assert yard("gc").out == "there is no garbage\n"
    assert yard("gc", "--json").json == []
    assert left.exists()


def test_a_copy_is_the_same_version(yard: Cli, folder: Path) -> None:
    LocalDisk(folder / "prod")
    version = yard("show", "good", "--json").json

    assert yard("copy", "good", "prod", "--dry-run").out.startswith("would copy good:v1.0.0@")
    assert yard("--store", "prod", "ls").out.startswith("file:")
    assert yard("copy", "good", "prod", "--tag", "tried").out.startswith("copied good:v1.0.0@")
    there = yard("--store", "prod", "show", "good:tried", "--json").json
    assert yard("copy", "good", "prod").code == 0

    assert there["digest"] == version["digest"]
    assert [file["sha256"] for file in there["files"]] == [file["sha256"] for file in version["files"]]
    assert yard("--store", "prod", "verify").code == 0
    refused(yard("copy", "good", ".modelyard"), "is the store it is in already")
    refused(yard("copy", "good", "nowhere"), "there is no store at nowhere")
