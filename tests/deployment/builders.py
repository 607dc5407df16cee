"""Values that many of these tests start from."""

from __future__ import annotations

from typing import Any

from modelyard.deployment.plan import Replica
from modelyard.refs import Digest, Version
from modelyard.repository import Deployment, DeploymentSpec, Pin, Strategy


def pin(number: int) -> Pin:
    """v1.<number>.0, with a digest of its own."""
    return Pin(Version(1, number, 0), Digest(f"sha256:{number:064x}"))


V1, V2, V3, V4 = (pin(number) for number in (1, 2, 3, 4))


def serving(serves: Pin | None, target: Pin | None = None, *, replicas: int = 1, surge: int = 1) -> Deployment:
    """Serving one version; with a target, on the way to it in the rollout `now`."""
    spec = DeploymentSpec(replicas, strategy=Strategy(surge=surge))
    if target is None:
        return Deployment(serving=serves, target=serves, spec=spec, rollout="before", outcome="done")
    return Deployment(serving=serves, target=target, spec=spec, rollout="now", outcome="running")


def replica(name: str, version: Pin, state: Any = "ready", **options: Any) -> Replica:
    """In production; ready ones are in traffic unless they say how long they have been out of it."""
    values: dict[str, Any] = {"environment": "production", "model": "digit", "rollout": "now", "since_s": 5.0}
    values |= {"port": 20000 + sum(name.encode())} | options
    if state == "ready":
        values.setdefault("routed", "unrouted_s" not in values)
    return Replica(id=name, pin=version, state=state, **values)
