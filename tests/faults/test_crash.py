"""Processes are killed while clients keep asking."""

from __future__ import annotations

import time

import psutil

from modelyard.gateway import Gateway
from modelyard.settings import GatewaySettings

from .conftest import OLD
from .load import Load
from .machine import Machine, wait_for


def test_a_killed_replica_costs_at_most_what_it_had_in_hand(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD, replicas=2)
    victim, other = machine.replicas()
    gateway = Gateway(machine.run_folder / "gateway", GatewaySettings(port=machine.port))
    load = Load(machine.port, machine.model)
    with load.running():
        wait_for(lambda: load.saw(OLD), what=machine.log)
        psutil.Process(machine.pid(victim)).kill()
        began = time.monotonic()
        wait_for(lambda: victim.port not in {port for _, _, port in gateway.in_flight()}, what=machine.log)
        print(f"out of routing after {time.monotonic() - began:.2f} s")
        wait_for(lambda: sum(r.state == "ready" for r in machine.replicas()) == 2, what=machine.log)
        asked = load.answered[OLD]
        wait_for(lambda: load.answered[OLD] > asked + 100, what=machine.log)
    assert len(load.failures) <= load.clients, load.failures
    back = {r.id for r in machine.replicas() if r.state == "ready"}
    assert other.id in back
    assert victim.id not in back
    assert machine.deployment().outcome == "done"  # a crash is no rollout


def test_a_killed_gateway_is_started_again(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    [gateway] = [process for process in machine.processes() if "envoy" in process.name()]
    gateway.kill()
    load = Load(machine.port, machine.model)
    with load.running():
        wait_for(lambda: load.saw(OLD), what=machine.log)
    [replica] = machine.replicas()
    assert replica.state == "ready"
