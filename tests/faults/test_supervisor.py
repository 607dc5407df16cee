"""`modelyard up` is killed, started again, started twice, started where it can't be, and told to stop."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable

import psutil
import pytest

from .conftest import NEW, OLD
from .load import Load
from .machine import Machine, wait_for

Reached = Callable[[Machine, str, Load], bool]

# When the supervisor is killed: as soon as this is true of the rollout to `version`.
STEPS: dict[str, Reached] = {
    # Its process is there, beside the old one and the gateway. Killed a moment before, with the record alone, the next
    # supervisor takes that replica for one that crashed, and keeps the record for a while.
    "the new replica was started": lambda machine, version, load: (
        bool(machine.replicas(version)) and len(machine.processes()) == 3
    ),
    "the new replica is ready": lambda machine, version, load: any(
        r.state == "ready" for r in machine.replicas(version)
    ),
    "the traffic has moved": lambda machine, version, load: load.saw(version),
    "the old replica was told to stop": lambda machine, version, load: all(
        str(r.pin) == version or r.state == "stopping" for r in machine.replicas()
    ),
}


def test_killed_at_each_step_of_a_rollout_it_ends_what_was_begun(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    machine.pause()  # so that it surely does not see the wish before it is killed
    _kill_and_start_again(machine, NEW, lambda machine, version, load: True, "the wish was recorded")
    for number, (step, reached) in enumerate(STEPS.items()):
        _kill_and_start_again(machine, NEW if number % 2 else OLD, reached, step)


def _kill_and_start_again(machine: Machine, version: str, reached: Reached, step: str) -> None:
    load = Load(machine.port, machine.model)
    with load.running():
        wait_for(lambda: load.saw(str(machine.deployment().serving)), what=machine.log)
        asked = machine.promote(version, wait=False)
        wait_for(lambda: reached(machine, version, load), what=machine.log)
        machine.kill()
        machine.start()
        wait_for(lambda: machine.deployment().outcome != "running", what=machine.log)
        machine.wait_for_replicas(version, 1)
        wait_for(lambda: load.saw(version), what=machine.log)
    done = machine.deployment()
    assert (str(done.serving), done.outcome, done.rollout) == (version, "done", asked.rollout), step
    assert not load.failures, step
    assert len(machine.processes()) == 2, step  # the replica and the gateway


def test_a_second_one_is_told_that_the_first_runs(machine: Machine) -> None:
    machine.start()
    second = machine.run("up")
    assert second.returncode == 1
    assert second.stderr.splitlines() == [
        "error: `modelyard up` runs already for this store on this machine; use it, or stop it first"
    ]


def test_a_gateway_port_in_use_is_named(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", machine.port)):
        refused = machine.run("up")
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"error: the gateway can't listen on 127.0.0.1:{machine.port}: ")
    assert "gateway.port" in line


def test_without_its_folder_it_ends_and_leaves_nothing(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    running = machine.processes()
    shutil.rmtree(machine.run_folder)
    assert machine.up
    assert machine.up.wait(60) == 1, machine.log()
    assert (
        "was removed while `modelyard up` ran; what it had started is ended; start `modelyard up` again"
        in machine.log()
    )
    assert not psutil.wait_procs(running, timeout=10)[1]
    assert not machine.processes()
    machine.start()  # what was wanted is wanted still
    machine.wait_for_replicas(OLD, 1)


def test_told_twice_it_ends_replicas_at_once(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    [replica] = machine.replicas()
    running = machine.processes()
    psutil.Process(machine.pid(replica)).suspend()  # it will not end by itself
    assert machine.up
    machine.up.terminate()
    wait_for(lambda: "stopping" in machine.log(), what=machine.log)
    wait_for(lambda: any(r.state == "stopping" for r in machine.replicas()), what=machine.log)
    machine.up.terminate()
    assert machine.up.wait(30) == 0, machine.log()
    assert not psutil.wait_procs(running, timeout=10)[1]


@pytest.mark.parametrize("again", [False, True], ids=["its own", "adopted"])
def test_told_to_stop_it_ends_everything_it_looks_after(machine: Machine, again: bool) -> None:
    machine.start()
    machine.promote(OLD)
    if again:
        machine.kill()
        machine.start()
    running = machine.processes()
    assert len(running) == 2
    assert machine.up
    machine.up.terminate()
    assert machine.up.wait(30) == 0, machine.log()
    assert not psutil.wait_procs(running, timeout=10)[1]
    assert not machine.replicas()
    machine.start()  # what was wanted is wanted still
    machine.wait_for_replicas(OLD, 1)
