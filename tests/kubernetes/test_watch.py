"""Whoever watches pods learns of them, whatever happens to its connection. On a real API server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lightkube.models.core_v1 import Container, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod, ServiceAccount

from modelyard.deployment.targets.kubernetes import cluster, pod_watch
from modelyard.deployment.targets.kubernetes.cluster import connect
from modelyard.deployment.targets.kubernetes.pod_watch import PodWatch
from modelyard.settings import load_settings

from .control_plane import ControlPlane
from .fixtures import client
from .kubelet import wait_for
from .relay import Relay

pytestmark = pytest.mark.kubernetes


def test_a_connection_that_is_lost_without_a_word(
    cluster_variables: None, plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_watch, "WATCH_S", 1)
    monkeypatch.setattr(cluster, "_SLACK_S", 1)
    monkeypatch.setenv("MODELYARD_KUBERNETES__REQUEST_TIMEOUT_S", "1")
    with Relay(plane.port).running() as relay:
        config = tmp_path / "kubeconfig"
        config.write_text(Path(os.environ["KUBECONFIG"]).read_text().replace(f":{plane.port}", f":{relay.port}"))
        monkeypatch.setenv("KUBECONFIG", str(config))
        watch = PodWatch(connect(load_settings().kubernetes, patience_s=1), {"app": "x"})
        watch.start()
        wait_for(lambda: watch.pods() == [])
        relay.lose()
        make_pod(plane, namespace)
        wait_for(watch.pods, what="the watch has heard of nothing")


def make_pod(plane: ControlPlane, namespace: str) -> None:
    """One that no node takes."""
    spec = PodSpec(
        containers=[Container(name="x", image="x")],
        serviceAccountName="x",
        automountServiceAccountToken=False,
        nodeSelector={"no": "node"},
    )
    with client(plane, namespace) as api:
        api.create(ServiceAccount(metadata=ObjectMeta(name="x")))
        api.create(Pod(metadata=ObjectMeta(name="x", labels={"app": "x"}), spec=spec))
