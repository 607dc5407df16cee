"""What people get wrong: each gives exit 1 or 2 and one line that says what is wrong and what to do."""

from __future__ import annotations

import os
import pickle
import shlex
import socket
from pathlib import Path

import pytest

from modelyard.errors import StoreError
from ports import free_port

from .conftest import Cli, refused

NAME = "is not a model name; use letters, digits"
VERSION = "write it as v1.2.0 or v1.2.0-rc.1"
SHAPE = "looks like a version, not like a name; choose another name"

NAMES = {
    "a b": NAME,
    "..": NAME,
    ".hidden": NAME,
    "-dash": NAME,
    "trailing.": NAME,
    "a/b/c": NAME,
    "a//b": NAME,
    "/a": NAME,
    "a/": NAME,
    "../../etc": NAME,
    "é": NAME,
    "": NAME,
    "x" * 97: NAME,
    "v1.0.0": SHAPE,
    "1.0": SHAPE,
    "team/v2": SHAPE,
    "auto": "'auto' is reserved; choose another name",
    "Task": "'Task' is reserved; choose another name",
    "team/auto": "'auto' is reserved; choose another name",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none(yard: Cli, name: str) -> None:
    refused(yard("register", "--", "model", f"{name}:v1.0.0"), NAMES[name])
    refused(yard("show", "--", f"{name}:v1.0.0"), NAMES[name])
    refused(yard("tag", "--", f"{name}:v1.0.0", "stable"), NAMES[name])
    if name:
        refused(yard("ls", "--", name), NAMES[name])
    assert yard("ls", "--json").json == ["good"]


@pytest.mark.parametrize("version", ["1.2", "v1", "01.0.0", "v1.2.3.4", "v1.0.0-", "v1.2.0+build", f"v{'9' * 30}.0.0"])
def test_a_version_that_is_none(yard: Cli, version: str) -> None:
    refused(yard("register", "model", f"good:{version}"), repr(version), VERSION)
    refused(yard("show", f"good:{version}"), repr(version), VERSION)


def test_build_metadata_is_named_as_the_reason(yard: Cli) -> None:
    refused(yard("register", "model", "good:v1.2.0+build"), "build metadata does not order versions")


COMMANDS = {
    # What is not there.
    "register model good:vv1": "'good:vv1' names no version; the next one is good:v1.1.0",
    "register model good": "'good' names no version; the next one is good:v1.1.0",
    "register model good:latest": "names no version; the next one is good:v1.1.0",
    "register model new": "'new' names no version; the next one is new:v1.0.0",
    "register model good:": "'' is not a tag; use lower-case letters",
    "register nowhere x:v1.0.0": "there is no file or folder 'nowhere'; check the path",
    "register empty x:v1.0.0": "the folder empty is empty; give the folder that holds the model's files",
    "import nowhere": "there is no file or folder nowhere; check the path",
    "import empty": "the folder empty is empty; give the folder",
    "import ''": "'' is not a path; give the folder or file",
    "import mars://org/model": "no such kind of source; give hf://",
    "import model --include *.gguf": "none of the 1 files (weights.bin, …) is chosen; change --include or --exclude",
    "import model --exclude * --dry-run": "is chosen; change --include or --exclude",
    "import model good:stable": "names a tag, not a version; leave it out, or write name:v1.0.0",
    "show nothing": "there is no model 'nothing' in file://",
    "ls nothing": "see `modelyard ls`",
    "history nothing": "there is no model 'nothing'",
    "show good:v9.0.0": "good has no version v9.0.0; the newest are v1.0.0",
    "pull good:v9.0.0": "good has no version v9.0.0; the newest are v1.0.0",
    "show good:stable": "good has no tag 'stable'; its tags are latest",
    "show good:staging": "good has no tag 'staging'; use `modelyard stage`",
    "show good:production": "use `modelyard promote` or `modelyard rollback`",
    "show good@sha256:12": "'sha256:12' is not a digest; write it as sha256: and 64 hex digits",
    f"show good@sha256:{'0' * 64}": f"not sha256:{'0' * 64}",
    "verify good:v2.0.0": "good has no version v2.0.0",
    "logs nosuch": "there is no model 'nosuch'",
    "logs nosuch --follow": "there is no model 'nosuch'",
    "logs good": "no replica of good ran on this machine; see `modelyard status`",
    "logs 'a b'": NAME,
    # Places that can't be written.
    "pull good model": "exists and is not an empty folder; give another destination",
    "pull good ..": "exists and is not an empty folder; give another destination",
    "pull good /": "exists and is not an empty folder; give another destination",
    "pull good /dev/null": "exists and is not an empty folder; give another destination",
    "pull good model/weights.bin/x": "can't write",
    "pull good /proc/x/y": "check the path",
    # Versions, names and tags that are taken, or not to be had.
    "register other good:v1.0.0": "exists with other content",
    "register other good:1.0.0": "register under the next version; versions never change",
    "register model good:v1.0.0 --set f1=1": "good:v1.0.0 exists with other metadata",
    "register model Good:v1.0.0": "'Good' differs from the model 'good' by case alone; write 'good' or choose",
    "tag good:v1.0.0 latest": "'latest' can't be set by hand; it is always the highest release",
    "tag good:v1.0.0 main": "'main' can't be set by hand; it is always the highest release",
    "tag good:v1.0.0 staging": "'staging' can't be set by hand; use `modelyard stage`",
    "tag good:v1.0.0 production": "can't be set by hand; use `modelyard promote` or `modelyard rollback`",
    "tag good:v1.0.0 production --undo": "can't be set by hand; use `modelyard promote` or `modelyard rollback`",
    "tag good:v1.0.0 Stable": "'Stable' is not a tag; use lower-case letters",
    "tag good:v1.0.0 v2": "'v2' is not a tag; use lower-case letters",
    "tag good stable": "'good' names no version; write good:v1.0.0",
    "tag good:v7.0.0 stable": "good has no version v7.0.0",
    "tag good:v1.0.0 never --undo": "good never had the tag 'never'; see `modelyard history good`",
    "register model x:v1.0.0 --tag latest": "can't be set by hand",
    "register model x:v1.0.0 --tag 1.0": "'1.0' is not a tag",
    # Metadata.
    "register model x:v1.0.0 --meta none.json": "there is no file none.json; check the path",
    "register model x:v1.0.0 --meta bad.json": "bad.json can't be read as JSON",
    "register model x:v1.0.0 --meta list.json": "list.json holds no JSON object; write {…}",
    "register model x:v1.0.0 --meta binary": "binary can't be read as JSON",
    "register model x:v1.0.0 --meta model": "model can't be read as JSON",
    "register model x:v1.0.0 --set f1": "--set 'f1' is not key=value; write --set metrics.f1=0.9",
    "register model x:v1.0.0 --set =1": "--set '=1' is not key=value",
    "register model x:v1.0.0 --set a..b=1": "is not key=value",
    "register model x:v1.0.0 --set a=1 --set a.b=2": "'a' holds a value already; use another key",
    "register model x:v1.0.0 --set a=NaN": "the metadata can't be written as JSON",
    "register model x:v1.0.0 --set serving.precision=int3": "metadata; use one of fp32, bf16, int8",
    "register model x:v1.0.0 --set serving.backend=jax": "use one of torch, onnx",
    "register model x:v1.0.0 --set serving=int8": "serving can't be 'int8' in the metadata; write serving.precision=",
    # Files that do not survive the way.
    "register outside x:v1.0.0": "link is a link that leaves the folder; put a copy of the file in its place",
    "register dangling x:v1.0.0": "link is a link to nothing; remove it",
    "register clash x:v1.0.0": "A.txt and a.txt differ by case alone; rename one of them",
    "register device x:v1.0.0": "'con.txt' can't be kept on every system; rename it",
    "register pipe x:v1.0.0": "pipe is not a regular file; remove it",
    "register pickled x:v1.0.0": "convert it to safetensors, or vouch for it with --trust-pickle and a reason",
    "register pickled x:v1.0.0 --trust-pickle ''": "model.pkl holds a pickle",
    "import pickled": "model.pkl holds a pickle",
    # Stores.
    "ls --store nowhere": "there is no store at nowhere; make one with `modelyard init nowhere`",
    "ls --store list.json": "there is no store at list.json",
    "ls --store ftp://host": "'ftp://host' names no store; use s3://bucket/prefix",
    "ls --store s3://": "names no store; use s3://bucket/prefix",
    "init ftp://host": "names no store",
    # Configuration.
    "config get nowhere key": "set it with `modelyard config set nowhere key VALUE`",
    "config get Wrong key": "'Wrong' is not a configuration section; use lower-case letters",
    "config set ../x key value": "is not a configuration section",
    "config set section '' value": "a configuration key can't be empty; name the key",
    # Deployment.
    "stage nosuch": "there is no model 'nosuch' in file://",
    "promote nosuch": "there is no model 'nosuch'",
    "validate nosuch": "there is no model 'nosuch'",
    "tag nosuch stable": "there is no model 'nosuch'",
    "yank nosuch --reason old": "there is no model 'nosuch'",
    "yank good --reason old": "'good' names no version; write good:v1.0.0",
    "stage good": "'good' names no version; write good:v1.0.0 or good:latest",
    "promote good": "'good' names no version; write good:v1.0.0 or good:latest",
    "validate good:v1.0.0": "good:v1.0.0 is not deployed in staging; run `modelyard stage good:v1.0.0`",
    "validate good:v1.0.0 --suite none.yaml": "there is no suite none.yaml; check the path",
    "validate good:v1.0.0 --suite bad.yaml": "bad.yaml can't be read as YAML",
    "validate good:v1.0.0 --suite wrong.yaml": "wrong.yaml: metric.threshold: it is missing; mend the suite",
    "validate good:v1.0.0 --suite list.json": "mend the suite",
    "validate good:v1.0.0 --junit no/report.xml": "no/report.xml can't be written; give a file in a folder that exists",
    "validate good:v1.0.0 --markdown model": "model can't be written; give a file in a folder that exists",
    "validate good:v1.0.0 --suite model": "give a suite written in YAML",
    "promote good:v1.0.0": "good:v1.0.0 is not deployed in staging; run `modelyard stage good:v1.0.0`",
    "promote good:v1.0.0 --force": "a forced promotion needs a reason; give --reason",
    "rollback good": "good was never deployed in production; see `modelyard status`",
    "rollback 'a b'": NAME,
    "undeploy good --from staging": "good is not deployed in staging; see `modelyard status`",
    "stage good:v1.0.0": "recorded, but nothing on this machine carries out deployments",
    # Serving and asking.
    "serve nothing": "there is no model 'nothing'",
    "serve good": "bring the model in a format that one of them serves",
    "serve good --memory-budget much": "--memory-budget 'much' is not a size; write it such as 4GiB",
    "serve good --memory-budget 2XiB": "--memory-budget '2XiB' is not a size",
    "serve good --idle-timeout 0": "--idle-timeout can't be 0; give seconds above 0",
    "serve good --engine pytorch": "give another --engine, or leave it out",
    "serve good --idle-timeout 5": "no engine can serve files of no known model format",
    "stage good:v1.0.0 --replicas 2 --min-replicas 0": "has replicas of its own or runs on demand; give only one",
    "serve good --host no.such.host.invalid": "can't listen on no.such.host.invalid:8080",
    "predict good": "give either --text, --file or --json; see `modelyard predict --help`",
    "predict good --text hi --json {}": "give either --text, --file or --json",
    "predict good --query hi": "give either --text, --file or --json",
    "predict good --text hi": "does not answer",
    "predict good --json '{\"inputs\": []}'": "start `modelyard up`",
    "predict good --json {": "--json is not JSON",
    "predict good --json []": "--json holds no JSON object; write {…}",
    'predict good --json \'{"messages": [], "stream": true}\'': "predict does not stream; leave out stream",
    "predict good --text ''": "--text holds an empty string; leave it out",
    "predict task:semantic-search --text hi": "is a task; ask it at /v1/embeddings, or with `modelyard embed --task se",
    "predict 'a b' --json {}": NAME,
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_can_not_be_carried_out(yard: Cli, folder: Path, line: str) -> None:
    make_traps(folder)

    refused(yard(*shlex.split(line)), COMMANDS[line])


@pytest.mark.parametrize(("path", "said"), [("list.json", "list.json as a store"), ("list.json/x", "check the path")])
def test_a_file_can_not_be_a_store(yard: Cli, folder: Path, path: str, said: str) -> None:
    make_traps(folder)

    refused(yard("init", path), said, code=StoreError.exit_code)


USAGE = {
    "frobnicate": "No such command 'frobnicate'; see `modelyard --help`",
    "config frobnicate": "No such command 'frobnicate'; see `modelyard config --help`",
    "config": "Missing command; see `modelyard config --help`",
    "ls --frobnicate": "No such option: --frobnicate; see `modelyard ls --help`",
    "show": "Missing argument 'REF'; see `modelyard show --help`",
    "show good good": "see `modelyard show --help`",
    "register model": "Missing argument 'REF'",
    "serve": "Invalid value for 'REF': name one model or more",
    "ls --store": "Option '--store' requires an argument",
    "--store": "Option '--store' requires an argument",
    "undeploy good": "Missing option '--from'",
    "undeploy good --from mars": "'mars' is not one of 'staging', 'production'",
    "stage good:v1.0.0 --replicas 0": "Invalid value for '--replicas'",
    "stage good:v1.0.0 --replicas many": "Invalid value for '--replicas'",
    "stage good:v1.0.0 --min-replicas 1": "Invalid value for '--min-replicas'",
    "serve good --port 0": "Invalid value for '--port'",
    "serve good --port 65536": "Invalid value for '--port'",
    "logs good --lines 0": "Invalid value for '--lines'",
}


@pytest.mark.parametrize("line", USAGE)
def test_a_command_that_is_written_wrongly(yard: Cli, line: str) -> None:
    refused(yard(*shlex.split(line)), USAGE[line], "--help`", code=2)


@pytest.mark.parametrize("line", ["ls", "status", "up", "register model x:v1.0.0", "config get a b"])
def test_without_a_store(cli: Cli, folder: Path, line: str) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"weights")

    result = cli(*shlex.split(line))

    refused(result)
    assert "make one with `modelyard init`" in result.err + result.out


@pytest.mark.parametrize("target", ["none", "kubernetes"])
def test_up_runs_nothing_that_another_target_runs(yard: Cli, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_DEPLOYMENT__TARGET", target)
    refused(yard("up"), f"deployment.target is {target}, so replicas are not this machine's business; unset it")


def test_the_doctor_minds_no_store_that_nobody_made_yet(cli: Cli) -> None:
    result = cli("doctor")

    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("none yet store: there is no store")
    assert "make one with `modelyard init`" in result.out
    refused(cli("doctor", "--store", "nowhere"), "missing: store")


def test_serve_looks_at_its_port_before_it_fetches(yard: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(yard("serve", "good", "--port", str(port)), f"127.0.0.1:{port}", "in use; choose another port")
    refused(yard("serve", "good", "--port", str(free_port())), "no engine can serve")


def make_traps(folder: Path) -> None:
    """Files and folders that a command should refuse."""
    for name in ("empty", "other", "outside", "dangling", "clash", "device", "pipe", "pickled"):
        (folder / name).mkdir()
    (folder / "other" / "weights.bin").write_bytes(b"other weights")
    (folder / "outside" / "link").symlink_to("/etc/hostname")
    (folder / "dangling" / "link").symlink_to("nothing")
    for name in ("A.txt", "a.txt"):
        (folder / "clash" / name).write_text(name)
    (folder / "device" / "con.txt").write_text("x")
    os.mkfifo(folder / "pipe" / "pipe")
    (folder / "pickled" / "model.pkl").write_bytes(pickle.dumps({"a": Path}))
    (folder / "bad.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "bad.yaml").write_text("golden: [")
    (folder / "wrong.yaml").write_text(
        f"metric: {{dataset: x.npz, digest: 'sha256:{'0' * 64}', input: {{name: a, array: x}},"
        " output: {name: b, array: y}}"
    )


def test_a_folder_that_holds_other_files_becomes_no_store(cli: Cli, folder: Path) -> None:
    (folder / "project").mkdir()
    (folder / "project" / "notes.txt").write_text("mine")

    refused(cli("init", "project"), "project holds other files; give a new or empty folder")
    assert [entry.name for entry in (folder / "project").iterdir()] == ["notes.txt"]
