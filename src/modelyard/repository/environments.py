"""Environments: what should serve and what does, one journal each. The tags `staging` and `production` are read here.

Knows how a deployment's record changes; carrying it out is the deployment package's work.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from modelyard.errors import IntegrityError, InvalidInput
from modelyard.refs import ModelRef
from modelyard.repository.manifest import DigestField, VersionField
from modelyard.repository.strategies import Pause, Progress, Strategy
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
    that it shares with others, loaded at its first request and unloaded when it is idle. `strategy` is how the version
    that the wish is about takes over.

    `resources.memory` counts everywhere, what else follows on Kubernetes only. `max_replicas`: up to so many, by the
    load on their CPUs. `env`: variables of the replicas. `grace_period_s`: what a replica may take to end,
    `progress_deadline_s`: a rollout to move on; unset: as the settings say.
    """

    replicas: int = 1
    min_replicas: int | None = None
    strategy: Strategy = field(default_factory=Strategy)
    max_replicas: int | None = None
    resources: Resources = field(default_factory=Resources)
    env: Mapping[str, str] = field(default_factory=dict)
    grace_period_s: Annotated[int, Field(ge=1)] | None = None
    progress_deadline_s: Annotated[int, Field(ge=1)] | None = None

    @property
    def surge(self) -> int:
        return self.strategy.surge

    @property
    def on_demand(self) -> bool:
        return self.min_replicas == 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model in one environment.

    `serving` is what clients get, `target` what it should become; they differ while a rollout runs. `earlier` are the
    versions to roll back to, newest first. `spec` belongs to `target`, `serving_spec` to `serving`. `rollout` names the
    last change asked for, `outcome` and `reason` say how it went, `progress` how far it is. `switched`: when what
    serves had taken over all requests from `replaced`, in seconds since the epoch.
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
    progress: Progress = field(default_factory=Progress)
    switched: float | None = None
    replaced: Pin | None = None

    @property
    def rolling(self) -> bool:
        return self.serving != self.target

    @property
    def under_way(self) -> bool:
        """Whether a rollout to another version runs."""
        return self.rolling and self.outcome == "running"

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
            progress=Progress(),
        )

    def reached(self, at: float, pause: Pause | None = None) -> Deployment:
        """The target has the share of the requests that its step says; with a pause, it stays there."""
        return replace(self, progress=replace(self.progress, since=at, pause=pause))

    def advanced(self) -> Deployment:
        """The step is passed."""
        return replace(self, progress=Progress(self.progress.step + 1))

    def paused(self, pause: Pause) -> Deployment:
        """The rollout stays where it is until it is resumed."""
        return replace(self, progress=replace(self.progress, pause=pause))

    def resumed(self) -> Deployment:
        """It goes on: where somebody had stopped it, or past what it waited for."""
        pause = self.progress.pause
        released = self.progress.released or (pause is not None and pause.cause != "asked")
        return replace(self, progress=replace(self.progress, pause=None, released=released))

    def finished(self, at: float | None = None) -> Deployment:
        """The wish came true: the target serves. Going to the newest earlier version was a rollback."""
        if self.earlier[:1] == (self.target,):
            earlier = self.earlier[1:]
        else:
            earlier = (self.serving, *self.earlier)[:_KEPT] if self.serving and self.rolling else self.earlier
        return replace(
            self,
            serving=self.target,
            serving_spec=self.spec,
            earlier=earlier,
            outcome="done",
            progress=Progress(),
            switched=self.progress.since or at,
            replaced=self.serving if self.rolling else None,
        )

    def failed(self, reason: str) -> Deployment:
        """The wish did not come true: back to what serves, as it was run, within the room that this rollout had."""
        spec = replace(self.serving_spec or self.spec, strategy=self.spec.strategy)
        return replace(self, target=self.serving, spec=spec, outcome="failed", reason=reason, switched=None)

    def undone(self, reason: str) -> Deployment:
        """The wish had come true and is taken back: what served before serves again, as what replaced it was run."""
        if self.earlier[:1] == (self.replaced,):
            earlier = self.earlier[1:]
        else:  # it had been a rollback
            earlier = (self.serving, *self.earlier)[:_KEPT] if self.serving else self.earlier
        return replace(
            self,
            serving=self.replaced,
            target=self.replaced,
            earlier=earlier,
            outcome="failed",
            reason=reason,
            switched=None,
            replaced=None,
        )

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
        return self.parse(entry.state) if entry else {}

    def get(self, model: str) -> Deployment:
        """An empty one for a model that was never deployed here."""
        return self.read().get(model, Deployment())

    def update(self, model: str, decide: Decision, *, by: str, why: str) -> Deployment:
        """Change one model's deployment; `decide` sees the newest one and returns None for no change."""
        return self.update_many({model: decide}, by=by, why=why).get(model, Deployment())

    def update_many(self, decisions: Mapping[str, Decision], *, by: str, why: str) -> dict[str, Deployment]:
        """The same for several models in one entry. Returns every model's deployment."""

        def whole(state: dict[str, Any]) -> dict[str, Any] | None:
            now = self.parse({model: state[model] for model in decisions if model in state})
            changed = {model: decide(now.get(model, Deployment())) for model, decide in decisions.items()}
            new = {m: _adapter.dump_python(d, mode="json") for m, d in changed.items() if d is not None}
            return state | new if new else None

        entry = self._journal.update(whole, by=by, why=why)
        return self.parse(entry.state) if entry else {}

    def history(self) -> list[tuple[Entry, dict[str, Deployment]]]:
        """Every entry with what it holds, oldest first."""
        return [(entry, self.parse(entry.state)) for entry in self._journal.history()]

    def newest(self) -> Entry | None:
        return self._journal.read()

    def since(self, number: int) -> Iterator[tuple[Entry | None, Entry]]:
        """Every entry after that one, oldest first, each with the one before it."""
        newest = self._journal.read()
        before = self._journal.entry(number) if number and newest and newest.number > number else None
        for following in range(number + 1, newest.number + 1 if newest else 0):
            entry = self._journal.entry(following)
            yield before, entry
            before = entry

    def parse(self, state: Mapping[str, Any]) -> dict[str, Deployment]:
        """The deployments that an entry holds. Raises IntegrityError."""
        try:
            return {model: _adapter.validate_python(value) for model, value in state.items()}
        except (ValidationError, InvalidInput) as error:
            raise IntegrityError(f"deployments/{self.name} can't be read: {problem(error)}", remedy=RESTORE) from error
