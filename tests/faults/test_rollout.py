"""Rollouts on real processes while clients keep asking: whatever happens, no request may fail."""

from __future__ import annotations

import pytest

from modelyard.errors import RolloutFailed

from .conftest import BROKEN, NEW, OLD
from .load import Load
from .machine import Machine


def test_rollouts_and_rollbacks_fail_no_request(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    load = Load(machine.port, machine.model)
    with load.running():
        for replicas in (1, 2):
            machine.promote(OLD, replicas=replicas)
            machine.promote(NEW)
            machine.wait_for_replicas(NEW, replicas)
            machine.yard.deployments.rollback(machine.model)
            assert str(machine.deployment().serving) == OLD
    assert not load.failures
    assert load.saw(OLD)
    assert load.saw(NEW)


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
