"""What runs in a cluster or leads one, put together out of the parts that the yard gives.

Everything that talks to a cluster is imported where it is used: making manifests needs none.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.access.rules import Issuer
from modelyard.deployment.manager import LocalStatus
from modelyard.deployment.plan import Replica
from modelyard.deployment.rules import Rules
from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.workloads import Workloads
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.statistics import Statistics
from modelyard.repository import Environment, ModelRepository, ModelVersion
from modelyard.repository.signatures import Signatures
from modelyard.settings import Settings

if TYPE_CHECKING:
    from modelyard.deployment.reconciler import Analyst
    from modelyard.deployment.targets.kubernetes.cluster import Cluster
    from modelyard.deployment.targets.kubernetes.gateway import ClusterGateway
    from modelyard.deployment.targets.kubernetes.gateways import Gateways
    from modelyard.deployment.targets.kubernetes.parts import Parts
    from modelyard.deployment.targets.kubernetes.reconciler import ClusterReconciler

_SHORT_PATIENCE_S = 5.0  # of what asks again by itself


@dataclass(eq=False)
class Assembly:
    """`configured`: the engine that the configuration names for a model; `facts` of a version in an engine; `guard` and
    `rules` as the gateway needs them; `analyst` judges by statistics; events go to the `webhook`; Envoy's files lie in
    `folder`."""

    settings: Settings
    repository: ModelRepository
    signatures: Signatures
    configured: Callable[[str], str | None]
    facts: Callable[[ModelVersion, str | None], dict[str, str]]
    guard: Callable[[], Callable[[RouteTable], RouteTable]]
    rules: Callable[[], Callable[[], Rules]]
    issuer: Callable[[], Issuer | None]
    analyst: Callable[[Callable[[], Statistics]], Analyst]
    webhook: Callable[[], str | None]
    folder: Path

    @cached_property
    def parts(self) -> Parts:
        """Raises MissingExtra, InvalidInput when there is no cluster."""
        return self._parts(self.settings.kubernetes.patience_s)

    @property
    def gateways(self) -> Gateways:
        """What all gateways have counted is read here."""
        from modelyard.deployment.targets.kubernetes.gateways import Gateways

        host = self.settings.kubernetes.gateways or self.settings.gateway.host
        return Gateways(host, self.settings.api.port, self.settings.token)

    @cached_property
    def workloads(self) -> Workloads:
        """What versions become in a cluster."""
        return Workloads(self.settings, self.repository.storage.url, self.configured)

    def controller(self) -> ClusterReconciler:
        """What `modelyard controller` runs."""
        from modelyard.deployment.targets.kubernetes.lease import Lease, lease_name
        from modelyard.deployment.targets.kubernetes.reconciler import ClusterReconciler

        parts = self._parts(_SHORT_PATIENCE_S)
        identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        lease = Lease(parts.cluster, lease_name(self.repository.storage.url), identity)
        analyst = self.analyst(self.gateways.statistics)
        return ClusterReconciler(parts, self._environments(), lease, analyst, partial(self._events, parts.cluster))

    def gateway(self) -> ClusterGateway:
        """What `modelyard gateway` runs."""
        from modelyard.deployment.targets.kubernetes.gateway import ClusterGateway
        from modelyard.deployment.targets.kubernetes.pod_watch import PodWatch
        from modelyard.deployment.wanted import Newest, Reader
        from modelyard.gateway import Gateway

        reader = Reader(self._environments(), time.monotonic, self.repository.version_tags, self.rules())
        return ClusterGateway(
            Gateway(self.folder, self.settings.gateway, issuer=self.issuer()),
            PodWatch(self._parts(_SHORT_PATIENCE_S).cluster, self._labels()),
            Newest(reader, ThreadPoolExecutor(1), time.monotonic),
            self.guard(),
            self.settings.kubernetes.port,
        )

    def status(self) -> LocalStatus:
        """What can be told of a cluster from outside."""
        from lightkube.resources.core_v1 import Pod

        from modelyard.deployment.targets.kubernetes.lease import Lease, lease_name
        from modelyard.deployment.targets.kubernetes.replicas import replicas, stays
        from modelyard.deployment.targets.kubernetes.trouble import by_model

        def pods() -> list[Pod]:
            return self.parts.cluster.all(Pod, self._labels())

        def there() -> list[Replica]:
            return replicas(filter(stays, pods()), self.settings.kubernetes.port)

        return LocalStatus(
            lambda: Lease(self.parts.cluster, lease_name(self.repository.storage.url), "").held(),
            there,
            engine=lambda version, engine: self.facts(version, engine or self.workloads.engine(version)),
            troubles=lambda: by_model(pods()),
        )

    def _parts(self, patience_s: float) -> Parts:
        from modelyard.deployment.targets.kubernetes.cluster import connect
        from modelyard.deployment.targets.kubernetes.parts import Parts

        cluster = connect(self.settings.kubernetes, patience_s=patience_s)
        return Parts(cluster, self.repository, self.workloads, self.signatures, self.settings)

    @contextmanager
    def _events(self, cluster: Cluster) -> Iterator[None]:
        """Changes of deployments go to the webhook until the block ends."""
        from modelyard.deployment.events import Events
        from modelyard.deployment.targets.kubernetes.lease import lease_name
        from modelyard.deployment.targets.kubernetes.notes import ClusterNotes

        notes = ClusterNotes(cluster, f"{lease_name(self.repository.storage.url)}-events")
        events = Events(self._environments(), self.webhook, notes)
        events.start()
        try:
            yield
        finally:
            events.stop()

    def _environments(self) -> list[Environment]:
        return [self.repository.environment(name) for name in ("production", "staging")]

    def _labels(self) -> dict[str, str]:
        return {names.COMPONENT: names.REPLICA, names.YARD: names.yard_label(self.repository.storage.url)}
