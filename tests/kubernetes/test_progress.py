"""What a rollout has come to, from what the API tells. Pure: no cluster."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod

from modelyard.deployment.targets.kubernetes.progress import progress
from modelyard.deployment.targets.kubernetes.trouble import by_model

NOW = "2026-01-01T00:00:00Z"


def deployment(*, wanted: int = 2, observed: int = 3, conditions: Any = (), **counts: int) -> Deployment:
    status = {"observedGeneration": observed, "conditions": [dict(each) for each in conditions], **counts}
    template = {"metadata": {"annotations": {"modelyard/template": "new"}}, "spec": {"containers": []}}
    spec = {"replicas": wanted, "selector": {}, "template": template}
    return msgspec.convert({"metadata": {"name": "d", "generation": 3}, "spec": spec, "status": status}, Deployment)


def pod(*, template: str = "new", conditions: Any = (), init: Any = (), containers: Any = (), **metadata: Any) -> Pod:
    common = {"image": "i:1", "imageID": "", "name": "server", "ready": False, "restartCount": 0}
    status = {
        "phase": "Pending",
        "conditions": list(conditions),
        "initContainerStatuses": [common | each for each in init],
        "containerStatuses": [common | each for each in containers],
    }
    about = {"name": "d-1", "annotations": {"modelyard/template": template}} | metadata
    spec = {"containers": [], "nodeName": "n-1"}
    return msgspec.convert({"metadata": about, "spec": spec, "status": status}, Pod)


def ended(code: int, said: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": said, "startedAt": NOW, "finishedAt": NOW}}


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
CRASHED = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(1, "loading\nerror: no memory\n")}


@pytest.mark.parametrize(
    ("found", "done", "words"),
    [
        (deployment(observed=2), False, "has not looked"),
        (deployment(updatedReplicas=1, replicas=3), False, "1 of 2 replicas are new"),
        (deployment(updatedReplicas=2, replicas=3), False, "1 old replicas are still there"),
        (deployment(updatedReplicas=2, replicas=2, availableReplicas=1), False, "1 of 2 new replicas are available"),
        (deployment(updatedReplicas=2, replicas=2, availableReplicas=2), True, "all replicas"),
        (deployment(wanted=0), True, "all replicas"),
    ],
)
def test_how_far_it_is(found: Deployment, done: bool, words: str) -> None:
    state = progress(found, [])
    assert (state.done, state.failed) == (done, "")
    assert words in state.words


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([], r"nothing moved within the deadline \(0 of 2 replicas are new\)"),
        (
            [pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}])],
            "pod d-1: no node takes it: 0/3 nodes are available",
        ),
        (
            [pod(init=[{"state": {"waiting": {"reason": "ErrImagePull", "message": "not  found"}}}])],
            r"the image i:1 can't be pulled \(ErrImagePull\): not found",
        ),
        (
            [
                pod(
                    containers=[
                        {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}}
                    ]
                )
            ],
            r"can't be made \(CreateContainerConfigError\): no secret",
        ),
        ([pod(init=[{"state": ended(1, "error: denied")}])], r"its files do not come \(exit code 1, 1 time\): error"),
        ([pod(containers=[CRASHED])], r"does not stay up \(exit code 1, 1 time\): error: no memory"),
    ],
)
def test_at_the_deadline_the_worst_pod_says_why(pods: list[Pod], said: str) -> None:
    failed = progress(deployment(conditions=[LATE]), pods).failed
    assert failed
    assert pytest.raises(AssertionError, match=said).matches(AssertionError(failed)), failed


def test_some_troubles_end_it_before_the_deadline() -> None:
    twice = [pod(containers=[CRASHED]), pod(containers=[CRASHED], name="d-2")]
    hopeless = [pod(containers=[{"state": {"waiting": {"reason": "InvalidImageName", "message": "bad"}}}])]

    assert "error: no memory" in progress(deployment(), twice).failed
    assert "InvalidImageName" in progress(deployment(), hopeless).failed
    assert progress(deployment(), twice[:1]).failed == ""  # one may be bad luck


def test_what_ends_for_want_of_the_store_has_until_the_deadline() -> None:
    pods = [pod(init=[{"state": ended(75, "error: no answer"), "restartCount": 5}])]

    assert progress(deployment(), pods).failed == ""
    late = progress(deployment(conditions=[LATE]), pods).failed
    assert "its files do not come (exit code 75, 6 times): error: no answer" in late


def test_the_worst_of_a_models_pods_is_told() -> None:
    own: dict[str, Any] = {
        "labels": {"modelyard/environment": "production"},
        "annotations": {"modelyard/model": "digits"},
    }
    silent = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    lost = pod(conditions=silent, containers=[{"ready": True}], **own)

    assert by_model([lost]) == {("production", "digits"): "pod d-1: its node n-1 does not answer"}
    assert "does not stay up" in by_model([lost, pod(containers=[CRASHED], name="d-2", **own)])["production", "digits"]
    assert by_model([pod(conditions=silent, deletionTimestamp=NOW, **own), pod(**own)]) == {}


def test_old_and_leaving_pods_say_nothing_about_the_new_version() -> None:
    others = [pod(containers=[CRASHED | {"restartCount": 9}], template="old")]
    others += [pod(containers=[CRASHED | {"restartCount": 9}], deletionTimestamp=NOW)]
    assert progress(deployment(), others).failed == ""


def test_a_quota_is_told() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: gpus"}
    assert progress(deployment(conditions=[refused]), []).words == "pods can't be made: exceeded quota: gpus"
    assert "exceeded quota" in progress(deployment(conditions=[refused, LATE]), []).failed
