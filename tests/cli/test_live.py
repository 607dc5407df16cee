"""The verbs of deployment as a person types them, with a real `modelyard up` beside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import httpx

from times import ONE, SIGNATURE, save_times

from .conftest import Cli, refused

REQUEST = json.dumps(ONE)
SUITE = """
name: doubles
golden:
  - request: {inputs: [{name: x, datatype: FP32, shape: [1, 2], data: [1.0, 2.0]}]}
    expect: {outputs: [{data: [2.0, 4.0]}]}
"""


WHOLE = """
name: whole
latency: {p99_ms: 30000, requests: 40, concurrency: 4}
resources: {memory: 64 GiB}
scanned: true
custom: [{check: "checks.py:doubles"}]
"""
CHECKS = """
def doubles(model):
    answer = model.ask({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]})
    assert answer["outputs"][0]["data"] == [2.0, 4.0]
    return "it doubles"
"""


def test_from_staging_to_production(cli: Cli, folder: Path) -> None:
    (folder / "suite.yaml").write_text(SUITE)
    cli("init")
    for version, factor in (("v1.0.0", 2.0), ("v1.1.0", 3.0)):
        save_times(folder / version, factor)
        registered = cli("register", version, f"calc:{version}", "--set", f"signature={json.dumps(SIGNATURE)}")
        assert registered.code == 0, registered
    cli("tag", "calc:v1.0.0", "stable")

    with up(folder):
        assert cli("stage", "calc:v1.0.0").out == "calc:v1.0.0 serves in staging\n"
        validated = cli("validate", "calc:v1.0.0", "--suite", "suite.yaml")
        assert validated.code == 0 and "golden 1   passed  as expected\n" in validated.out
        _validate_in_full(cli, folder)
        assert cli("promote", "calc:v1.0.0").out == "calc:v1.0.0 serves in production\n"
        exact = cli("show", "calc:v1.0.0").out.split()[0]
        for ref in ("calc", "calc:production", "calc:v1.0.0", "calc:stable", exact):
            assert cli("predict", ref, "--json", REQUEST).json["outputs"][0]["data"] == [2.0, 4.0]

        assert cli("stage", "calc:v1.1.0").code == 0
        failed = cli("validate", "calc:v1.1.0", "--suite", "suite.yaml", "--json")
        refused(failed, "calc:v1.1.0 did not pass: golden 1: ", "expected 2.0")
        assert failed.json["passed"] is False
        refused(cli("promote", "calc:v1.1.0"), "failed doubles-", "or use --force with --reason")
        assert cli("predict", "calc", "--json", REQUEST).json["outputs"][0]["data"] == [2.0, 4.0]

        refused(cli("predict", "calc", "--json", '{"inputs": []}'), "calc answered 400: ", "see `modelyard logs calc`")
        refused(cli("predict", "calc:v9.0.0", "--json", REQUEST), "said 404: ", "see `modelyard status`")
        refused(cli("up"), "`modelyard up` runs already for this store on this machine; use it, or stop it first")
        assert cli("logs", "calc").out.startswith("==> ")
        api = f"http://127.0.0.1:{os.environ['MODELYARD_API__PORT']}"
        assert f"api {api}\n" in (folder / "up.log").read_text()
        assert httpx.get(f"{api}/hf/api/models/calc/revision/production").json()["sha"] in exact
        rows = {row["environment"]: row for row in cli("status", "--json").json}
        assert {name: (row["serving"], row["ready"], row["outcome"]) for name, row in rows.items()} == {
            "production": ("v1.0.0", 1, "done"),
            "staging": ("v1.1.0", 1, "done"),
        }
        assert cli("undeploy", "calc", "--from", "staging").code == 0
        wait_for(lambda: "said 404: " in cli("predict", "calc:staging", "--json", REQUEST).err)


def _validate_in_full(cli: Cli, folder: Path) -> None:
    """Every kind of check on a replica that runs, and every kind of report."""
    (folder / "whole.yaml").write_text(WHOLE)
    (folder / "checks.py").write_text(CHECKS)
    command = ("validate", "calc:v1.0.0", "--suite", "whole.yaml")
    refused(cli(*command), "checks.py:doubles is Python code, which is not trusted; read it, then add sha256:")
    planned = cli(*command, "--trust-code", "--dry-run")
    lines = planned.out.splitlines()
    assert lines[1:3] == ["suite whole (given)", "CHECK      WHAT"]
    assert [line.split()[0] for line in lines[3:]] == [
        *("scanned", "answers", "signature", "doubles", "latency", "memory"),
    ]
    assert "40 requests with 4 at once: p99 at most 30000 ms" in planned.out
    done = cli(*command, "--trust-code", "--junit", "report.xml", "--markdown", "report.md")
    assert (done.code, done.out.splitlines()[2].split()) == (0, ["CHECK", "RESULT", "DETAIL"])
    assert "doubles    passed  it doubles\n" in done.out
    assert " MiB resident in the largest of 1 replicas\n" in done.out
    assert [case.get("name") for case in ElementTree.parse("report.xml").iter("testcase")] == [
        *("scanned", "answers", "signature", "doubles", "latency", "memory"),
    ]
    assert (folder / "report.md").read_text().startswith("# calc:v1.0.0 passed the suite whole\n")


@contextmanager
def up(folder: Path) -> Iterator[None]:
    """`modelyard up` in the current folder, as long as the block runs."""
    log = folder / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "modelyard", "up"], stdout=out, stderr=out)
    try:
        wait_for(lambda: process.poll() is not None or b"gateway http://" in log.read_bytes())
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)
