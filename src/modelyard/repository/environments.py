"""Environments: what should serve and what does, one journal each. The tags `staging` and `production` are read here.

Knows how a deployment's record changes; carrying it out is the deployment package's work.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from modelyard.errors import IntegrityError, InvalidInput
from modelyard.refs import ModelRef
from modelyard.repository.manifest import DigestField, VersionField
from modelyard.store import Entry, Journal, Store
from modelyard.store.documents import RESTORE, problem

NAMES = ("staging", "production")
_KEPT = 20
_QUANTITY = r"^([0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?)?$"

Outcome = Literal["", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Pin:
    """One exact version: what a deployment points at."""

    version: VersionField
    digest: DigestField

    def __str__(self) -> str:
        return str(self.version)


@dataclass(frozen=True, slots=True)
class Resources:
    """What each replica asks for and may take, in Kubernetes' quantities (`500m`, `2Gi`); empty: any."""

    cpu: Annotated[str, Field(pattern=_QUANTITY)] = ""
    memory: Annotated[str, Field(pattern=_QUANTITY)] = ""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """How a model runs in an environment: with replicas of its own, or, with `min_replicas` 0, on demand: in a process
    that it shares with others, loaded at its first request and unloaded when it is idle.

    What follows counts on Kubernetes. `max_replicas`: up to so many, by the load on their CPUs. `env`: variables of the
    replicas. `grace_period_s`: what a replica may take to end, `progress_deadline_s`: a rollout to move on; unset: as
    the settings say.
    """

    replicas: int = 1
    surge: int = 1
    min_replicas: int | None = None
    max_replicas: int | None = None
    resources: Resources = field(default_factory=Resources)
    env: Mapping[str, str] = field(default_factory=dict)
    grace_period_s: Annotated[int, Field(ge=1)] | None = None
    progress_deadline_s: Annotated[int, Field(ge=1)] | None = None

    @property
    def on_demand(self) -> bool:
        return self.min_replicas == 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model in one environment.

    `serving` is what clients get, `target` what it should become; they differ while a rollout runs. `earlier` are the
    versions to roll back to, newest first. `spec` belongs to `target`, `serving_spec` to `serving`. `rollout` names the
    last change asked for, `outcome` and `reason` say how it went.
    """

    serving: Pin | None = None
    target: Pin | None = None
    earlier: tuple[Pin, ...] = ()
    spec: DeploymentSpec = field(default_factory=DeploymentSpec)
    evidence: str | None = None
    rollout: str = ""
    outcome: Outcome = ""
    reason: str = ""
    serving_spec: DeploymentSpec | None = None

    @property
    def rolling(self) -> bool:
        return self.serving != self.target

    @property
    def serving_on_demand(self) -> bool:
        return self.serving is not None and self.serving_spec is not None and self.serving_spec.on_demand

    def ask(self, target: Pin | None, *, spec: DeploymentSpec | None = None, evidence: str | None = None) -> Deployment:
        """The deployment with a new wish, under a new rollout id."""
        return replace(
            self,
            target=target,
            spec=spec or self.spec,
            evidence=evidence,
            rollout=uuid.uuid4().hex,
            outcome="running",
            reason="",
        )

    def finished(self) -> Deployment:
        """The wish came true: the target serves. Going to the newest earlier version was a rollback."""
        if self.earlier[:1] == (self.target,):
            earlier = self.earlier[1:]
        else:
            earlier = (self.serving, *self.earlier)[:_KEPT] if self.serving and self.rolling else self.earlier
        return replace(self, serving=self.target, serving_spec=self.spec, earlier=earlier, outcome="done")

    def failed(self, reason: str) -> Deployment:
        """The wish did not come true: back to what serves, as it was run."""
        spec = self.serving_spec or self.spec
        return replace(self, target=self.serving, spec=spec, outcome="failed", reason=reason)

    def on_demand(self, model: str) -> tuple[ModelRef, ...]:
        """The versions that an environment's pool may be asked for."""
        serving = self.serving if self.serving_on_demand else None
        target = self.target if self.spec.on_demand else None
        pins = dict.fromkeys(pin for pin in (serving, target) if pin)
        return tuple(ModelRef(model, pin.version, digest=pin.digest) for pin in pins)

    def refs(self, model: str) -> tuple[ModelRef, ...]:
        """The versions this deployment is about, each once."""
        pins = dict.fromkeys(pin for pin in (self.serving, self.target) if pin)
        return tuple(ModelRef(model, pin.version, digest=pin.digest) for pin in pins)


_adapter = TypeAdapter(Deployment)
Decision = Callable[[Deployment], Deployment | None]


class Environment:
    """One environment's journal: model name → Deployment."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._journal = Journal(store, f"deployments/{name}")

    def read(self) -> dict[str, Deployment]:
        entry = self._journal.read()
        return self._parse(entry.state) if entry else {}

    def get(self, model: str) -> Deployment:
        """An empty one for a model that was never deployed here."""
        return self.read().get(model, Deployment())

    def update(self, model: str, decide: Decision, *, by: str, why: str) -> Deployment:
        """Change one model's deployment; `decide` sees the newest one and returns None for no change."""
        return self.update_many({model: decide}, by=by, why=why).get(model, Deployment())

    def update_many(self, decisions: Mapping[str, Decision], *, by: str, why: str) -> dict[str, Deployment]:
        """The same for several models in one entry. Returns every model's deployment."""

        def whole(state: dict[str, Any]) -> dict[str, Any] | None:
            now = self._parse({model: state[model] for model in decisions if model in state})
            changed = {model: decide(now.get(model, Deployment())) for model, decide in decisions.items()}
            new = {m: _adapter.dump_python(d, mode="json") for m, d in changed.items() if d is not None}
            return state | new if new else None

        entry = self._journal.update(whole, by=by, why=why)
        return self._parse(entry.state) if entry else {}

    def history(self) -> list[tuple[Entry, dict[str, Deployment]]]:
        """Every entry with what it holds, oldest first."""
        return [(entry, self._parse(entry.state)) for entry in self._journal.history()]

    def _parse(self, state: dict[str, Any]) -> dict[str, Deployment]:
        try:
            return {model: _adapter.validate_python(value) for model, value in state.items()}
        except (ValidationError, InvalidInput) as error:
            raise IntegrityError(f"deployments/{self.name} can't be read: {problem(error)}", remedy=RESTORE) from error
