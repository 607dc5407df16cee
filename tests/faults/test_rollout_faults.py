"""What goes wrong in the middle of a rollout, while clients keep asking: the old version serves on, and it is told why.

A process that crashes takes with it what it has in hand; Envoy that is killed takes what passes through it. Nothing
else may fail, and clients are told to try again.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelyard.deployment.promotion import RolloutOptions
from modelyard.errors import RolloutFailed

from .conftest import NEW, OLD
from .load import Load, factor
from .machine import SIGNATURE, Machine, save_crashing, save_never_ready, wait_for
from .proxy import FaultyProxy

STUCK, CRASHING = "v1.6.0", "v1.7.0"
CRASHES = 2  # that end a rollout; each takes at most one request of each client with it
REQUESTS = 40  # that the crashing one answers
CUT_OFF = ("RemoteDisconnected", "ConnectionResetError", "IncompleteRead")  # an answer that had begun
BROKEN_CONNECTION = ("ConnectionRefusedError", "BrokenPipeError", *CUT_OFF)
WENT_BACK = rf"went back to {OLD}: {CRASHING} "
CRASHED, WORSE = "does not stay up: out of luck", rf"is worse than {OLD}: "  # or what the analysis saw of the crash


@pytest.fixture
def far(
    tmp_path: Path, artifacts: dict[str, Path], proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """A machine whose store is a bucket behind the proxy."""
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", proxy.url)
    machine = Machine(tmp_path, f"s3://yard/{uuid.uuid4().hex}")
    try:
        for version in (OLD, NEW):
            machine.register(version, artifacts[version], SIGNATURE)
        yield machine
    finally:
        machine.end()


def old_serves_alone(machine: Machine, replicas: int, load: Load) -> None:
    """As if nothing had happened, and the journal says why."""
    machine.wait_for_replicas(OLD, replicas)
    answered, failed = load.answered[OLD], len(load.failures)
    wait_for(lambda: load.answered[OLD] > answered + 50, what=machine.log)
    assert len(load.failures) == failed, load.failures[failed:]
    last, deployments = machine.yard.repository.environment("production").history()[-1]
    assert last.why.startswith(f"{machine.model}: went back: ")
    assert str(deployments[machine.model].serving) == str(deployments[machine.model].target) == OLD
    assert deployments[machine.model].outcome == "failed"


def test_a_version_that_never_gets_ready(machine: Machine, tmp_path: Path) -> None:
    machine.register(STUCK, save_never_ready(tmp_path / "stuck", factor(STUCK)), SIGNATURE)
    machine.start()
    machine.promote(OLD, replicas=2)
    machine.kill()
    machine.variables["MODELYARD_SERVING__READY_TIMEOUT_S"] = "1"  # the old ones are ready for long
    machine.start()
    load = Load(machine.port, machine.model)
    with load.running():
        with pytest.raises(RolloutFailed, match=f"{STUCK} does not stay up: it was not ready after 1 s"):
            machine.promote(STUCK)
        old_serves_alone(machine, 2, load)
    assert not load.failures
    assert set(load.answered) == {OLD}


def untold(load: Load) -> list[str]:
    """The failures that do not show themselves as what may be tried again: a 503 that says so, or a cut-off answer."""
    failures = load.failures
    return [f for f in failures if not f.startswith(CUT_OFF) and not ("503" in f and "; try again" in f)]


@pytest.mark.parametrize(
    ("rollout", "why"),
    [
        (RolloutOptions(steps="50:600", analysis=False), CRASHED),
        (RolloutOptions(strategy="rolling", analysis=True, keep_warm_s=600), f"(?:{CRASHED}|{WORSE})"),
    ],
    ids=["in a canary", "watched after the switch"],
)
def test_a_version_that_crashes_some_time_after_it_was_ready(
    machine: Machine, tmp_path: Path, rollout: RolloutOptions, why: str
) -> None:
    machine.register(CRASHING, save_crashing(tmp_path / "crashing", factor(CRASHING), REQUESTS), SIGNATURE)
    machine.start()
    machine.promote(OLD)
    load = Load(machine.port, machine.model)
    with load.running():
        with pytest.raises(RolloutFailed, match=WENT_BACK + why):
            machine.promote(CRASHING, rollout=rollout)
        assert load.saw(CRASHING)
        old_serves_alone(machine, 1, load)
    assert untold(load) == []
    assert len(load.failures) <= CRASHES * load.clients, Counter(load.failures)


def test_a_version_that_serves_and_crashes_while_the_old_one_is_kept_warm(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD, replicas=2)
    load = Load(machine.port, machine.model)
    with load.running():
        machine.promote(NEW, rollout=RolloutOptions(keep_warm_s=600))
        kept = {r.id for r in machine.replicas(OLD)}
        first, second = machine.replicas(NEW)
        psutil.Process(machine.pid(first)).kill()
        wait_for(lambda: len({r.id for r in machine.replicas(NEW) if r.state == "ready"} - {first.id}) == 2)
        assert str(machine.deployment().serving) == NEW  # one crash may be bad luck
        psutil.Process(machine.pid(second)).kill()
        wait_for(lambda: machine.deployment().outcome == "failed", what=machine.log)
        old_serves_alone(machine, 2, load)
        assert {r.id for r in machine.replicas()} == kept  # nothing had to be started
    assert machine.deployment().reason.startswith(f"{NEW} does not stay up: ")
    assert untold(load) == []
    assert len(load.failures) <= CRASHES * load.clients, Counter(load.failures)


def test_the_store_is_gone_for_a_while(far: Machine, proxy: FaultyProxy) -> None:
    far.start()
    far.promote(OLD, replicas=2)
    load = Load(far.port, far.model)
    with load.running():
        far.promote(NEW, wait=False)
        wait_for(lambda: far.replicas(NEW), what=far.log)
        proxy.decide = lambda _: "reset"
        # The new replica can't get its files, which is not its version's fault; no other one can be started.
        signs = (" ended: error: s3://", " store: s3://")
        wait_for(lambda: all(sign in far.log() for sign in signs), what=far.log, timeout_s=120)
        answered = load.answered.total()
        wait_for(lambda: load.answered.total() > answered + 100, what=far.log)
        proxy.decide = lambda _: None
        wait_for(lambda: [r.state for r in far.replicas(NEW) if not r.error] == ["ready"] * 2, what=far.log)
        wait_for(lambda: not far.replicas(OLD), what=far.log)
        wait_for(lambda: far.deployment().outcome == "done", what=far.log)
    assert not load.failures
    assert str(far.deployment().serving) == NEW


def test_envoy_is_killed(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD, replicas=2)
    [gateway] = [process for process in machine.processes() if "envoy" in process.name()]
    load = Load(machine.port, machine.model)
    with load.running():
        machine.promote(NEW, wait=False)
        wait_for(lambda: machine.replicas(NEW), what=machine.log)
        gateway.kill()
        machine.wait_for_replicas(NEW, 2)
        wait_for(lambda: load.saw(NEW), what=machine.log)
    assert all(failure.startswith(BROKEN_CONNECTION) for failure in load.failures), load.failures
    done = machine.deployment()
    assert (str(done.serving), done.outcome) == (NEW, "done")
    again = Load(machine.port, machine.model)
    with again.running():
        wait_for(lambda: again.answered[NEW] > 100, what=machine.log)
    assert not again.failures
