"""The deployment manager: the verbs that move versions through the environments, and the rules they keep.

It writes wishes into the environments' journals and waits for a reconciler to make them true; it starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelyard import defaults
from modelyard.deployment.client import ModelClient
from modelyard.deployment.facts import engine_of
from modelyard.deployment.plan import Replica
from modelyard.deployment.rollout import wait_for_rollout
from modelyard.deployment.spec import changed
from modelyard.deployment.suite import DEFAULT, Suite
from modelyard.deployment.validation import Report, Validation
from modelyard.errors import Conflict, InvalidInput, NotFound, Refused, Unavailable, ValidationFailed
from modelyard.refs import ModelRef, parse_name
from modelyard.repository import (
    Deployment,
    DeploymentSpec,
    Evidence,
    EvidenceJournal,
    ModelRepository,
    ModelVersion,
    Pin,
)
from modelyard.repository.signatures import Signatures
from modelyard.settings import Settings

if TYPE_CHECKING:
    from modelyard.deployment.targets.kubernetes import KubernetesClient
    from modelyard.deployment.targets.kubernetes.parts import Parts


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """What this machine's target can tell: whether somebody carries wishes out, the replicas, what its pools have
    loaded, and what a version runs on with an engine, or with the one that would be chosen."""

    running: Callable[[], bool]
    replicas: Callable[[], list[Replica]]
    loaded: Callable[[], Collection[tuple[str, str, str]]] = tuple  # environment, model, version; on demand
    engine: Callable[[ModelVersion, str | None], dict[str, str]] = lambda version, _: engine_of(version)


@dataclass(frozen=True, slots=True)
class Status:
    """One model in one environment, for people and for `--json`. One that is `on_demand` needs no replica; `ready` is 1
    while it is loaded."""

    environment: str
    model: str
    serving: str | None
    target: str | None
    ready: int
    wanted: int
    outcome: str
    reason: str
    on_demand: bool = False


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
        self._evidence = EvidenceJournal(model_repository.storage, "validation")
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
        size = _Size(replicas, min_replicas)
        return self._roll(version.name, "staging", _pin(version), why=why, size=size, wait=wait)

    def run_validation_tests(self, model_name: str, model_version: str, *, suite: Suite | None = None) -> Report:
        """Ask the staged version what the suite demands, and keep the result as evidence.

        The report is falsy when a check failed. Raises Unavailable when the version is not deployed in staging.
        """
        version = self.repo.resolve(f"{model_name}:{model_version}")
        suite = suite or DEFAULT
        staged = self.repo.environment("staging").get(version.name)
        if staged.serving != _pin(version):
            raise Unavailable(
                f"{version.name}:{version.version} is not deployed in staging",
                remedy=f"run `modelyard stage {version.name}:{version.version}`",
            )
        url, token = self._settings.gateway.url, self._settings.token
        serves = self.repo.environment("production").get(version.name).serving
        with (
            ModelClient(url, f"{version.name}:staging", token=token) as there,
            ModelClient(url, f"{version.name}:production", token=token) as now,
        ):
            checks = Validation(version, suite, there, now if serves else None).run()
        engine = self._local.engine(version, self._engine_in_staging(version))
        report = Report(str(version.ref), suite.name, str(suite.digest), engine, checks)
        self._keep(version, suite, report)
        return report

    def promote_to_production(
        self,
        model_name: str,
        model_version: str,
        *,
        suite: Suite | None = None,
        replicas: int | None = None,
        min_replicas: int | None = None,
        force: bool = False,
        reason: str = "",
        wait: bool = True,
    ) -> Deployment:
        """Roll a validated version out to production.

        Without fresh passing evidence it is validated first. Raises ValidationFailed, unless forced with a reason,
        which the journal keeps; RolloutFailed when it does not come up, in which case what served goes on serving.
        """
        version = self.repo.resolve(f"{model_name}:{model_version}")
        if force and not reason:
            raise Refused("a forced promotion needs a reason", remedy="give --reason")
        if not force:
            self._not_yanked(version)
        self._signatures.require(version, "production")
        evidence = "forced" if force else self._proof(version, suite)
        why = f"promote {version.name}:{version.version}" + (f", forced: {reason}" if force else "")
        why += f": {reason}" if reason and not force else ""
        return self._roll(
            version.name,
            "production",
            _pin(version),
            why=why,
            size=_Size(replicas, min_replicas),
            wait=wait,
            evidence=evidence,
        )

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
            self._signatures.require(self.repo.resolve(ModelRef(name, back.version, digest=back.digest)), "production")
        why = f"roll back {name} to {back}" + (f": {reason}" if reason else "")
        return self._roll(name, "production", back, why=why, wait=wait, seen=now)

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

        One that is deployed is rolled over; one that is not will run so. Raises InvalidInput for what can't be set.
        """
        name = parse_name(model_name)
        now = self.repo.environment(environment).get(name)
        why = f"set {' '.join(changes)} of {name}" + (f": {reason}" if reason else "")
        size = _Size(changes=tuple(changes))
        return self._roll(name, environment, now.target, why=why, size=size, wait=wait and bool(now.target), seen=now)

    def status(self) -> list[Status]:
        """Every model in every environment."""
        replicas, loaded = self._local.replicas(), self._local.loaded()
        rows = []
        for name in ("production", "staging"):
            for model, d in sorted(self.repo.environment(name).read().items()):
                if d.serving is None and d.target is None and d.outcome == "done":
                    continue  # undeployed
                ready = sum(r.state == "ready" for r in replicas if (r.environment, r.model) == (name, model))
                ready += any((name, model, str(ref.version)) in loaded for ref in d.on_demand(model))
                serving, target = (str(pin) if pin else None for pin in (d.serving, d.target))
                on_demand = d.spec.on_demand
                wanted = d.spec.replicas if d.target and not on_demand else 0
                rows.append(Status(name, model, serving, target, ready, wanted, d.outcome, d.reason, on_demand))
        return rows

    def _need_pool(self, ref: ModelRef) -> None:
        engine = self._local.engine(self.repo.resolve(ref), None)["engine"]
        if engine != "pytorch":
            raise Refused(
                f"{ref.name}:{ref.version} runs on {engine}, which needs a process for each model",
                remedy="on demand run models of the PyTorch server only; use --replicas 1",
            )

    def _not_yanked(self, version: ModelVersion) -> ModelVersion:
        if why := self.repo.record(version.name).yanked.get(str(version.version)):
            raise Refused(f"{version.name}:{version.version} is yanked: {why}", remedy="choose another version")
        return version

    def _roll(
        self,
        model: str,
        environment: str,
        pin: Pin | None,
        *,
        why: str,
        wait: bool,
        size: _Size | None = None,
        evidence: str | None = None,
        seen: Deployment | None = None,
    ) -> Deployment:
        """Record the wish; with `seen`, only if nothing has changed since it was read."""
        size = size or _Size()
        size.check()

        def decide(old: Deployment) -> Deployment | None:
            if seen is not None and old != seen:
                raise Conflict(f"{model} was changed in {environment} in between", remedy="look again, then repeat")
            spec = size.spec(old, self._settings.deployment.replicas)
            if spec.on_demand and pin:
                self._need_pool(ModelRef(model, pin.version, digest=pin.digest))
            if old.rolling and old.outcome == "running" and seen is None:
                if old.target == pin and spec == old.spec:
                    return None  # it is on its way already: wait for it
                raise Conflict(
                    f"a rollout of {model} to {old.target} is under way in {environment}",
                    remedy=f"wait for it, or stop it with {_WAY_OUT[environment]}",
                )
            asked = old.ask(pin, spec=spec, evidence=evidence)
            return asked.finished() if self._target == "none" else asked

        asked = self.repo.change_deployment(model, environment, decide, why=why)
        if self._target == "none" or not wait:
            return asked
        if not self._local.running():
            raise Unavailable(
                f"recorded, but nothing {_WHERE[self._target]} carries out deployments for {self.repo.storage.url}",
                remedy=f"start `modelyard {_WHO[self._target]}`; it will do it",
            )
        return wait_for_rollout(
            self.repo.environment(environment), model, asked, timeout_s=self._settings.deployment.timeout_s
        )

    def _proof(self, version: ModelVersion, suite: Suite | None) -> str:
        """The key of evidence that permits promotion: the newest of every suite on this engine must have passed."""
        engine = self._local.engine(version, None)
        found = {
            key: evidence
            for key, evidence in self._evidence.newest(version.ref).items()
            if evidence.digest == str(version.digest)
            and evidence.engine == engine
            and (suite is None or evidence.suite == str(suite.digest))
        }
        if not found:
            report = self.run_validation_tests(version.name, str(version.version), suite=suite)
            if not report:
                raise ValidationFailed(f"{version.ref} failed: {report.failures}", remedy=_MEND)
            if report.engine != engine:
                raise Refused(
                    f"{version.ref} was validated on {_said(report.engine)}; production would run {_said(engine)}",
                    remedy=f"stage it again with `modelyard stage {version.name}:{version.version}`",
                )
            return _key(suite or DEFAULT, report.engine)
        failed = next(((key, e) for key, e in found.items() if not e.passed), None)
        if failed:
            checks = "; ".join(f"{c['name']}: {c['detail']}" for c in failed[1].checks if not c["passed"])
            raise ValidationFailed(f"{version.ref} failed {failed[0]}: {checks}", remedy=_MEND)
        return sorted(found)[0]

    def _engine_in_staging(self, version: ModelVersion) -> str | None:
        """The engine of the replicas that answer there, as far as this machine knows."""
        found = (r for r in self._local.replicas() if (r.environment, r.model) == ("staging", version.name))
        return next((r.engine for r in found if r.pin == _pin(version) and r.state == "ready" and r.engine), None)

    def _keep(self, version: ModelVersion, suite: Suite, report: Report) -> None:
        checks = [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in report.checks]
        evidence = Evidence(bool(report), str(version.digest), report.suite_digest, report.engine, checks)
        self._evidence.add(version.ref, _key(suite, report.engine), evidence, by=self._user)


@dataclass(frozen=True, slots=True)
class _Size:
    """What a wish says about replicas; None: as before."""

    replicas: int | None = None
    min_replicas: int | None = None
    changes: tuple[str, ...] = ()  # of anything else, as key=value

    def check(self) -> None:
        if self.replicas is not None and self.min_replicas is not None:
            raise InvalidInput("a model has replicas of its own or runs on demand", remedy="give only one of the two")
        if self.replicas is not None and self.replicas < 1:
            raise InvalidInput(
                f"{self.replicas} replicas can't serve", remedy="give at least 1, or use `modelyard undeploy`"
            )
        if self.min_replicas not in (None, 0):
            raise InvalidInput(
                f"at least {self.min_replicas} replicas can't be asked for", remedy="give 0, or replicas"
            )

    def spec(self, old: Deployment, default: int) -> DeploymentSpec:
        count = self.replicas or (old.spec.replicas if old.rollout else default)
        on_demand = self.min_replicas == 0 or (old.spec.on_demand and self.replicas is None)
        return changed(replace(old.spec, replicas=count, min_replicas=0 if on_demand else None), self.changes)


_WHERE = {"local": "on this machine", "kubernetes": "in the cluster"}
_WHO = {"local": "up", "kubernetes": "controller"}
_WAY_OUT = {"production": "`modelyard rollback`", "staging": "`modelyard undeploy --from staging`"}
_MEND = "mend the model and validate it again, name the suite that counts with --suite, or use --force with --reason"


def _said(engine: dict[str, str]) -> str:
    return f"{engine['engine']} ({engine['version']}, {engine['precision']}, {engine['device']})"


def _key(suite: Suite, engine: dict[str, str]) -> str:
    return f"{suite.name}-{suite.digest.short}-{engine['engine']}"


def _pin(version: ModelVersion) -> Pin:
    return Pin(version.version, version.digest)
