"""Replicas are lost under load, with their node or by their own doing: the others serve on, and it is told why."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightkube.resources.core_v1 import Pod

from faults.machine import save_crashing, save_never_ready
from modelyard.deployment.targets.kubernetes.replicas import stays
from modelyard.errors import RolloutFailed
from times import SIGNATURE

from .kubelet import Kubelet, wait_for
from .running import Load
from .site import MODEL, OLD, Site

pytestmark = [pytest.mark.kubernetes, pytest.mark.long]
STUCK, CRASHING = "v1.6.0", "v1.7.0"
REQUESTS = 10  # that the crashing one answers
CUT_OFF = ("ReadError", "RemoteProtocolError")


def test_a_node_is_lost(site: Site, second_node: Kubelet) -> None:
    """From the node's silence to what is started in its place, and to its return."""
    site.begin(replicas=2)
    assert sorted(map(node, site.pods(OLD))) == ["node-1", "node-2"]
    (lost,) = (pod for pod in site.pods(OLD) if node(pod) == "node-2")
    address = f'"{lost.status and lost.status.podIP}"'
    with site.load() as load:
        load.goes_on()
        second_node.die()
        wait_for(lambda: "its node node-2 does not answer" in site.status().reason, what=site.log)
        wait_for(lambda: address not in site.endpoints(), what=site.endpoints)
        assert (site.status().ready, site.status().outcome) == (1, "done")
        wait_for(lambda: site.status().ready == 2, what=site.log)
        assert site.status().reason == ""
        assert [node(pod) for pod in site.pods(OLD) if stays(pod)] == ["node-1"] * 2
        second_node.come_back()
        wait_for(lambda: len(site.pods(OLD)) == 2, what=site.log)  # what ran there is forgotten
        load.goes_on()
    assert len(load.failed) <= load.threads, load.failed  # what the lost one had in hand
    assert untold(load) == []


def test_a_version_that_never_gets_ready_and_one_that_crashes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_SERVING__TRUST_CODE", f'["{MODEL}"]')
    monkeypatch.setenv("MODELYARD_KUBERNETES__MIN_READY_S", "5")
    for version, artifact in (
        (STUCK, save_never_ready(tmp_path / "stuck", 1)),
        (CRASHING, save_crashing(tmp_path / "crashing", 1, REQUESTS)),
    ):
        site.yard.repository.register_model(MODEL, version, artifact, {"signature": SIGNATURE})
    site.begin()
    served_by = uids(site)
    with site.load() as load:
        site.yard.deployments.configure(MODEL, "production", ["progress_deadline_s=8"])
        with pytest.raises(RolloutFailed, match=f"went back to {OLD}: nothing moved within the deadline"):
            site.promote(STUCK)
        load.goes_on()
        assert load.failed == []
        site.yard.deployments.configure(MODEL, "production", ["progress_deadline_s=100"])
        with pytest.raises(RolloutFailed, match=r"it does not stay up \(exit code 3, 2 times\): out of luck"):
            site.promote(CRASHING)
        assert "out of luck" in site.status().reason
        wait_for(lambda: not site.pods(CRASHING), what=site.log)
        load.goes_on()
    assert len(load.failed) <= 2 * load.threads, load.failed  # what it had in hand, both times
    assert untold(load) == []
    assert load.answered[f"{MODEL}:{CRASHING}"] >= REQUESTS
    assert str(site.now().serving) == OLD
    assert uids(site) == served_by  # nothing had to be started


def node(pod: Pod) -> str:
    return str(pod.spec and pod.spec.nodeName)


def uids(site: Site) -> set[str]:
    return {str(pod.metadata and pod.metadata.uid) for pod in site.pods(OLD)}


def untold(load: Load) -> list[str]:
    """The failures that do not show themselves as what may be tried again: a 503 that says so, or a cut-off answer."""
    return [f for f in load.failed if not f.startswith(CUT_OFF) and not (f.startswith("503") and "try again" in f)]
