"""The gate before production: runs validations, keeps what they found as evidence, and says what permits promotion.

Evidence counts for the very digest, the suite as it is now, the engine and precision that production would run, and,
where it compared with production, for what still serves there. Knows no rollouts.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from modelyard.configuration import ConfigurationManager
from modelyard.deployment.checks.base import Planned
from modelyard.deployment.checks.subject import Known, Production
from modelyard.deployment.client import ModelClient
from modelyard.deployment.plan import Replica
from modelyard.deployment.suite import Suite
from modelyard.deployment.suites import SECTION, Chosen, Suites
from modelyard.deployment.validation import Report, Validation
from modelyard.engines import OllamaServer
from modelyard.errors import Refused, Unavailable, ValidationFailed
from modelyard.refs import ModelRef
from modelyard.repository import Evidence, EvidenceJournal, ModelRepository, ModelVersion, Pin
from modelyard.repository.scanning import KIND as SCAN
from modelyard.repository.signatures import Signatures
from modelyard.settings import Settings

if TYPE_CHECKING:
    from modelyard.deployment.manager import LocalStatus


@dataclass(frozen=True, slots=True)
class ValidationPlan:
    """What a validation would do; `origin` says where the suite comes from."""

    ref: str
    suite: str
    suite_digest: str
    origin: str
    checks: tuple[Planned, ...]

    def to_dict(self) -> dict[str, Any]:
        checks = [{"name": check.name, "what": check.what} for check in self.checks]
        named = {"ref": self.ref, "suite": self.suite, "suite_digest": self.suite_digest, "origin": self.origin}
        return named | {"checks": checks}


class Gate:
    """One is made for each question, since nothing is remembered."""

    def __init__(
        self, repository: ModelRepository, settings: Settings, local: LocalStatus, signatures: Signatures
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._local = local
        self._signatures = signatures
        self._journal = EvidenceJournal(repository.storage, "validation")
        configuration = ConfigurationManager(repository.storage, user=settings.user)
        self._suites = Suites(repository, lambda: configuration.get_section(SECTION))

    def plan(self, version: ModelVersion, suite: Suite | None = None, *, trust_code: bool = False) -> ValidationPlan:
        """Which checks would run with which data. Asks the model nothing."""
        chosen = self._suites.choose(version, suite)
        with ExitStack() as stack:
            serves = self._serves(version)
            checks = self._validation(version, chosen.suite, serves, stack, trust_code=trust_code).plan()
        found = chosen.suite
        return ValidationPlan(str(version.ref), found.name, str(found.digest), chosen.origin, checks)

    def validate(self, version: ModelVersion, suite: Suite | None = None, *, trust_code: bool = False) -> Report:
        """Run the suite that counts, and keep the evidence. Raises Unavailable for a version that is not staged."""
        return self._validated(version, self._suites.choose(version, suite), trust_code=trust_code)

    def proof(self, version: ModelVersion, suite: Suite | None = None) -> str:
        """The key of evidence that permits promotion.

        Where no evidence counts the version is validated now. Raises ValidationFailed for a failure, Unavailable when
        it can't be validated, Refused when staging does not run what production would.
        """
        chosen, engine = self._suites.choose(version, suite), self._local.engine(version, None)
        asked = _Question(version, chosen, engine, self._serves(version))
        found = self._journal.newest(version.ref)
        counting = asked.counting(found)
        failed = next(((key, e) for key, e in counting.items() if not e.passed), None)
        if failed:
            checks = "; ".join(f"{c['name']}: {c['detail']}" for c in failed[1].checks if not c["passed"])
            raise ValidationFailed(f"{version.ref} failed {failed[0]}: {checks}", remedy=_mend(chosen))
        passed = [key for key, e in counting.items() if not chosen.required or e.suite == str(chosen.suite.digest)]
        return min(passed) if passed else self._proof_now(version, chosen, engine, asked.stale(found.values()))

    def _proof_now(self, version: ModelVersion, chosen: Chosen, engine: dict[str, str], stale: str) -> str:
        """Evidence made at this moment. `stale` says why what there is does not count."""
        self._require_staged(version, stale)
        report = self._validated(version, chosen)
        if not report:
            again = f" (validated again, since {stale})" if stale else ""
            raise ValidationFailed(f"{version.ref} failed: {report.failures}{again}", remedy=_mend(chosen))
        if report.engine != engine:
            raise Refused(
                f"{version.ref} was validated on {_said(report.engine)}; production would run {_said(engine)}",
                remedy=f"stage it again with `modelyard stage {version.name}:{version.version}`",
            )
        return _key(chosen.suite, engine)

    def _validated(self, version: ModelVersion, chosen: Chosen, *, trust_code: bool = False) -> Report:
        self._require_staged(version)
        suite, serves = chosen.suite, self._serves(version)
        with ExitStack() as stack:
            checks = self._validation(version, suite, serves, stack, trust_code=trust_code).run()
        report = Report(
            str(version.ref),
            suite.name,
            str(suite.digest),
            self._local.engine(version, self._engine_in_staging(version)),
            checks,
            origin=chosen.origin,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._keep(version, suite, report, against=_against(suite, serves))
        return report

    def _validation(
        self, version: ModelVersion, suite: Suite, serves: Pin | None, stack: ExitStack, *, trust_code: bool
    ) -> Validation:
        def client(environment: str) -> ModelClient:
            name, settings = f"{version.name}:{environment}", self._settings
            return stack.enter_context(ModelClient(settings.gateway.url, name, token=settings.token))

        production = Production(client("production"), str(_exact(version.name, serves))) if serves else None
        known = Known(
            scan=lambda: max(
                EvidenceJournal(self._repository.storage, SCAN).newest(version.ref).values(),
                key=lambda each: each.at,
                default=None,
            ),
            verify=lambda: f"signed with a {self._signatures.verify(version).method}",
            replicas=lambda: [r.id for r in self._staged(version) if r.engine != OllamaServer.name],
            trusted=None if trust_code else self._settings.serving.trust_code,
        )
        return Validation(version, suite, client("staging"), production, known)

    def _require_staged(self, version: ModelVersion, stale: str = "") -> None:
        name = f"{version.name}:{version.version}"
        if self._repository.environment("staging").get(version.name).serving != _pin(version):
            raise Unavailable(
                f"{name} is not deployed in staging" + (f" to be validated again, and {stale}" if stale else ""),
                remedy=f"run `modelyard stage {name}`",
            )

    def _serves(self, version: ModelVersion) -> Pin | None:
        return self._repository.environment("production").get(version.name).serving

    def _staged(self, version: ModelVersion) -> list[Replica]:
        """The replicas that answer in staging, as far as this machine knows."""
        found = (r for r in self._local.replicas() if (r.environment, r.model) == ("staging", version.name))
        return [r for r in found if r.pin == _pin(version) and r.state == "ready"]

    def _engine_in_staging(self, version: ModelVersion) -> str | None:
        return next((r.engine for r in self._staged(version) if r.engine), None)

    def _keep(self, version: ModelVersion, suite: Suite, report: Report, *, against: str) -> None:
        checks = [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in report.checks]
        digest, engine = str(version.digest), report.engine
        evidence = Evidence(bool(report), digest, report.suite_digest, engine, checks, against=against)
        self._journal.add(version.ref, _key(suite, report.engine), evidence, by=self._settings.user)


@dataclass(frozen=True, slots=True)
class _Question:
    """May this version go to production, where `serves` serves now and `engine` would run it? Pure."""

    version: ModelVersion
    chosen: Chosen
    engine: dict[str, str]
    serves: Pin | None

    def counting(self, found: dict[str, Evidence]) -> dict[str, Evidence]:
        """The evidence that says something about this promotion: of a given suite only its own, else the newest of
        every suite that was ever run."""
        fresh = {key: e for key, e in found.items() if not self._why_stale(e)}
        if self.chosen.required:
            suite = self.chosen.suite
            fresh = {
                key: e
                for key, e in fresh.items()
                if e.suite == str(suite.digest) or not (self.chosen.given or _suite_name(key) == suite.name)
            }
        newest = {_suite_name(key): key for key in sorted(fresh, key=lambda key: fresh[key].at)}
        return {key: fresh[key] for key in newest.values()}

    def stale(self, found: Iterable[Evidence]) -> str:
        """Why the newest evidence does not count; empty without any."""
        last = max(found, key=lambda each: each.at, default=None)
        if last is None:
            return ""
        return self._why_stale(last) or f"its suite {self.chosen.suite.name} has changed since it was validated"

    def _why_stale(self, evidence: Evidence) -> str:
        if evidence.digest != str(self.version.digest):
            return f"its evidence is about other bytes, {evidence.digest[:19]}"
        if evidence.engine != self.engine:
            return f"it was validated on {_said(evidence.engine)}; production would run {_said(self.engine)}"
        now = str(self.serves.digest) if self.serves else ""
        if now and evidence.against and now not in (evidence.against, evidence.digest):
            return f"it was compared with {evidence.against[:19]}; production serves {now[:19]} now"
        return ""


def _mend(chosen: Chosen) -> str:
    other = "" if chosen.given else " name the suite that counts with --suite,"
    return f"mend the model and validate it again,{other} or use --force with --reason"


def _against(suite: Suite, serves: Pin | None) -> str:
    """What a result of the suite was compared with."""
    if not suite.compares:
        return ""
    return str(serves.digest) if serves else "nothing"


def _said(engine: dict[str, str]) -> str:
    return f"{engine['engine']} ({engine['version']}, {engine['precision']}, {engine['device']})"


def _key(suite: Suite, engine: dict[str, str]) -> str:
    return f"{suite.name}-{suite.digest.short}-{engine['engine']}"


def _suite_name(key: str) -> str:
    return key.rsplit("-", 2)[0]


def _pin(version: ModelVersion) -> Pin:
    return Pin(version.version, version.digest)


def _exact(name: str, pin: Pin) -> ModelRef:
    return ModelRef(name, pin.version, digest=pin.digest)
