"""A model's way on a cluster, by the same verbs as on one machine, while clients ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import DeploymentManager, Yard
from modelyard.errors import RolloutFailed
from modelyard.settings import load_settings
from ports import free_port

from .kubelet import Kubelet, wait_for
from .models import register
from .running import Load, process

pytestmark = [pytest.mark.kubernetes, pytest.mark.long]
REQUESTS = 5_000


def test_promotion_and_rollback_fail_no_request(
    cluster_yard: Yard, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MODELYARD_GATEWAY__PORT", str(port))
    gateway, manager = f"http://127.0.0.1:{port}", Yard(load_settings()).deployments
    for number in (1, 2):
        register(cluster_yard.repository, tmp_path, f"v1.{number}.0", float(number))

    with (
        process("controller", tmp_path / "controller.log"),
        process("gateway", tmp_path / "gateway.log", f"{gateway}/readyz"),
    ):
        wait_for(cluster_yard.local_status(cluster_yard.store).running, what=(tmp_path / "controller.log").read_text)
        stage_and_promote(manager, "v1.1.0", kubelet)
        manager.deploy_to_staging("classifier", "v1.2.0")
        with Load(gateway, "classifier", threads=4, pause_s=0.01).running() as load:
            while load.count < REQUESTS:
                load.goes_on()
                manager.promote_to_production("classifier", "v1.2.0")
                load.goes_on()
                manager.rollback("classifier")
            load.goes_on()

    assert load.failed == []
    assert set(load.answered) == {"classifier:v1.1.0", "classifier:v1.2.0"}
    assert manager.repo.tags("classifier")["production"] == "v1.1.0"


def stage_and_promote(manager: DeploymentManager, version: str, kubelet: Kubelet) -> None:
    try:
        manager.deploy_to_staging("classifier", version)
        manager.promote_to_production("classifier", version, replicas=2)
    except RolloutFailed:
        print(kubelet.log())
        raise
