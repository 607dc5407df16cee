"""The deployment manager: the verbs that move versions through the environments, and the rules they keep.

It writes wishes into the environments' journals and waits for a reconciler to make them true; it starts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelyard import defaults
from modelyard.configuration import ConfigurationManager
from modelyard.deployment import measuring, preflight, promotion
from modelyard.deployment.facts import engine_of
from modelyard.deployment.gate import Gate, ValidationPlan
from modelyard.deployment.plan import Replica
from modelyard.deployment.preflight import Room
from modelyard.deployment.preview import Preview, preview
from modelyard.deployment.promotion import AS_CONFIGURED, RolloutOptions, Size
from modelyard.deployment.rollout import Watch, wait_for_rollout
from modelyard.deployment.status import Seen, Status, rows
from modelyard.deployment.suite import Suite
from modelyard.deployment.suites import Files
from modelyard.deployment.validation import Report
from modelyard.errors import Conflict, NotFound, Refused, Unavailable
from modelyard.refs import ModelRef, parse_name
from modelyard.repository import (
    Deployment,
    ModelRepository,
    ModelVersion,
    Pin,
    Strategy,
)
from modelyard.repository.signatures import Signatures
from modelyard.settings import Settings

if TYPE_CHECKING:
    from modelyard.deployment.targets.kubernetes import KubernetesClient
    from modelyard.deployment.targets.kubernetes.parts import Parts


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """What this machine's target can tell: whether somebody carries wishes out, the replicas, what its pools have
    loaded, what a version runs on with an engine, or with the one that would be chosen, what room there is, what is
    wrong with a model's replicas, and whose code may run where rollouts are judged."""

    running: Callable[[], bool]
    replicas: Callable[[], list[Replica]]
    loaded: Callable[[], Collection[tuple[str, str, str]]] = tuple  # environment, model, version; on demand
    engine: Callable[[ModelVersion, str | None], dict[str, str]] = lambda version, _: engine_of(version)
    room: Callable[[ModelVersion], Room | None] = lambda _: None  # for replicas of a version; None: not known
    troubles: Callable[[], Mapping[tuple[str, str], str]] = dict  # environment, model → in words
    trusted: Callable[[], Collection[str] | None] = lambda: None  # None: not known


class DeploymentManager:
    """Stages, validates, promotes and rolls back.

    `target` is `local` (replicas on this machine, run by `modelyard up`), `kubernetes` (pods, led by `modelyard
    controller`) or `none` (recorded only: another system deploys); by default what the settings say.
    """

    def __init__(
        self,
        model_repository: ModelRepository,
        *,
        target: str | None = None,
        settings: Settings | None = None,
        local: LocalStatus | None = None,
        kubernetes: Callable[[], Parts] | None = None,
    ) -> None:
        parts: Any = None if settings and local else defaults.yard()
        self.repo = model_repository
        self._settings: Settings = settings or parts.settings
        self._target = target or self._settings.deployment.target
        self._local: LocalStatus = local or parts.local_status(model_repository.storage)
        self._kubernetes = kubernetes
        self._configuration = ConfigurationManager(model_repository.storage, user=self._settings.user)
        self._user, rules = self._settings.user, self._settings.security
        self._signatures = Signatures(
            model_repository.storage, trusted=rules.trusted_keys, required=rules.require_signature
        )

    @cached_property
    def kube_client(self) -> KubernetesClient:
        """The Kubernetes API, for Deployments of your own. Raises MissingExtra, InvalidInput."""
        from modelyard.deployment.targets.kubernetes import KubernetesClient

        return KubernetesClient(self._kubernetes() if self._kubernetes else None)

    def deploy_to_staging(
        self,
        model_name: str,
        model_version: str,
        *,
        replicas: int | None = None,
        min_replicas: int | None = None,
        wait: bool = True,
    ) -> Deployment:
        """Deploy a version to staging. Raises RolloutFailed when it does not come up; what was staged stays.

        With `min_replicas` 0 it runs on demand, here and at later changes, until `replicas` are asked for.
        Like the other verbs it raises Refused for a version without a signature that the environment requires.
        """
        version = self._not_yanked(self.repo.resolve(f"{model_name}:{model_version}"))
        self._signatures.require(version, "staging")
        why = f"stage {version.ref.name}:{version.version}"
        size = Size(replicas, min_replicas)
        return self._roll(version.name, "staging", _pin(version), why=why, size=size, wait=wait)

    def run_validation_tests(
        self, model_name: str, model_version: str, *, suite: Suite | None = None, trust_code: bool = False
    ) -> Report:
        """Ask the staged version what the suite demands, and keep the result as evidence.

        Without a suite it is the one that the configuration names for the model, else the one beside the model's files,
        else the default. `trust_code` lets the suite's own Python checks run. The report is falsy when a check failed.
        Raises Unavailable when the version is not deployed in staging.
        """
        version = self.repo.resolve(f"{model_name}:{model_version}")
        return self._gate().validate(version, suite, trust_code=trust_code)

    def plan_validation(
        self, model_name: str, model_version: str, *, suite: Suite | None = None, trust_code: bool = False
    ) -> ValidationPlan:
        """Which checks `run_validation_tests` would run with which data. Asks the model nothing."""
        version = self.repo.resolve(f"{model_name}:{model_version}")
        return self._gate().plan(version, suite, trust_code=trust_code)

    def promote_to_production(  # noqa: PLR0913 - options of one verb, each by its name
        self,
        model_name: str,
        model_version: str,
        *,
        suite: Suite | None = None,
        replicas: int | None = None,
        min_replicas: int | None = None,
        rollout: RolloutOptions = AS_CONFIGURED,
        force: bool = False,
        reason: str = "",
        wait: bool = True,
    ) -> Deployment:
        """Roll a validated version out to production, as `rollout` and the configuration say.

        Without fresh passing evidence it is validated first. Raises ValidationFailed, unless forced with a reason,
        which the journal keeps; Refused when there is no room for it; RolloutFailed when it does not come up, or is
        worse than what served, which goes on serving. Returns while a step waits.
        """
        version = self.repo.resolve(f"{model_name}:{model_version}")
        if force and not reason:
            raise Refused("a forced promotion needs a reason", remedy="give --reason")
        if not force:
            self._not_yanked(version)
        self._signatures.require(version, "production")
        strategy = self._checked(version, rollout, suite)  # what is wrong with it is said before anything is asked
        evidence = "forced" if force else self._gate().proof(version, suite)
        why = f"promote {version.name}:{version.version}" + (f", forced: {reason}" if force else "")
        why += f": {reason}" if reason and not force else ""
        return self._roll(
            version.name,
            "production",
            _pin(version),
            why=why,
            size=Size(replicas, min_replicas, strategy),
            wait=wait,
            evidence=evidence,
            room=None if force else self._local.room(version),
        )

    def preview(
        self,
        model_name: str,
        model_version: str,
        *,
        suite: Suite | None = None,
        replicas: int | None = None,
        min_replicas: int | None = None,
        rollout: RolloutOptions = AS_CONFIGURED,
    ) -> Preview:
        """What promoting a version takes, if everything goes well; nothing is changed or validated. Raises Refused when
        there is no room for it."""
        version = self.repo.resolve(f"{model_name}:{model_version}")
        size = Size(replicas, min_replicas, self._checked(version, rollout, suite))
        size.check()
        now = self.repo.environment("production").get(version.name)
        asked = now.ask(_pin(version), spec=size.spec(now, self._settings.deployment.replicas))
        room = self._local.room(version) if self._target == "local" else None
        return preflight.check(version.name, asked, room) if room else preview(asked)

    def wait(
        self,
        model_name: str,
        asked: Deployment,
        environment: str = "production",
        *,
        told: Callable[[Deployment], None] = lambda _: None,
    ) -> Deployment:
        """Wait for what was asked for; `told` hears of each change. See `promote_to_production`."""
        return self._wait(parse_name(model_name), environment, asked, told)

    def pause(self, model_name: str, *, reason: str = "") -> Deployment:
        """Let the rollout under way in production stay where it is. What the analysis finds bad still goes back."""
        name = parse_name(model_name)
        return self._intervene(
            name,
            "pause",
            reason,
            lambda now: promotion.pause(now, name, by=self._user, why=reason, at=time.time()),
        )

    def resume(self, model_name: str, *, reason: str = "") -> Deployment:
        """Let a paused rollout go on; past what its step waited for, unless somebody had paused it."""
        name = parse_name(model_name)
        return self._intervene(name, "resume", reason, lambda now: promotion.resume(now, name))

    def abort(self, model_name: str, *, reason: str = "") -> Deployment:
        """Let the rollout under way in production go back to what serves."""
        name = parse_name(model_name)
        return self._intervene(name, "abort", reason, lambda now: promotion.abort(now, name, by=self._user, why=reason))

    def rollback(self, model_name: str, *, reason: str = "", wait: bool = True) -> Deployment:
        """Go back to what served production before; during a rollout, to what serves now."""
        name, environment = parse_name(model_name), self.repo.environment("production")
        now = environment.get(name)
        if now.serving is None and now.target is None and not now.earlier:
            raise NotFound(f"{name} was never deployed in production", remedy="see `modelyard status`")
        back = now.serving if now.rolling else next(iter(now.earlier), None)
        if back is None:
            raise Refused(f"{name} has no earlier version in production", remedy="promote the version you want")
        if self._signatures.requires("production"):
            self._signatures.require(self._version(name, back), "production")
        why = f"roll back {name} to {back}" + (f": {reason}" if reason else "")
        size = Size(strategy=promotion.back(now.spec))
        return self._roll(name, "production", back, why=why, size=size, wait=wait, seen=now)

    def undeploy(self, model_name: str, environment: str, *, reason: str = "", wait: bool = True) -> Deployment:
        """Stop serving a model in an environment."""
        name = parse_name(model_name)
        now = self.repo.environment(environment).get(name)
        if now.serving is None and now.target is None and now.outcome != "failed":
            raise NotFound(f"{name} is not deployed in {environment}", remedy="see `modelyard status`")
        why = f"undeploy {name}" + (f": {reason}" if reason else "")
        return self._roll(name, environment, None, why=why, wait=wait, seen=now)

    def configure(
        self, model_name: str, environment: str, changes: Sequence[str], *, reason: str = "", wait: bool = True
    ) -> Deployment:
        """Change how a model runs in an environment, such as `resources.gpus=1`, now and from now on.

        One that is deployed is rolled over; one that is not will run so. Raises InvalidInput for what can't be set,
        Refused for less memory than a replica takes, NotFound for a model that is not there, Conflict while a rollout
        of it is under way.
        """
        name = parse_name(model_name)
        self.repo.tags(name)  # raises NotFound where there is no such model
        now = self.repo.environment(environment).get(name)
        if now.rolling and now.outcome == "running":
            raise _in_the_way(name, environment, now)
        why = f"set {' '.join(changes)} of {name}" + (f": {reason}" if reason else "")
        size = Size(strategy=promotion.back(now.spec), changes=tuple(changes))
        if now.target and (room := self._local.room(self._version(name, now.target))):
            preflight.check_limit(name, size.spec(now, self._settings.deployment.replicas), room)
        return self._roll(name, environment, now.target, why=why, size=size, wait=wait and bool(now.target), seen=now)

    def status(self) -> list[Status]:
        """Every model in every environment."""
        local = self._local
        seen = Seen(local.replicas(), local.loaded(), local.troubles(), time.time())
        environments = [self.repo.environment(name) for name in ("production", "staging")]
        return [row for each in environments for row in rows(each.name, each.read(), seen)]

    def _version(self, model: str, pin: Pin) -> ModelVersion:
        return self.repo.resolve(ModelRef(model, pin.version, digest=pin.digest))

    def _need_pool(self, version: ModelVersion) -> None:
        engine = self._local.engine(version, None)["engine"]
        if engine != "pytorch":
            raise Refused(
                f"{version.name}:{version.version} runs on {engine}, which needs a process for each model",
                remedy="on demand run models of the PyTorch server only; use --replicas 1",
            )

    def _not_yanked(self, version: ModelVersion) -> ModelVersion:
        if why := self.repo.record(version.name).yanked.get(str(version.version)):
            raise Refused(f"{version.name}:{version.version} is yanked: {why}", remedy="choose another version")
        return version

    def _checked(self, version: ModelVersion, options: RolloutOptions, suite: Suite | None) -> Strategy:
        found, trusted = self._strategy(version, options, suite), self._local.trusted()
        if trusted is not None:
            measuring.require_trust_there(found, version, trusted)
        return found

    def _strategy(self, version: ModelVersion, options: RolloutOptions, suite: Suite | None) -> Strategy:
        found = promotion.strategy(options, self._configuration.parsed("rollout"), version.name, suite)
        if analysis := found.analysis:
            files = Files(self.repo, version, "the rollout's metrics", elsewhere=True)
            metrics = measuring.prepared(analysis.metrics, version, files, self._settings.serving.trust_code)
            found = replace(found, analysis=replace(analysis, metrics=metrics))
        return found

    def _intervene(self, name: str, verb: str, reason: str, change: Callable[[Deployment], Deployment]) -> Deployment:
        why = f"{verb} the rollout of {name}" + (f": {reason}" if reason else "")
        return self.repo.environment("production").update(name, change, by=self._user, why=why)

    def _wait(
        self, model: str, environment: str, asked: Deployment, told: Callable[[Deployment], None] = lambda _: None
    ) -> Deployment:
        if asked.outcome != "running":
            return asked
        self._require_leader()
        watch = Watch(self.repo.environment(environment), model, self._settings.deployment.timeout_s, told)
        return wait_for_rollout(watch, asked, self._require_leader)

    def _require_leader(self) -> None:
        if not self._local.running():
            raise Unavailable(
                f"recorded, but nothing {WHERE[self._target]} carries out deployments for {self.repo.storage.url}",
                remedy=f"start `modelyard {WHO[self._target]}`; it will do it",
            )

    def _roll(  # noqa: PLR0913 - what a wish says, each by its name
        self,
        model: str,
        environment: str,
        pin: Pin | None,
        *,
        why: str,
        wait: bool,
        size: Size | None = None,
        evidence: str | None = None,
        seen: Deployment | None = None,
        room: Room | None = None,
    ) -> Deployment:
        """Record the wish; with `seen`, only if nothing has changed since it was read, with `room`, only if it is
        enough."""
        size = size or Size()
        size.check()

        def decide(old: Deployment) -> Deployment | None:
            if seen is not None and old != seen:
                raise Conflict(f"{model} was changed in {environment} in between", remedy="look again, then repeat")
            spec = size.spec(old, self._settings.deployment.replicas)
            if spec.on_demand and pin:
                self._need_pool(self._version(model, pin))
            if old.rolling and old.outcome == "running" and seen is None:
                if old.target == pin and spec == old.spec:
                    return None  # it is on its way already: wait for it
                raise _in_the_way(model, environment, old)
            asked = old.ask(pin, spec=spec, evidence=evidence)
            if self._target == "none":
                return asked.finished()
            if room:
                preflight.check(model, asked, room)
            return asked

        asked = self.repo.change_deployment(model, environment, decide, why=why)
        return self._wait(model, environment, asked) if wait else asked

    def _gate(self) -> Gate:
        return Gate(self.repo, self._settings, self._local, self._signatures)


WHERE = {"local": "on this machine", "kubernetes": "in the cluster"}
WHO = {"local": "up", "kubernetes": "controller"}


def _in_the_way(model: str, environment: str, now: Deployment) -> Conflict:
    stop = f"promote {model} --abort" if environment == "production" else f"undeploy {model} --from {environment}"
    wait = f"resume it with `modelyard promote {model} --resume`" if now.progress.pause else "wait for it"
    paused = ", and paused" if now.progress.pause else ""
    return Conflict(
        f"a rollout of {model} to {now.target} is under way in {environment}{paused}",
        remedy=f"{wait}, or stop it with `modelyard {stop}`",
    )


def _pin(version: ModelVersion) -> Pin:
    return Pin(version.version, version.digest)
