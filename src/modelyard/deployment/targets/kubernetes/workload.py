"""What a cluster is to run: one exact version in one environment, with everything that its pods must know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelyard.deployment.targets.kubernetes import names
from modelyard.refs import ModelRef
from modelyard.repository import DeploymentSpec

Strategy = Literal["rolling_update", "recreate"]


@dataclass(frozen=True, slots=True)
class Workload:
    """`name` is that of its objects; `yard` says whose they are; `ready_path` answers 200 once its `command` can take
    requests at the pod's address. `keys`: public keys by file name, whose signatures its replicas ask for. `slot`:
    which of the two Deployments that share the other objects. `replicas`: so many for now, whatever the spec says.
    `paused`: the cluster is to replace no replica."""

    name: str
    environment: str
    yard: str
    ref: ModelRef
    engine: str
    owner: str
    spec: DeploymentSpec
    command: tuple[str, ...]
    pull: tuple[str, ...]
    ready_path: str
    variables: Mapping[str, str]
    ready_s: float
    drain_s: float
    keys: Mapping[str, str] = field(default_factory=dict)
    rollout: str = ""
    strategy: Strategy = "rolling_update"
    slot: str = names.SLOTS[0]
    replicas: int | None = None
    paused: bool = False

    @property
    def deployment(self) -> str:
        """The name of its Deployment."""
        return names.deployment_name(self.name, self.slot)

    @property
    def scaled(self) -> bool:
        """Whether the cluster decides how many replicas there are, by their load."""
        return self.spec.max_replicas is not None and self.replicas is None
