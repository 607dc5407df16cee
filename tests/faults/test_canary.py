"""Canaries and replicas kept warm, on real processes while clients keep asking: no request may fail."""

from __future__ import annotations

import multiprocessing
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from modelyard.configuration.sections import Rollout
from modelyard.deployment.promotion import RolloutOptions
from modelyard.deployment.suite import Golden, Suite
from modelyard.errors import Conflict, RolloutFailed
from modelyard.settings import GatewaySettings, load_settings
from modelyard.yard import Yard

from .conftest import NEW, OLD, SLOW, WRONG
from .load import Load, factor
from .machine import WIDTH, Machine, wait_for

TWO_STEPS = RolloutOptions(steps="25,50", step_pause_s=0.5)
BOUNDS = {"bounds": {"min_requests": 50, "interval_s": 0.5, "confidence": 0.95, "latency_factor": 3}}
PROCESSES, PROMOTIONS = 8, 20
_PAUSE_S = 0.5
QUALITY = """
def error(version):
    ask = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [2, 2]}
    [answer] = version.ask({"inputs": [ask]})["outputs"]
    return abs(answer["data"][0] - 2 * int(version.version.split(".")[1]))
"""


@pytest.fixture
def serving(machine: Machine) -> Machine:
    """Two replicas of OLD serve; analyses look twice a second."""
    machine.yard.configuration.set_config("rollout", "*", BOUNDS)
    machine.start()
    machine.promote(OLD, replicas=2)
    return machine


def whys(machine: Machine) -> list[str]:
    return [
        entry.why.removeprefix(f"{machine.model}: ")
        for entry, _ in machine.yard.repository.environment("production").history()
    ]


def golden(version: str) -> Suite:
    """A suite that knows what the version has to answer."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [2] * WIDTH}
    expected: dict[str, Any] = {"outputs": [{"name": "y", "data": [2.0 * factor(version)] * WIDTH}]}
    return Suite(name="times", golden=(Golden(request={"inputs": [tensor]}, expect=expected),))


def test_a_canary_step_by_step_and_the_way_back_at_once(serving: Machine) -> None:
    load = Load(serving.port, serving.model)
    with load.running():
        serving.promote(NEW, rollout=RolloutOptions(steps="25,50", step_pause_s=0.5, keep_warm_s=60), suite=golden(NEW))
        assert whys(serving)[-7:] == [
            f"{NEW} is asked the golden requests",
            "the step of the golden requests is passed; next 25 %",
            f"{NEW} gets 25 % of the requests, for 0.5 s",
            "step 1 of 2 (25 %) is passed; next 50 %",
            f"{NEW} gets 50 % of the requests, for 0.5 s",
            f"step 2 of 2 (50 %) is passed; {NEW} takes over",
            f"{NEW} serves",
        ]
        kept = {r.id for r in serving.replicas(OLD)}
        assert len(kept) == 2
        serving.yard.deployments.rollback(serving.model)
        assert {r.id for r in serving.replicas(OLD)} == kept  # nothing had to be started
        served = load.answered[OLD]
        wait_for(lambda: load.answered[OLD] > served + 50)
    assert not load.failures
    assert load.saw(NEW)


def test_wrong_answers_are_found_before_any_client_gets_one(serving: Machine) -> None:
    load = Load(serving.port, serving.model)
    with (
        load.running(),
        pytest.raises(RolloutFailed, match=f"{WRONG} is worse than {OLD}: golden request 1: .* expected"),
    ):
        serving.promote(WRONG, rollout=TWO_STEPS, suite=golden(WRONG))
    assert not load.failures
    assert set(load.answered) == {OLD}
    serving.wait_for_replicas(OLD, 2)


def test_a_slow_version_is_found(serving: Machine) -> None:
    load = Load(serving.port, serving.model)
    with load.running(), pytest.raises(RolloutFailed, match=f"{SLOW} is worse than {OLD}: its 95th percentile"):
        serving.promote(SLOW, rollout=TWO_STEPS)
    assert not load.failures
    assert str(serving.deployment().serving) == OLD
    assert len(serving.replicas(OLD)) == 2


def test_a_metric_of_ones_own_finds_what_neither_failures_nor_latency_show(serving: Machine) -> None:
    (serving.folder / "quality.py").write_text(QUALITY)
    steps = ("--steps", "25,50", "--step-pause", "0.5", "--metric", "quality.py:error:lower:0.5")
    asked = (*steps, "--force", "--reason", "a test")
    load = Load(serving.port, serving.model)
    with load.running():
        good = serving.run("promote", f"{serving.model}:{NEW}", *asked)
        assert good.returncode == 0, good
        assert not load.failures
        wrong = serving.run("promote", f"{serving.model}:{WRONG}", *asked)
        serving.wait_for_replicas(NEW, 2)
    reason = f"{WRONG} is worse than {NEW}: its quality.py:error is 2, the old version's 0; lower is better, and 0.5"
    assert (wrong.returncode, reason in wrong.stderr) == (1, True), wrong
    assert whys(serving)[-1].startswith(f"went back: {reason}")
    assert load.failures and all(f"{serving.model}:{WRONG}@" in failure for failure in load.failures)


def test_a_metric_that_is_not_trusted_is_refused(serving: Machine) -> None:
    (serving.folder / "quality.py").write_text(QUALITY)
    serving.variables["MODELYARD_SERVING__TRUST_CODE"] = "[]"
    asked = ("promote", f"{serving.model}:{NEW}", "--metric", "quality.py:error:lower", "--dry-run")
    refused = serving.run(*asked)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused
    assert (
        "the metric quality.py:error is Python code, which is not trusted; read it, then add sha256:" in refused.stderr
    )
    assert str(serving.deployment().target) == OLD


def test_a_metric_that_is_trusted_only_by_who_promotes_is_refused(machine: Machine) -> None:
    (machine.folder / "quality.py").write_text(QUALITY)
    machine.variables["MODELYARD_SERVING__TRUST_CODE"] = "[]"
    machine.start()
    del machine.variables["MODELYARD_SERVING__TRUST_CODE"]
    refused = machine.run("promote", f"{machine.model}:{NEW}", "--metric", "quality.py:error:lower", "--dry-run")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused
    assert "the `modelyard up` that runs does not trust; start it again with sha256:" in refused.stderr


def test_paused_resumed_and_aborted_by_hand(serving: Machine) -> None:
    load = Load(serving.port, serving.model)
    asked = ("promote", f"{serving.model}:{NEW}", "--steps", "50:resume,100:resume", "--no-analysis")
    with load.running():
        done = serving.run(*asked, "--force", "--reason", "a test")
        assert "step 1 of 2: v1.2.0 gets 50 % of the requests; paused" in done.stdout, done
        serving.kill()  # whoever comes next knows the step by the journal
        serving.start()
        assert serving.run("promote", serving.model, "--resume").returncode == 0
        wait_for(lambda: serving.deployment().progress.pause and serving.deployment().progress.step == 1)
        aborted = serving.run("promote", serving.model, "--abort", "--reason", "enough")
        assert aborted.stdout == f"{serving.model}: it goes back to {OLD}\n"
        serving.wait_for_replicas(OLD, 2)
    assert not load.failures
    assert load.saw(NEW)
    assert serving.deployment().reason == "tester aborted it: enough"


def _race(folder: str, port: int, values: dict[str, str], model: str, turns: Any, promoted: Any) -> None:
    """Promote the one version and the other, each time when no other rollout stands in the way."""
    yard = Yard(load_settings(Path(folder), gateway=GatewaySettings(port=port), **values))
    while True:
        with turns.get_lock():
            turn, turns.value = turns.value, turns.value + 1
        if turn >= PROMOTIONS:
            return
        version, done = (NEW, OLD)[turn % 2], None
        while done is None:
            try:
                done = yard.deployments.promote_to_production(
                    model, version, rollout=RolloutOptions(keep_warm_s=60), force=True, reason="a race"
                )
            except Conflict:
                time.sleep(_PAUSE_S)  # leaves the processors to the rollout that is under way
        promoted.put((version, str(done.target), done.rollout))


def test_promotions_that_race_come_one_after_the_other(machine: Machine) -> None:
    machine.start()
    machine.promote(OLD)
    context = multiprocessing.get_context("spawn")
    turns, promoted = context.Value("i", 0), context.Queue()
    arguments = (str(machine.folder), machine.port, machine.values, machine.model, turns, promoted)
    racers = [context.Process(target=_race, args=arguments) for _ in range(PROCESSES)]
    for racer in racers:
        racer.start()
    done = [promoted.get(timeout=200) for _ in range(PROMOTIONS)]
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    history = machine.yard.repository.environment("production").history()
    assert [entry.number for entry, _ in history] == list(range(1, len(history) + 1))
    states = [(entry.why, found[machine.model]) for entry, found in history]
    asked = {now.rollout: str(now.target) for why, now in states if why.startswith("promote")}
    assert all(version == target == asked[rollout] for version, target, rollout in done)
    for (_, before), (why, after) in pairwise(states):
        if why.startswith("promote"):  # nothing was under way, and nothing has changed with the wish
            assert not before.under_way
            assert after.serving == before.serving
    last = machine.deployment()
    assert (last.outcome, last.serving, last.rollout) == ("done", last.target, [*asked][-1])


def test_the_bounds_of_these_tests_are_a_rollouts() -> None:
    assert Rollout.model_validate(BOUNDS).bounds.min_requests == 50
