"""`modelyard logs` on files that replicas have written, and write."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kubernetes.workloads import settings, workload
from modelyard.deployment.targets.kubernetes import pods
from modelyard.deployment.targets.logs import rotate
from modelyard.settings import load_settings
from modelyard.yard import Yard

from .conftest import Cli, refused


def test_the_last_lines_and_what_comes_after_them(cli: Cli, folder: Path) -> None:
    cli("init")
    yard = Yard(load_settings(folder))
    logs = yard.run_folder(yard.store) / "logs"
    logs.mkdir(parents=True)
    first, second = (logs / f"production-calc-v1.{number}.0-0000000{number}.log" for number in (1, 2))
    first.write_text("one\ntwo\nthree\n")
    assert cli("logs", "calc", "--lines", "2").out == f"==> {first}\ntwo\nthree\n"

    command = [sys.executable, "-m", "modelyard", "logs", "calc", "--lines", "1", "--follow"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        read = follower.stdout.readline
        assert [read(), read()] == [f"==> {first}\n", "three\n"]
        rotate(first, 5)
        with first.open("a") as writer:
            writer.write("four\n")
        assert [read(), read()] == [f"==> {first}\n", "four\n"]
        second.write_text("five\n")
        assert [read(), read()] == [f"==> {second}\n", "five\n"]
        follower.terminate()


def test_replicas_in_a_cluster_are_left_to_kubectl(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("init")
    monkeypatch.setenv("MODELYARD_DEPLOYMENT__TARGET", "kubernetes")
    monkeypatch.setenv("MODELYARD_KUBERNETES__CONTEXT", "on site")
    monkeypatch.setenv("MODELYARD_KUBERNETES__NAMESPACE", "models")
    monkeypatch.setenv("KUBECONFIG", str(folder / "none"))  # it needs no cluster to say so

    result = cli("logs", "digits", "--lines", "5", "--follow")

    refused(result, "digits runs in a cluster, not on this machine; see `kubectl logs ")
    command = shlex.split(result.err.split("`")[1])
    options = dict(zip(command[2:10:2], command[3:10:2], strict=True))
    pod = pods.template(workload(), settings())
    key, _, instances = options.pop("--selector").partition(" in ")
    assert pod["metadata"]["labels"][key] in instances.strip("()").split(",")
    assert options.pop("--container") == pod["spec"]["containers"][0]["name"]
    assert options == {"--context": "on site", "--namespace": "models"}
    assert command[10:] == ["--prefix", "--tail", "5", "--follow"]
