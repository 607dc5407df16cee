"""Rollouts on real processes while clients keep asking: whatever happens, no request may fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from modelyard.deployment.promotion import RolloutOptions
from modelyard.errors import RolloutFailed

from .conftest import BROKEN, NEW, OLD
from .load import Load, LongAnswer, factor
from .machine import Machine, save_torchscript, wait_for

LONG = 5  # answers that are under way at each promotion and rollback
WIDE = {
    key: [{"name": name, "datatype": "FP32", "shape": [-1, -1]}] for key, name in (("inputs", "x"), ("outputs", "y"))
}
KINDS = {
    "rolling": RolloutOptions(strategy="rolling"),
    "canary": RolloutOptions(steps="25,50", step_pause_s=0.5, analysis=False),
}


@pytest.fixture
def wide(machine: Machine) -> Machine:
    """Its model takes rows of any length, so that an answer can be long."""
    machine.model += "-wide"
    for version in (OLD, NEW):
        path = machine.folder / f"{version}.pt"
        machine.register(version, save_torchscript(path, factor(version)), {"signature": WIDE})
    return machine


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_and_rollbacks_fail_no_request(wide: Machine, kind: str) -> None:
    wide.start()
    wide.promote(OLD)
    load = Load(wide.port, wide.model)
    with load.running():
        for replicas in (1, 2):
            wide.promote(OLD, replicas=replicas)
            overtake(wide, lambda: wide.promote(NEW, rollout=KINDS[kind], wait=False))
            wide.wait_for_replicas(NEW, replicas)
            assert wide.deployment().spec.strategy.kind == kind
            overtake(wide, lambda: wide.yard.deployments.rollback(wide.model, wait=False))
            wide.wait_for_replicas(OLD, replicas)
            assert str(wide.deployment().serving) == OLD
    assert not load.failures
    assert load.saw(OLD)
    assert load.saw(NEW)


def overtake(machine: Machine, begin: Callable[[], object]) -> None:
    """Begin a rollout while long answers are under way, which are read on when their replica gets no more requests."""
    before = str(machine.deployment().serving)
    wait_for(lambda: not draining(machine), what=machine.log)
    answers = [LongAnswer(machine.port, machine.model) for _ in range(LONG)]
    for answer in answers:
        answer.start()
    wait_for(
        lambda: all(answer.begun.is_set() for answer in answers),
        what=lambda: str([answer.failure for answer in answers]),
    )
    begin()
    wait_for(lambda: draining(machine), what=machine.log)
    for answer in answers:
        answer.go_on.set()
    wait_for(lambda: machine.deployment().outcome != "running", what=machine.log)
    for answer in answers:
        answer.join(60)
    assert [(answer.version, answer.failure) for answer in answers] == [(before, "")] * LONG


def draining(machine: Machine) -> bool:
    """Whether the gateway knows a replica that finishes what it has."""
    for path in (machine.run_folder / "gateway" / "eds").glob("*.json"):
        with suppress(FileNotFoundError):  # its version has gone meanwhile
            if "DRAINING" in path.read_text():
                return True
    return False


def test_a_version_that_fails_to_start_goes_back_by_itself(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    load = Load(machine.port, machine.model)
    with load.running():
        with pytest.raises(RolloutFailed, match=rf"went back to {OLD}: {BROKEN} does not stay up: .*does not answer"):
            machine.promote(BROKEN)
        machine.wait_for_replicas(OLD, 1)
    assert not load.failures
    assert set(load.answered) == {OLD}
    last, deployments = machine.yard.repository.environment("production").history()[-1]
    assert "went back" in last.why
    assert BROKEN in last.why
    assert deployments[machine.model].outcome == "failed"
    assert str(machine.deployment().serving) == str(machine.deployment().target) == OLD


def test_staged_validated_and_promoted(machine: Machine) -> None:
    machine.start()
    deployments = machine.yard.deployments
    deployments.deploy_to_staging(machine.model, OLD)
    done = deployments.promote_to_production(machine.model, OLD)
    assert done.evidence
    assert done.evidence.startswith("default-")
    [production] = [row for row in deployments.status() if row.environment == "production"]
    assert (production.serving, production.ready, production.wanted, production.outcome) == (OLD, 1, 1, "done")
