"""Canaries and replicas kept warm on a cluster, while clients ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from deployment.receiver import receiving
from faults.machine import save_slow
from faults.test_canary import BOUNDS
from modelyard.deployment.promotion import RolloutOptions
from modelyard.deployment.suite import Golden, Suite
from modelyard.errors import RolloutFailed
from times import ONE, SIGNATURE

from .kubelet import wait_for
from .site import MODEL, NEW, OLD, Site

pytestmark = [pytest.mark.kubernetes, pytest.mark.long]
SLOW = "v1.3.0"
STEPS = RolloutOptions(steps="25,50", step_pause_s=0.5, keep_warm_s=120)


@pytest.fixture
def serving(site: Site) -> Site:
    """Two replicas of OLD serve; analyses look twice a second."""
    site.yard.configuration.set_config("rollout", "*", BOUNDS)
    site.begin(replicas=2)
    return site


def golden(factor: float) -> Suite:
    """A suite for a version that multiplies by its factor."""
    answer: dict[str, Any] = {"outputs": [{"name": "y", "data": [factor, 2 * factor]}]}
    return Suite(name="times", golden=(Golden(request=ONE, expect=answer),))


def names(site: Site, version: str) -> set[str]:
    return {str(pod.metadata.name) for pod in site.pods(version) if pod.metadata and not pod.metadata.deletionTimestamp}


def crash(site: Site) -> int:
    """End the processes of NEW. Returns how many there were."""
    found = names(site, NEW)
    mine = [each for each in psutil.process_iter(["cmdline"]) if found & {*(each.info["cmdline"] or ())}]
    for each in mine:
        each.kill()
    return len(mine)


def whys(site: Site) -> list[str]:
    history = site.yard.repository.environment("production").history()
    return [entry.why.removeprefix(f"{MODEL}: ") for entry, _ in history]


def test_a_canary_step_by_step_and_the_way_back_at_once(serving: Site) -> None:
    with serving.load() as load:
        kept = names(serving, OLD)
        serving.promote(NEW, rollout=STEPS, suite=golden(2.0))
        assert whys(serving)[-5:] == [
            f"{NEW} gets 25 % of the requests, for 0.5 s",
            "step 1 of 2 (25 %) is passed; next 50 %",
            f"{NEW} gets 50 % of the requests, for 0.5 s",
            f"step 2 of 2 (50 %) is passed; {NEW} takes over",
            f"{NEW} serves",
        ]
        wait_for(lambda: load.answered[f"{MODEL}:{NEW}"] > 200, what=serving.log)
        assert names(serving, OLD) == kept
        assert len(kept) == 2
        serving.yard.deployments.rollback(MODEL)
        served = load.answered[f"{MODEL}:{OLD}"]
        wait_for(lambda: load.answered[f"{MODEL}:{OLD}"] > served + 50)
        assert names(serving, OLD) == kept  # nothing had to be started
        wait_for(lambda: not serving.pods(NEW), what=serving.log)
        load.goes_on()
    assert load.failed == []


def test_wrong_answers_are_found_before_any_client_gets_one(serving: Site) -> None:
    with (
        serving.load() as load,
        pytest.raises(RolloutFailed, match=f"{NEW} is worse than {OLD}: golden request 1: .* expected"),
    ):
        serving.promote(NEW, rollout=STEPS, suite=golden(3.0))
    assert load.failed == []
    assert set(load.answered) == {f"{MODEL}:{OLD}"}
    assert len(names(serving, OLD)) == 2
    wait_for(lambda: not serving.pods(NEW), what=serving.log)


def test_a_slow_version_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("MODELYARD_SERVING__TRUST_CODE", f'["{MODEL}"]')
    serving: Site = request.getfixturevalue("serving")
    serving.yard.repository.register_model(MODEL, SLOW, save_slow(tmp_path / "slow", 2.0), {"signature": SIGNATURE})
    with (
        serving.load() as load,
        pytest.raises(RolloutFailed, match=f"{SLOW} is worse than {OLD}: its 95th percentile"),
    ):
        serving.promote(SLOW, rollout=STEPS)
    assert load.failed == []
    assert load.answered[f"{MODEL}:{SLOW}"]
    wait_for(lambda: not serving.pods(SLOW), what=serving.log)
    assert len(names(serving, OLD)) == 2


def test_whoever_leads_is_killed_in_the_midst_of_a_canary(serving: Site) -> None:
    """Events go to a webhook all the same, each at least once and in order."""
    with serving.load() as load, receiving() as webhook:
        serving.yard.configuration.set_config("events", "webhook", webhook.url)
        wait_for(serving.notes, what=serving.log)
        serving.promote(NEW, rollout=RolloutOptions(steps="50:resume", analysis=False), wait=False)
        wait_for(lambda: serving.now().progress.pause, what=serving.log)
        wait_for(lambda: load.answered[f"{MODEL}:{NEW}"] > 50, what=serving.log)
        serving.kill("controller")
        serving.kill("gateway")
        load.goes_on()
        serving.yard.deployments.resume(MODEL)
        serving.start("controller")
        serving.start("gateway")
        serving.wait_until_done()
        wait_for(lambda: not serving.pods(OLD), what=serving.log)
        load.goes_on()
        told = [f"promote {MODEL}:{NEW}, forced: a test", f"resume the rollout of {MODEL}", *whys(serving)[-1:]]
        wait_for(lambda: webhook.got and webhook.got[-1]["why"].endswith(told[-1]), what=serving.log)
    assert load.failed == []
    numbers = [event["number"] for event in webhook.got]
    assert sorted({*numbers}) == list(range(numbers[0], numbers[-1] + 1))
    assert numbers == sorted(numbers)
    assert {*told[:2]} <= {event["why"] for event in webhook.got}


def test_a_crash_soon_after_is_taken_back(serving: Site) -> None:
    """As long as the old version is kept warm."""
    serving.promote(NEW, rollout=RolloutOptions(keep_warm_s=120))
    crashes: list[int] = []

    def failed() -> bool:
        crashes.append(crash(serving))
        return serving.now().outcome == "failed"

    with serving.load() as load:
        wait_for(lambda: load.answered[f"{MODEL}:{NEW}"] > 50, what=serving.log)
        wait_for(failed, what=serving.log)
        wait_for(lambda: not serving.pods(NEW), what=serving.log)
        load.goes_on()
    assert len(load.failed) <= load.threads * sum(crashes)  # what was in hand
    assert str(serving.now().serving) == OLD
    assert "does not stay up" in serving.now().reason
    assert set(load.answered) == {f"{MODEL}:{OLD}", f"{MODEL}:{NEW}"}
