"""What everything that leads models in a cluster works with; `yard.py` puts it together."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.deployment.targets.kubernetes.cluster import Cluster
from modelyard.deployment.targets.kubernetes.workloads import Workloads
from modelyard.repository import ModelRepository
from modelyard.repository.signatures import Signatures
from modelyard.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """One cluster, one store, and what is between them."""

    cluster: Cluster
    repository: ModelRepository
    workloads: Workloads
    signatures: Signatures
    settings: Settings
