"""Which events have been sent, kept in a ConfigMap of the cluster: whoever leads next goes on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightkube.resources.core_v1 import ConfigMap

from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.cluster import Cluster


@dataclass(frozen=True, slots=True)
class ClusterNotes:
    """`name`: of the ConfigMap."""

    cluster: Cluster
    name: str

    def read(self) -> dict[str, int]:
        found = self.cluster.get(ConfigMap, self.name)
        data = (found.data if found else None) or {}
        return {environment: int(number) for environment, number in data.items() if number.isdecimal()}

    def write(self, sent: Mapping[str, int]) -> None:
        metadata = {"name": self.name, "labels": {names.PART_OF: "modelyard", names.MANAGED_BY: names.MANAGER}}
        data = {environment: str(number) for environment, number in sent.items()}
        self.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, force=True)
