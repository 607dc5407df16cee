"""What a cluster is to run: one exact version in one environment, with everything that its pods must know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelyard.refs import ModelRef
from modelyard.repository import DeploymentSpec

Strategy = Literal["rolling_update", "recreate"]


@dataclass(frozen=True, slots=True)
class Workload:
    """`name` is that of its objects; `yard` says whose they are; `ready_path` answers 200 once its `command` can take
    requests at the pod's address. `keys`: public keys by file name, whose signatures its replicas ask for."""

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
