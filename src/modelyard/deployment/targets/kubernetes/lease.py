"""The lease by which one of several controllers leads: a Lease object of `coordination.k8s.io/v1`.

A holder that stops renewing it loses it after its duration, by the clock of those who watch, so clocks need not agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease as LeaseObject

from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.cluster import Cluster
from modelyard.errors import Conflict

DURATION_S = 15
_RENEW_S = 5
_SKEW_S = 30  # by which clocks of different machines may differ


@dataclass(slots=True)
class Lease:
    """One holder's view; `identity` is another for each."""

    cluster: Cluster
    name: str
    identity: str
    clock: Callable[[], float] = time.monotonic
    _seen: tuple[str, float] = ("", 0.0)  # the version of the object, and since when it is known
    _renewed: float = float("-inf")

    def hold(self) -> bool:
        """Take the lease if it is free, renew it when it is time; whether it is held. Raises Unavailable."""
        if self._renewed + _RENEW_S > self.clock():
            return True
        found = self.cluster.get(LeaseObject, self.name)
        if found is None or found.metadata is None:
            return self._write(None)
        version, spec = found.metadata.resourceVersion or "", found.spec or LeaseSpec()
        if version != self._seen[0]:
            self._seen = version, self.clock()
        free = not spec.holderIdentity or self.clock() - self._seen[1] > DURATION_S
        return self._write(found) if free or spec.holderIdentity == self.identity else self._lose()

    def release(self) -> None:
        """Let another one have it at once."""
        found = self.cluster.get(LeaseObject, self.name)
        if found is not None and found.spec is not None and found.spec.holderIdentity == self.identity:
            found.spec.holderIdentity = ""
            self.cluster.replace(found)
        self._lose()

    def held(self) -> bool:
        """Whether anybody leads, as far as the clocks of different machines can tell."""
        found = self.cluster.get(LeaseObject, self.name)
        spec = found.spec if found else None
        if spec is None or not spec.holderIdentity or spec.renewTime is None:
            return False
        return (datetime.now(UTC) - spec.renewTime).total_seconds() < DURATION_S + _SKEW_S

    def _write(self, found: LeaseObject | None) -> bool:
        now = datetime.now(UTC)
        spec = LeaseSpec(holderIdentity=self.identity, leaseDurationSeconds=DURATION_S, acquireTime=now, renewTime=now)
        if found is not None and found.spec is not None and found.spec.holderIdentity == self.identity:
            spec.acquireTime = found.spec.acquireTime
        metadata = ObjectMeta(name=self.name, labels={names.PART_OF: "modelyard"})
        if found is not None and found.metadata is not None:
            metadata.resourceVersion = found.metadata.resourceVersion  # somebody faster wins
        lease = LeaseObject(metadata=metadata, spec=spec)
        begun = self.clock()
        try:
            if found is None:
                self.cluster.create(lease)
            else:
                self.cluster.replace(lease)
        except Conflict:
            return self._lose()
        self._renewed = begun
        return True

    def _lose(self) -> bool:
        self._renewed = float("-inf")
        return False


def lease_name(store_url: str) -> str:
    return f"modelyard-controller-{names.yard_label(store_url)}"
