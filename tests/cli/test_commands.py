"""The commands as they are meant: what they print, and what they leave in the store."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from modelyard.deployment import DeploymentManager

from .conftest import Cli, refused


def test_register_and_show(cli: Cli, folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "a.bin").write_bytes(b"x" * 2048)
    (folder / "meta.json").write_text('{"f1": 0.5, "trained": {"epochs": 3}}')
    cli("init")

    done = cli(
        *("register", "model", "team/face-recognizer:1.2.0", "--meta", "meta.json", "--tag", "stable"),
        *("--set", "f1=0.9", "--set", "trained.by=me"),
    )
    shown = cli("show", "team/face-recognizer")
    document = cli("show", "team/face-recognizer", "--json").json

    assert done.code == 0
    assert done.err.startswith("note: it can be kept, but not deployed: no engine can serve files of no known model")
    assert done.out.startswith("registered team/face-recognizer:v1.2.0@sha256:")
    assert done.out.endswith("(1 file, 2.0 KiB)\n")
    assert "tags: latest, stable" in shown.out and "metadata.f1: 0.9" in shown.out and "a.bin" in shown.out
    assert document["metadata"] == {"f1": 0.9, "trained": {"epochs": 3, "by": "me"}}
    assert document["tags"] == ["latest", "stable"]
    assert document["created_by"] == "tester"
    assert cli("ls").out == "team/face-recognizer\n"


def test_registering_the_same_again_is_no_error(yard: Cli) -> None:
    first = yard("show", "good", "--json").json
    assert yard("register", "model", "good:v1.0.0").code == 0
    assert yard("show", "good", "--json").json == first


def test_ls_lists_versions_in_order_with_their_tags(yard: Cli) -> None:
    for version in ("v1.10.0", "v1.9.0", "v2.0.0-rc.1"):
        assert yard("register", "model", f"good:{version}").code == 0
    assert yard("tag", "good:v1.9.0", "stable").code == 0

    assert yard("ls", "good").out == "v1.0.0\nv1.9.0  stable\nv1.10.0  latest\nv2.0.0-rc.1\n"
    listed = yard("ls", "good", "--json").json
    assert [row["version"] for row in listed] == ["v1.0.0", "v1.9.0", "v1.10.0", "v2.0.0-rc.1"]
    assert [row["tags"] for row in listed] == [[], ["stable"], ["latest"], []]


def test_pull_to_a_folder(yard: Cli, folder: Path) -> None:
    (folder / "empty").mkdir()

    assert yard("pull", "good:v1.0.0", "out").out == f"{folder / 'out'}\n"
    assert yard("pull", "good:latest", "empty").code == 0
    assert [path.name for path in (folder / "out").iterdir()] == ["weights.bin"]
    assert (folder / "empty" / "weights.bin").read_bytes() == b"weights"


def test_pull_without_a_folder_prints_where_the_files_are(yard: Cli) -> None:
    pulled = yard("pull", "good")

    assert (Path(pulled.out.strip()) / "weights.bin").read_bytes() == b"weights"


def test_a_tag_moves_and_goes_back(yard: Cli) -> None:
    yard("register", "model", "good:v1.1.0")

    assert yard("tag", "good:v1.0.0", "stable", "--reason", "it is tried").out == "good:stable is v1.0.0\n"
    assert yard("tag", "good:latest", "stable").out == "good:stable is v1.1.0\n"
    assert yard("show", "good:stable").out.startswith("good:v1.1.0@")
    assert yard("tag", "good", "stable", "--undo").out == "good:stable is v1.0.0\n"
    assert yard("show", "good:stable").out.startswith("good:v1.0.0@")
    whys = [row["what"] for row in yard("history", "good", "--json").json]
    assert whys == [
        "registered v1.0.0",
        "good is a new model",
        "registered v1.1.0",
        "stable → v1.0.0: it is tried",
        "stable → v1.1.0",
        "undo stable",
    ]


def test_undoing_the_first_tag_removes_it(yard: Cli) -> None:
    yard("tag", "good:v1.0.0", "stable")

    assert yard("tag", "good", "stable", "--undo").out == "good has no tag stable any more\n"
    assert yard("show", "good:stable").code == 1


def test_history_tells_who_and_when(yard: Cli) -> None:
    yard("tag", "good:v1.0.0", "stable")
    yard("stage", "good:v1.0.0")  # recorded, nobody carries it out

    header, *lines = yard("history", "good").out.splitlines()

    assert header.split() == ["AT", "WHERE", "BY", "WHAT"]
    assert [line.split()[1:3] for line in lines] == [
        ["versions", "tester"],
        ["tags", "tester"],
        ["tags", "tester"],
        ["staging", "tester"],
    ]
    assert lines[-1].endswith("stage good:v1.0.0")


def test_status_shows_what_is_wanted_and_not_there(yard: Cli) -> None:
    assert yard("status").out.startswith("nothing is deployed from file://")
    assert yard("status", "--json").json == []

    yard("stage", "good:v1.0.0")

    [row] = yard("status", "--json").json
    assert (row["environment"], row["model"], row["serving"], row["target"]) == ("staging", "good", None, "v1.0.0")
    assert (row["ready"], row["wanted"], row["outcome"]) == (0, 1, "running")
    assert "0/1" in yard("status").out


def test_ctrl_c_ends_only_the_waiting(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DeploymentManager, "wait", interrupted)
    asked = ("promote", "good:v1.0.0", "--force", "--reason", "now", "--json")
    for line in (("stage", "good:v1.0.0"), asked, ("undeploy", "good", "--from", "staging")):
        result = yard(*line)
        assert (result.code, result.out, result.err) == (130, "", "the rollout goes on; see `modelyard status`\n")


def test_without_a_target_deployments_are_records(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_DEPLOYMENT__TARGET", "none")
    yard("register", "model", "good:v1.1.0")

    assert yard("promote", "good:v1.0.0", "--force", "--reason", "first").out == "good:v1.0.0 serves in production\n"
    assert yard("promote", "good:v1.1.0", "--force", "--reason", "second").code == 0
    assert yard("ls", "good").out == "v1.0.0\nv1.1.0  latest, production\n"
    assert yard("rollback", "good", "--reason", "worse").out == "good:v1.0.0 serves in production\n"
    assert yard("show", "good:production").out.startswith("good:v1.0.0@")
    assert yard("undeploy", "good", "--from", "production").out == "good is not served in production any more\n"
    whys = [row["what"] for row in yard("history", "good", "--json").json if row["where"] == "production"]
    assert whys[0] == "promote good:v1.0.0, forced: first" and whys[2] == "roll back good to v1.0.0: worse"


def test_promote_tells_before_it_does(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    yard("register", "model", "good:v1.1.0")
    monkeypatch.setenv("MODELYARD_DEPLOYMENT__TARGET", "none")
    yard("promote", "good:v1.0.0", "--force", "--reason", "first")
    asked = ("promote", "good:v1.1.0", "--steps", "5,50:resume", "--no-analysis", "--dry-run")
    told = yard(*asked).out.splitlines()
    assert told[0] == "good:v1.1.0 in production, if everything goes well:"
    assert told[3:6] == [
        "  3. v1.1.0 gets 5 % of the requests",
        "  4. wait 60 s",
        "  5. v1.1.0 gets 50 % of the requests",
    ]
    assert told[-2] == "at most 2 replicas run, never fewer than 1 get requests"
    assert told[-1].startswith("not looked at here: evidence")
    assert yard(*asked, "--json").json["processes"] == 2
    assert yard("show", "good:production", "--json").json["version"] == "v1.0.0"
    refused(yard("promote", "good:v1.1.0", "--surge", "0", "--dry-run"), "give --surge 1 or --unavailable 1")
    refused(yard("promote", "good", "--abort"), "no rollout of good is under way; see `modelyard status`")
    assert yard("promote", "good", "--abort", "--pause").code == 2
    for option in ("--dry-run", "--steps=5", "--json"):
        refused(
            yard("promote", "good", "--abort", option), f"{option.partition('=')[0]} says nothing to --abort", code=2
        )
    refused(yard("promote", "good:v1.1.0", "--pause"), "the last rollout of good is to v1.0.0, not to good:v1.1.0")
    refused(yard("promote", "good:v1.1.0", "--steps", "", "--dry-run"), "'' is no step")


def test_promote_says_when_there_is_nothing_to_compare(yard: Cli) -> None:
    note = "nothing serves yet to compare v1.0.0 with, so this is a plain rollout, without steps or analysis"
    asked = ("promote", "good:v1.0.0", "--steps", "5,50")
    assert yard(*asked, "--dry-run").err == f"note: {note}\n"
    assert yard(*asked, "--dry-run", "--json").json["note"] == note
    done = yard(*asked, "--force", "--reason", "first", "--no-wait")
    assert (done.code, done.out, done.err) == (0, "good:v1.0.0 is asked for in production\n", f"note: {note}\n")
    assert yard("promote", "good:v1.0.0", "--dry-run").err == ""


def test_how_a_model_runs_is_set_within_limits(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_DEPLOYMENT__TARGET", "none")
    for change, said in (
        ("replicas=0", "replicas can't be 0; give 1 to 64"),
        ("replicas=-1", "replicas can't be -1"),
        ("replicas=65", "replicas can't be 65"),
        ("min_replicas=5", "min_replicas can't be 5; give 0"),
        ("max_replicas=0", "max_replicas can't be 0 with 1 replicas"),
    ):
        refused(yard("deploy", "set", "good", change, "--in", "production"), said)
    refused(yard("deploy", "set", "nosuch", "replicas=2", "--in", "production"), "there is no model 'nosuch'")


def test_what_has_no_effect_on_one_machine_is_said(yard: Cli) -> None:
    set_to = yard("deploy", "set", "good", "env.DEBUG=1", "replicas=2", "--in", "staging")
    assert (set_to.code, set_to.err) == (0, "note: env.DEBUG=1 has an effect on Kubernetes only\n")


def test_import_finds_name_and_version_by_itself(yard: Cli, folder: Path) -> None:
    (folder / "My model!").mkdir()
    (folder / "My model!" / "config.json").write_text("{}")

    assert yard("import", "model").out.startswith("imported model:v1.0.0@sha256:")
    assert yard("import", "model", "--set", "f1=1").out.startswith("imported model:v1.1.0@sha256:")
    assert yard("import", "My model!").out.startswith("imported My-model:v1.0.0@")
    assert yard("import", "model", "other").out.startswith("imported other:v1.0.0@")
    assert yard("import", "model", "other:v3.0.0", "--tag", "stable").out.startswith("imported other:v3.0.0@")
    assert yard("show", "other:stable", "--json").json["version"] == "v3.0.0"


def test_a_dry_run_moves_nothing(yard: Cli, folder: Path) -> None:
    (folder / "model" / "notes.txt").write_text("seen")
    before = sorted((folder / ".modelyard").rglob("*"))

    said = yard("import", "model", "new", "--include", "*.bin", "--dry-run")
    assert said.out.splitlines()[0] == "would import new:v1.0.0 (1 file, 7 B)"
    assert "weights.bin  7 B" in said.out and "notes.txt" not in said.out
    found = yard("import", "model", "--exclude", "*.bin", "--set", "f1=0.5", "--dry-run", "--json").json
    assert (found["name"], found["version"]) == ("model", "v1.0.0")
    assert found["files"] == [{"path": "notes.txt", "size": 4, "sha256": None}]
    assert found["metadata"] == {"source": {"kind": "local", "path": "model"}, "f1": 0.5}
    assert sorted((folder / ".modelyard").rglob("*")) == before


def test_import_as_json(yard: Cli) -> None:
    manifest = yard("import", "model", "new", "--include", "weights.*", "--json").json
    assert (manifest["name"], manifest["version"]) == ("new", "v1.0.0")
    assert manifest == {key: value for key, value in yard("show", "new", "--json").json.items() if key in manifest}


def test_doctor_finds_all_parts(yard: Cli) -> None:
    done = yard("doctor")

    assert done.code == 0 and done.err == ""
    assert all(line.startswith("ok ") for line in done.out.splitlines())
    assert "Envoy 1.40" in done.out
    findings = yard("doctor", "--json").json
    assert [finding["good"] for finding in findings] == [True] * len(findings)
    assert {"store", "gateway", "PyTorch models"} <= {finding["what"] for finding in findings}


def test_init_twice(cli: Cli, folder: Path) -> None:
    first, second = cli("init"), cli("init")

    assert first == second and first.code == 0
    lines = first.out.splitlines()
    assert lines[0] == f"the store is {(folder / '.modelyard').as_uri()}"
    assert re.fullmatch(r"versioning +not applicable +what is overwritten or deleted is gone at once", lines[-2])


def test_init_may_make_nothing(cli: Cli, folder: Path) -> None:
    assert cli("init", "--dry-run").out == f"the store would be {(folder / '.modelyard').as_uri()}\n"
    assert cli("init", "--dry-run", "--json").json == {"store": (folder / ".modelyard").as_uri(), "checks": []}
    assert not (folder / ".modelyard").exists()
    cli("init")
    assert cli("init", "--dry-run").out == cli("init").out


def test_init_where_a_store_is_leaves_it_as_it_is(yard: Cli, folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / ".modelyard").rglob("*") if path.is_file()}

    assert yard("init").code == 0
    assert {path: path.read_bytes() for path in (folder / ".modelyard").rglob("*") if path.is_file()} == before


def test_init_elsewhere(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("init", "named").out.startswith(f"the store is {(folder / 'named').as_uri()}\n")
    assert cli("init", "--store", "given").out.startswith(f"the store is {(folder / 'given').as_uri()}\n")
    monkeypatch.setenv("MODELYARD_STORE", "variable")
    assert cli("init").out.startswith(f"the store is {(folder / 'variable').as_uri()}\n")
    assert not (folder / ".modelyard").exists()


@pytest.mark.parametrize(
    "line",
    [
        ("--store", ".modelyard", "show", "good", "--json"),
        ("show", "--store", ".modelyard", "good", "--json"),
        ("show", "good", "--json", "--store", ".modelyard"),
        ("show", "good", "--store=.modelyard", "--json"),
    ],
    ids=" ".join,
)
def test_the_store_may_stand_anywhere(
    yard: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MODELYARD_STORE", "nowhere")

    assert yard(*line).json["name"] == "good"


def test_the_nearest_store_upward_is_used(yard: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "down")

    assert yard("ls").out == "good\n"


def test_the_store_in_the_home_folder_is_the_last_resort(
    yard: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / ".modelyard").rename(tmp_path / ".modelyard-moved")
    (tmp_path / "home").mkdir()
    (tmp_path / ".modelyard-moved").rename(tmp_path / "home" / ".modelyard")
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert yard("ls").out == "good\n"


READING = ["ls", "ls good", "show good", "history good", "verify", "verify good", "status", "config get engines"]


@pytest.mark.parametrize("line", [*READING, "config history s", "doctor"])
def test_every_reading_command_can_print_json(yard: Cli, line: str) -> None:
    printed = yard(*line.split(), "--json")

    assert printed.code == 0 and printed.err == ""
    assert json.loads(printed.out) is not None


def test_pull_only_some_files(yard: Cli, folder: Path) -> None:
    (folder / "model" / "config.json").write_text("{}")
    yard("register", "model", "good:v1.1.0")

    assert yard("pull", "good", "some", "--include", "*.json").code == 0
    assert [path.name for path in (folder / "some").iterdir()] == ["config.json"]
    cached = Path(yard("pull", "good", "--exclude", "*.json").out.strip())
    assert [path.name for path in cached.iterdir()] == ["weights.bin"]
    refused(yard("pull", "good", "none", "--include", "*.gguf"), "none of the 2 files", "change --include")
