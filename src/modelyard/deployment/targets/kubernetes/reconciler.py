"""The reconciler of a cluster: reads the environments' journals, tells the cluster, and records what came of it.

The cluster's own controllers start and end pods; this one decides which version they are of, and what is done when that
version does not come up. It keeps nothing: killed at any moment, the next one goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

from lightkube.resources.apps_v1 import Deployment as ClusterDeployment

from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.cluster import Document
from modelyard.deployment.targets.kubernetes.decision import Apply, Fail, Finish, Found, Remove, Step, decide
from modelyard.deployment.targets.kubernetes.lease import Lease
from modelyard.deployment.targets.kubernetes.objects import objects, wish
from modelyard.deployment.targets.kubernetes.parts import Parts
from modelyard.deployment.targets.kubernetes.progress import Progress
from modelyard.deployment.targets.kubernetes.rollouts import Rollouts
from modelyard.errors import Conflict, InvalidInput, ModelyardError, NotFound, Refused
from modelyard.refs import ModelRef
from modelyard.repository import Deployment, Environment, Pin

log = logging.getLogger("modelyard.reconciler")

_INTERVAL_S = 0.5
_HOPELESS = (Conflict, InvalidInput, NotFound, Refused)  # asking again would bring the same answer


@dataclass(slots=True)
class ClusterReconciler:
    """Carries out the environments' wishes in one cluster while it holds the lease."""

    parts: Parts
    environments: Sequence[Environment]
    lease: Lease
    _told: dict[str, str] = field(default_factory=dict)

    def run(self, stop: Event) -> None:
        """Until `stop` is set. What fails is tried again."""
        leading = False
        while not stop.wait(_INTERVAL_S):
            try:
                if self.lease.hold() != leading:
                    leading = not leading
                    log.info("this one carries deployments out" if leading else "another one carries deployments out")
                if leading:
                    self.tick()
                self._told.pop("round", None)
            except ModelyardError as error:
                self._tell("round", error)
        if leading:
            self.lease.release()

    def tick(self) -> None:
        """One round over all models; what fails about one holds up no other."""
        rollouts = Rollouts(self.parts.cluster)
        own = {names.MANAGED_BY: names.MANAGER, names.YARD: names.yard_label(self.parts.repository.storage.url)}
        there = {_name(each): each for each in self.parts.cluster.all(ClusterDeployment, own)}
        for environment in self.environments:
            for model, deployment in environment.read().items():
                about = f"{model} in {environment.name}"
                try:
                    self._look(environment, model, deployment, rollouts, there)
                    self._told.pop(about, None)
                except ModelyardError as error:
                    self._tell(about, error)

    def _look(
        self,
        environment: Environment,
        model: str,
        deployment: Deployment,
        rollouts: Rollouts,
        there: dict[str, ClusterDeployment],
    ) -> None:
        name = names.object_name(model, environment.name)
        try:
            documents = self._documents(environment.name, model, deployment)
            found = _found(rollouts, there.get(name), running=deployment.outcome == "running")
            step = decide(deployment, wish(documents) if documents else "", found)
            if isinstance(step, Apply):
                log.info("%s in %s: tell the cluster to run %s", model, environment.name, deployment.target)
                rollouts.apply(documents)
            elif isinstance(step, Remove):
                log.info("%s in %s: remove it", model, environment.name)
                rollouts.remove(name)
        except _HOPELESS as error:
            if deployment.outcome != "running":
                raise
            step = Fail(str(error))
        self._record(environment, model, deployment, step)

    def _documents(self, environment: str, model: str, deployment: Deployment) -> tuple[Document, ...]:
        pin = deployment.target
        if pin is None:
            return ()
        version = self.parts.repository.resolve(ModelRef(model, pin.version, digest=pin.digest))
        workload = self.parts.workloads.of(version, environment, deployment.spec, rollout=deployment.rollout)
        return objects(workload, self.parts.settings.kubernetes)

    def _record(self, environment: Environment, model: str, seen: Deployment, step: Step) -> None:
        if isinstance(step, Finish):
            new, why = seen.finished(), f"{model}: {_what(seen.target)}"
        elif isinstance(step, Fail):
            log.warning("%s in %s: %s", model, environment.name, step.reason)
            new, why = seen.failed(step.reason), f"{model}: went back: {step.reason}"
        else:
            return
        environment.update(model, lambda now: new if now == seen else None, by=self.parts.settings.user, why=why)

    def _tell(self, about: str, error: Exception) -> None:
        """Once, until it changes."""
        if self._told.get(about) != str(error):
            log.warning("%s: %s", about, error)
            self._told[about] = str(error)


def _found(rollouts: Rollouts, there: ClusterDeployment | None, *, running: bool) -> Found | None:
    """How far it is matters only while a rollout runs."""
    if there is None:
        return None
    notes = (there.metadata.annotations if there.metadata else None) or {}
    how_far = rollouts.progress(there) if running else Progress(False, "")
    return Found(notes.get(names.WISH, ""), notes.get(names.ROLLOUT, ""), how_far)


def _name(deployment: ClusterDeployment) -> str:
    return str(deployment.metadata.name if deployment.metadata else "")


def _what(target: Pin | None) -> str:
    return f"{target} serves" if target else "it is not served any more"
