"""A workload to begin with, and settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelyard.deployment.targets.kubernetes.workload import Workload
from modelyard.refs import Digest, ModelRef, Version
from modelyard.repository import DeploymentSpec
from modelyard.settings import KubernetesSettings

DIGEST = Digest("sha256:" + "ab" * 32)
WORKLOAD = Workload(
    name="digits-production",
    environment="production",
    yard="0123456789ab",
    ref=ModelRef("digits", Version(1, 2, 0), digest=DIGEST),
    engine="pytorch",
    owner="anna@laptop",
    spec=DeploymentSpec(replicas=2),
    command=("modelyard", "serve", f"digits:v1.2.0@{DIGEST}", "--host", "$(POD_IP)"),
    pull=("modelyard", "pull", f"digits:v1.2.0@{DIGEST}"),
    ready_path="/v2/health/ready",
    variables={"MODELYARD_STORE": "s3://bucket/yard"},
    ready_s=120,
    drain_s=60,
)


def workload(**changes: Any) -> Workload:
    return replace(WORKLOAD, **changes)


def settings(**values: Any) -> KubernetesSettings:
    return KubernetesSettings(**{"image": "registry.example/modelyard:0.1.0"} | values)
