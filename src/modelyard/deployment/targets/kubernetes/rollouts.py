"""One rollout on a cluster from its beginning to its end: apply, watch, and back to what was there if it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightkube.core.resource import NamespacedResource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import ConfigMap, Pod, Service, ServiceAccount
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.policy_v1 import PodDisruptionBudget

from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.cluster import Cluster, Document, to_dict
from modelyard.deployment.targets.kubernetes.progress import Progress, is_at, progress
from modelyard.errors import ModelyardError, RolloutFailed

log = logging.getLogger("modelyard.kubernetes")

_POLL_S = 0.5
_SHARED = (PodDisruptionBudget, NetworkPolicy, Service, ConfigMap, ServiceAccount)
_HANDOVER = f"{names.MANAGER}-handover"
_CLUSTERS_OWN = "deployment.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Rollouts in one namespace."""

    cluster: Cluster

    def apply(self, documents: Sequence[Document], *, force: bool = False) -> None:
        """All or, if the cluster refuses one of them, none of its Deployment: it comes last."""
        deployment = documents[-1]
        name = deployment["metadata"]["name"]
        if "replicas" not in deployment["spec"]:
            self._hand_over(name)
        for document in documents:
            self.cluster.apply(document, force=force)
        if all(document["kind"] != "HorizontalPodAutoscaler" for document in documents):
            self._delete_own(HorizontalPodAutoscaler, name)

    def find(self, name: str) -> Deployment | None:
        return self.cluster.get(Deployment, name)

    def progress(self, deployment: Deployment) -> Progress:
        """How far it is. Looks into logs only for a failure that does not say why."""
        labels = deployment.spec.selector.matchLabels if deployment.spec else None
        found = progress(deployment, self.cluster.all(Pod, labels))
        trouble = found.trouble
        if not (found.failed and trouble and trouble.log_of):
            return found
        said = self.cluster.log_line(trouble.pod, trouble.log_of)
        return replace(found, failed=f"{found.failed}: {said}") if said else found

    def run(self, documents: Sequence[Document], *, timeout_s: float, force: bool = False) -> None:
        """Apply and watch to the end. Raises RolloutFailed, after what was there before is there again."""
        name = documents[-1]["metadata"]["name"]
        before = self.find(name)
        self.apply(documents, force=force)
        why = self.watch(name, timeout_s=timeout_s)
        if not why:
            return
        if before is None:
            self.remove(name)
            raise RolloutFailed(
                f"{name} did not come up and is removed: {why}", remedy="mend what it says, then repeat"
            )
        was = is_at(before) or "what it ran before"
        try:
            self.cluster.apply(former(before), force=True)
            still = self.watch(name, timeout_s=timeout_s)
        except ModelyardError as error:
            still = error.message
        if still:
            raise RolloutFailed(f"{name} failed: {why}; and it is not back at {was} yet: {still}")
        raise RolloutFailed(f"{name} went back to {was}: {why}", remedy="mend what it says, then repeat")

    def watch(self, name: str, *, timeout_s: float) -> str:
        """Until it is done; why it is not, if it fails or takes too long."""
        deadline, told = time.monotonic() + timeout_s, ""
        while True:
            deployment = self.find(name)
            if deployment is None:
                return "somebody deleted it"
            found = self.progress(deployment)
            if found.done:
                return ""
            if found.failed:
                return found.failed
            if time.monotonic() > deadline:
                return f"not done after {timeout_s:g} s: {found.trouble or found.words}"
            if found.words != told:
                told = found.words
                log.info("%s: %s", name, told)
            time.sleep(_POLL_S)

    def remove(self, name: str) -> None:
        """Everything of this name that is modelyard's."""
        for slot in names.SLOTS:
            self.remove_slot(name, slot)
        for kind in _SHARED:
            self._delete_own(kind, f"{name}-keys" if kind is ConfigMap else name)

    def remove_slot(self, name: str, slot: str) -> None:
        """What runs in one slot; the other one needs the rest."""
        for kind in (HorizontalPodAutoscaler, Deployment):
            self._delete_own(kind, names.deployment_name(name, slot))

    def _hand_over(self, name: str) -> None:
        """How many replicas there are stays as it is until an autoscaler says otherwise. A field that nobody owns any
        more is reset: https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership."""
        there = self.find(name)
        if there is None or there.spec is None:
            return
        count = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}}
        self.cluster.apply(count | {"spec": {"replicas": there.spec.replicas}}, manager=_HANDOVER, force=True)

    def _delete_own(self, kind: type[NamespacedResource], name: str) -> None:
        found = self.cluster.get(kind, name)
        if found is not None and names.is_own(to_dict(found)):
            self.cluster.delete(kind, name)


def former(deployment: Deployment) -> Document:
    """What to apply so that a Deployment is as it was when this was read."""
    document = to_dict(deployment)
    metadata, spec = document["metadata"], document["spec"]
    notes = {key: text for key, text in metadata.get("annotations", {}).items() if not key.startswith(_CLUSTERS_OWN)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": metadata["name"], "labels": metadata.get("labels", {}), "annotations": notes},
        "spec": spec,
    }
