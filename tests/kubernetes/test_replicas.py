"""Which pods get requests. Pure: no cluster."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from lightkube.resources.core_v1 import Pod

from deployment.builders import V1, V2, V3, serving
from modelyard.deployment.targets.kubernetes.replicas import replicas, traffic
from modelyard.repository import CanaryStep, Deployment, DeploymentSpec, Pin, Strategy

NOW = "2026-01-01T00:00:00Z"
WANTED = {"production": {"digits": serving(V1, V2)}}


def pod(name: str, version: Pin = V1, *, ready: bool = True, started: bool = True, ending: bool = False) -> Pod:
    notes = {"modelyard/model": "digits", "modelyard/version": str(version), "modelyard/digest": str(version.digest)}
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {"modelyard/environment": "production"},
        "annotations": notes | {"modelyard/engine": "pytorch"},
    }
    if ending:
        metadata["deletionTimestamp"] = NOW
    container = {"name": "server", "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "started": started}
    status = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [container],
    }
    return msgspec.convert({"metadata": metadata, "status": status}, Pod)


def routed(*pods: Pod) -> set[str]:
    return set(traffic(pods, 8080, WANTED, 0.0)[1].routed)


def test_ready_ones_of_wanted_versions() -> None:
    assert routed(pod("old"), pod("new", V2), pod("strange", V3), pod("young", V2, ready=False, started=False)) == {
        "old",
        "new",
    }


def test_one_that_is_to_end_gets_nothing_new_and_keeps_what_it_has() -> None:
    found, to = traffic([pod("old", ending=True), pod("new", V2)], 8080, WANTED, 0.0)
    assert to.routed == {"new"}
    assert {each.id: each.state for each in found} == {"old": "ready", "new": "ready"}


@pytest.mark.parametrize(
    ("pods", "chosen"),
    [
        ([pod("old", ending=True), pod("flaps", V2, ready=False)], {"old"}),
        ([pod("old", ending=True, ready=False), pod("flaps", V2, ready=False)], {"flaps"}),
        ([pod("flaps", V2, ready=False), pod("old", ending=True), pod("new", V2)], {"new"}),
        ([pod("young", ready=False, started=False)], set()),
        ([], set()),
    ],
)
def test_where_none_is_ready_the_fittest_get_requests(pods: list[Pod], chosen: set[str]) -> None:
    assert routed(*pods) == chosen


@pytest.mark.parametrize(
    ("pods", "share", "standby"),
    [
        ([], 0, set()),
        ([pod("old")], 0, set()),
        ([pod("old"), pod("new", V2)], 25, set()),
        ([pod("old"), pod("new", V2, ready=False)], 0, set()),
        ([pod(f"old-{n}") for n in range(8)] + [pod("new", V2)], 12, set()),  # an autoscaler has made more
    ],
)
def test_beside_what_serves_the_new_version_has_its_steps_share(pods: list[Pod], share: int, standby: set[str]) -> None:
    canary = serving(V1).ask(V2, spec=DeploymentSpec(4, strategy=Strategy("canary", steps=(CanaryStep(25),))))
    assert to_of(canary, pods) == (share, standby)


def test_what_was_there_before_stands_by_once_the_new_version_has_all_requests() -> None:
    watched = serving(V1).ask(V2, spec=DeploymentSpec(1, strategy=Strategy(keep_warm_s=60)))
    both = [pod("old"), pod("new", V2), pod("leaving", ending=True)]
    assert to_of(watched, both) == (100, {"old"})
    assert to_of(watched, [pod("old"), pod("new", V2, ready=False)]) == (0, set())
    done = watched.finished(1000.0)
    assert to_of(done, both, 1059.0) == (None, {"old"})
    assert to_of(done, both, 1061.0) == (None, set())


def to_of(deployment: Deployment, pods: list[Pod], now: float = 0.0) -> tuple[int | None, set[str]]:
    """The target's share, and who stands by."""
    _, to = traffic(pods, 8080, {"production": {"digits": deployment}}, now)
    assert not to.routed & to.standby
    return to.shares.get(("production", "digits")), set(to.standby)


def test_somebody_elses_pods_are_nobodys() -> None:
    strange = pod("strange")
    assert strange.metadata is not None
    strange.metadata.annotations = {}
    homeless = pod("homeless")
    assert homeless.status is not None
    homeless.status.podIP = None
    assert replicas([strange, homeless], 8080) == []
