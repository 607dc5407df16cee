"""The reconciler of a cluster: reads the environments' journals, tells the cluster, and records what came of it.

The cluster's own controllers start and end pods; this one decides which version they are of, and what is done when that
version does not come up. It keeps nothing: killed at any moment, the next one goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from threading import Event

from lightkube.resources.apps_v1 import Deployment as ClusterDeployment

from modelyard.deployment.canary import NOT_JUDGED, Hold, Moment
from modelyard.deployment.outcomes import Recorded, outcome
from modelyard.deployment.plan import Fail
from modelyard.deployment.reconciler import Analyst, NoAnalyst
from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.cluster import Document
from modelyard.deployment.targets.kubernetes.decision import (
    Apply,
    Empty,
    Found,
    Layout,
    Remove,
    Step,
    Want,
    decide,
    layout,
    watched,
)
from modelyard.deployment.targets.kubernetes.lease import Lease
from modelyard.deployment.targets.kubernetes.objects import objects, wish
from modelyard.deployment.targets.kubernetes.parts import Parts
from modelyard.deployment.targets.kubernetes.progress import Progress
from modelyard.deployment.targets.kubernetes.rollouts import Rollouts
from modelyard.errors import Conflict, InvalidInput, ModelyardError, NotFound, Refused
from modelyard.refs import Digest, ModelRef, Version
from modelyard.repository import Deployment, Environment, Pin

log = logging.getLogger("modelyard.reconciler")

_INTERVAL_S = 0.5
_HOPELESS = (Conflict, InvalidInput, NotFound, Refused)  # asking again would bring the same answer


@dataclass(frozen=True, slots=True)
class _Case:
    """One model in one environment, as its journal was read."""

    environment: Environment
    model: str
    deployment: Deployment

    @property
    def about(self) -> str:
        return f"{self.model} in {self.environment.name}"

    @property
    def name(self) -> str:
        """Of its objects in the cluster."""
        return names.object_name(self.model, self.environment.name)


@dataclass(slots=True)
class ClusterReconciler:
    """Carries out the environments' wishes in one cluster while it holds the lease; `analyst` judges new versions."""

    parts: Parts
    environments: Sequence[Environment]
    lease: Lease
    analyst: Analyst = field(default_factory=NoAnalyst)
    events: Callable[[], AbstractContextManager[None]] = nullcontext  # what is sent while this one leads
    wall: Callable[[], float] = time.time  # what the journals' times are taken from
    _told: dict[str, str] = field(default_factory=dict)

    def run(self, stop: Event) -> None:
        """Until `stop` is set. What fails is tried again."""
        leading = False
        with ExitStack() as events:
            while not stop.wait(_INTERVAL_S):
                try:
                    if self.lease.hold() != leading:
                        leading = not leading
                        log.info("%s carries deployments out", "this one" if leading else "another one")
                        events.enter_context(self.events()) if leading else events.close()
                    if leading:
                        self.tick()
                    self._told.pop("round", None)
                except ModelyardError as error:
                    self._tell("round", error)
        if leading:
            self.lease.release()

    def tick(self) -> None:
        """One round over all models; what fails about one holds up no other."""
        own = {names.MANAGED_BY: names.MANAGER, names.YARD: names.yard_label(self.parts.repository.storage.url)}
        there = {_name(each): each for each in self.parts.cluster.all(ClusterDeployment, own)}
        for environment in self.environments:
            for model, deployment in environment.read().items():
                case = _Case(environment, model, deployment)
                try:
                    self._look(case, there)
                    self._told.pop(case.about, None)
                except ModelyardError as error:
                    self._tell(case.about, error)

    def _look(self, case: _Case, there: Mapping[str, ClusterDeployment]) -> None:
        slots, now = _slots(case.name, there), self.wall()
        found = {slot: _found(each) for slot, each in slots.items()}
        wanted = layout(case.deployment, found, now)
        try:
            documents = self._documents(case, wanted)
            if wanted and wanted.own in slots and watched(case.deployment, wanted):
                how_far = Rollouts(self.parts.cluster).progress(slots[wanted.own])
                found[wanted.own] = replace(found[wanted.own], progress=how_far)
            wishes = {slot: wish(each) for slot, each in documents.items()}
            for step in decide(case.deployment, found, wishes, wanted, self._moment(case, now)):
                self._do(case, step, documents)
        except _HOPELESS as error:
            if case.deployment.outcome != "running":
                raise
            self._record(case, Fail(str(error)))

    def _documents(self, case: _Case, wanted: Layout | None) -> dict[str, tuple[Document, ...]]:
        """The objects of each slot that is to be told something."""
        if wanted is None:
            return {}
        wants = {**wanted.beside, wanted.own: wanted.want}
        return {slot: self._objects(case, slot, want) for slot, want in wants.items() if want}

    def _objects(self, case: _Case, slot: str, want: Want) -> tuple[Document, ...]:
        version = self.parts.repository.resolve(ModelRef(case.model, want.pin.version, digest=want.pin.digest))
        rollout = case.deployment.rollout
        workload = self.parts.workloads.of(version, case.environment.name, want.spec, rollout=rollout)
        slotted = replace(workload, slot=slot, replicas=want.replicas, paused=want.paused)
        return objects(slotted, self.parts.settings.kubernetes)

    def _moment(self, case: _Case, now: float) -> Moment:
        judged = case.deployment.outcome == "running" and case.deployment.spec.strategy.analysis
        told = self.analyst.verdict(case.environment.name, case.model, case.deployment, now) if judged else NOT_JUDGED
        return Moment(now, told)

    def _do(self, case: _Case, step: Step, documents: Mapping[str, tuple[Document, ...]]) -> None:
        rollouts = Rollouts(self.parts.cluster)
        match step:
            case Apply(slot):
                log.info("%s: tell the cluster what to run in slot %s", case.about, slot)
                rollouts.apply(documents[slot])
            case Empty(slot):
                log.info("%s: remove what is not wanted any more in slot %s", case.about, slot)
                rollouts.remove_slot(case.name, slot)
            case Remove():
                log.info("%s: remove it", case.about)
                rollouts.remove(case.name)
            case _:
                self._record(case, step)

    def _record(self, case: _Case, step: Recorded) -> None:
        found = outcome(step, case.deployment, at=self.wall(), by=self.parts.settings.user)
        if isinstance(step, Fail | Hold):
            log.warning("%s: %s", case.about, found.why)
        case.environment.update(case.model, found, by=self.parts.settings.user, why=f"{case.model}: {found.why}")

    def _tell(self, about: str, error: Exception) -> None:
        """Once, until it changes."""
        if self._told.get(about) != str(error):
            log.warning("%s: %s", about, error)
            self._told[about] = str(error)


def _slots(name: str, there: Mapping[str, ClusterDeployment]) -> dict[str, ClusterDeployment]:
    """A model's Deployments, by slot."""
    found = {slot: there.get(names.deployment_name(name, slot)) for slot in names.SLOTS}
    return {slot: deployment for slot, deployment in found.items() if deployment}


def _found(there: ClusterDeployment) -> Found:
    """What a Deployment says of itself."""
    notes = (there.metadata.annotations if there.metadata else None) or {}
    replicas = (there.spec.replicas if there.spec else None) or 0
    return Found(_pin(notes), notes.get(names.WISH, ""), notes.get(names.ROLLOUT, ""), replicas, Progress(False, ""))


def _pin(notes: Mapping[str, str]) -> Pin | None:
    try:
        return Pin(Version.parse(notes.get(names.VERSION, "")), Digest.parse(notes.get(names.DIGEST, "")))
    except InvalidInput:
        return None


def _name(deployment: ClusterDeployment) -> str:
    return str(deployment.metadata.name if deployment.metadata else "")
