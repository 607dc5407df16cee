"""Models on demand behind the real gateway: rollouts, changes to replicas and back, a pool that dies, 200 models."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import TypeAdapter

from modelyard.errors import Refused, RolloutFailed
from modelyard.repository import Deployment, DeploymentSpec, Pin
from modelyard.serving.pool import LEAST
from modelyard.store import Journal

from .conftest import BROKEN, NEW, OLD
from .load import Load
from .machine import SIGNATURE, WIDTH, Machine, save_onnx, wait_for

MODELS = 200


def test_changes_of_versions_and_to_replicas_and_back_fail_no_request(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD, min_replicas=0)
    load = Load(machine.port, machine.model)
    with load.running():
        machine.promote(NEW)  # it stays on demand
        assert machine.replicas() == []
        machine.promote(NEW, replicas=2)
        machine.wait_for_replicas(NEW, 2)
        wait_for(lambda: not machine.yard.local_target.peek_pools(), what=machine.log)
        machine.promote(OLD, min_replicas=0)
        wait_for(lambda: not machine.replicas(), what=machine.log)
        machine.promote(NEW)
    assert not load.failures
    assert load.saw(OLD)
    assert load.saw(NEW)
    [row] = machine.yard.deployments.status()
    assert (row.on_demand, row.ready, row.wanted, row.outcome) == (True, 1, 0, "done")
    assert "loaded" in machine.run("status").stdout
    assert f"loaded {machine.model}:{NEW}@sha256:" in machine.run("logs", machine.model).stdout


def test_what_can_not_be_loaded_leaves_what_serves(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    load = Load(machine.port, machine.model)
    with load.running():
        with pytest.raises(RolloutFailed, match=rf"went back to {OLD}: {BROKEN} does not stay up: .*does not answer"):
            machine.promote(BROKEN, min_replicas=0)
        machine.wait_for_replicas(OLD, 1)
    assert not load.failures
    assert not machine.deployment().spec.on_demand
    assert set(load.answered) == {OLD}


def test_a_pool_is_adopted_and_started_again_when_it_dies(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD, min_replicas=0)
    [pool] = machine.yard.local_target.peek_pools()
    load = Load(machine.port, machine.model)
    with load.running():
        machine.kill()
        wait_for(lambda: load.saw(OLD), what=machine.log)
        machine.start()
        machine.promote(NEW)
    assert not load.failures
    assert [p.id for p in machine.yard.local_target.peek_pools()] == [pool.id]

    record = json.loads((machine.run_folder / "replicas" / f"{pool.id}.json").read_text())
    psutil.Process(record["pid"]).kill()
    wait_for(lambda: _ask(machine, machine.model) == NEW, what=machine.log)
    assert machine.up is not None
    machine.up.terminate()
    assert machine.up.wait(30) == 0
    assert machine.processes() == []


def test_language_models_are_refused(machine: Machine, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    machine.register("v2.0.0", gguf)
    with pytest.raises(Refused, match=r"runs on llamacpp, which needs a process for each model; .* use --replicas 1"):
        machine.promote("v2.0.0", min_replicas=0, wait=False)


def test_two_hundred_rarely_used_models_cost_one_process(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_SERVING__MEMORY_BUDGET", str(LEAST * MODELS // 2))
    names = [f"{machine.model}-{number}" for number in range(MODELS)]
    folder = tmp_path / "rare"
    folder.mkdir()
    artifact = save_onnx(folder / "model.onnx", 3.0)
    with ThreadPoolExecutor(4) as pool:
        register = machine.yard.repository.register_model
        versions = list(pool.map(lambda name: register(name, OLD, artifact, SIGNATURE), names))
    pins = {version.name: Pin(version.version, version.digest) for version in versions}
    spec = DeploymentSpec(min_replicas=0)
    wishes = {name: Deployment().ask(pin, spec=spec) for name, pin in pins.items()}
    state = TypeAdapter(dict[str, Deployment]).dump_python(wishes, mode="json")
    Journal(machine.yard.store, "deployments/production").update(lambda _: state, by="tester", why="two hundred")
    environment = machine.yard.repository.environment("production")

    machine.start()
    wait_for(lambda: Counter(d.outcome for d in environment.read().values()) == {"done": MODELS}, what=machine.log)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda name: _ask(machine, name), names)) == {OLD}
    assert len(machine.processes()) == 2  # the pool and the gateway
    assert len(list((machine.run_folder / "gateway" / "eds").iterdir())) == 1
    assert 0 < len(machine.yard.local_target.peek_loaded()) <= MODELS // 2


def _ask(machine: Machine, model: str) -> str:
    """The version that answers, or the status."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [1.0] * WIDTH}
    url = f"http://127.0.0.1:{machine.port}/v2/models/{model}/infer"
    answer = httpx.post(url, json={"inputs": [tensor]}, timeout=60)
    label = answer.headers.get("x-modelyard-model", "")
    return label.partition(":")[2].partition("@")[0] if answer.status_code == 200 else str(answer.status_code)
