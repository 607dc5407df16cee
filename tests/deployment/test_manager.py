"""The rules of the manager. Whoever carries wishes out is played by `carry_out`; validation is not asked for real."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelyard.configuration import ConfigurationManager
from modelyard.deployment import DeploymentManager, LocalStatus, Suite, facts, rollout
from modelyard.deployment.plan import Replica
from modelyard.deployment.preflight import RUNNING, Room
from modelyard.deployment.preflight import Memory as FreeMemory
from modelyard.deployment.promotion import RolloutOptions
from modelyard.deployment.rollout import describe
from modelyard.deployment.validation import Check, Validation
from modelyard.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    Refused,
    RolloutFailed,
    Unavailable,
    ValidationFailed,
)
from modelyard.repository import (
    Deployment,
    Environment,
    EvidenceJournal,
    ModelRepository,
    ModelVersion,
    Pause,
    Strategy,
)
from modelyard.settings import DeploymentSettings, ServingSettings, Settings
from modelyard.store import Memory

from .builders import replica

GOOD: tuple[Check, ...] = (Check("answers", True, "answered"),)
BAD = (Check("answers", True, "answered"), Check("accuracy", False, "0.5 is worse than the threshold 0.9"))
OTHER = Suite(name="other")


def engine_here(version: ModelVersion, engine: str | None) -> dict[str, str]:
    """What the rule says, unless an engine is known."""
    found = facts.engine_of(version)
    return found | {"engine": engine or found["engine"]}


class Bench:
    """A manager on a repository with three versions of `digit`; `checks` is what the next validation will find."""

    def __init__(self, repository: ModelRepository, target: str) -> None:
        self.running = True
        self.checks = GOOD
        self.validated = 0
        self.repository = repository
        settings = Settings(
            user="tester",
            deployment=DeploymentSettings(timeout_s=0.3),
            serving=ServingSettings(trust_code=("digit",)),
        )
        self.replicas: list[Replica] = []
        self.room: Room | None = None
        self.trusted: tuple[str, ...] | None = None
        local = LocalStatus(
            lambda: self.running,
            lambda: self.replicas,
            engine=engine_here,
            room=lambda _: self.room,
            trusted=lambda: self.trusted,
        )
        self.manager = DeploymentManager(repository, target=target, settings=settings, local=local)

    def promote(self, version: str, **options: Any) -> Deployment:
        return self.manager.promote_to_production("digit", version, wait=False, **options)

    def force(self, version: str) -> None:
        """To production, and there."""
        self.promote(version, force=True, reason="a test")
        self.carry_out()

    def stage(self, version: str) -> None:
        self.manager.deploy_to_staging("digit", version, wait=False)
        self.carry_out("staging")

    def validate(self, version: str, *, suite: Suite | None = None, checks: tuple[Check, ...] = GOOD) -> None:
        self.checks = checks
        self.manager.run_validation_tests("digit", version, suite=suite)

    def carry_out(self, environment: str = "production") -> None:
        self._journal(environment).update("digit", lambda now: now.finished(), by="reconciler", why="done")

    def fail(self, reason: str) -> None:
        self._journal("production").update("digit", lambda now: now.failed(reason), by="reconciler", why="failed")

    def serving(self) -> tuple[str | None, list[str]]:
        """What serves production, and what one can go back to."""
        now = self._journal("production").get("digit")
        return str(now.serving) if now.serving else None, [str(pin) for pin in now.earlier]

    def why(self) -> str:
        return self._journal("production").history()[-1][0].why

    def _journal(self, environment: str) -> Environment:
        return self.repository.environment(environment)


@pytest.fixture
def make_bench(
    open_repository: Callable[..., ModelRepository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Bench]:
    repository = open_repository(Memory())
    for number in (1, 2, 3):
        (tmp_path / "model.onnx").write_bytes(b"weights %d" % number)
        repository.register_model("digit", f"v1.{number}.0", tmp_path / "model.onnx", {})

    def make(target: str) -> Bench:
        bench = Bench(repository, target)

        def run(self: Validation) -> tuple[Check, ...]:
            bench.validated += 1
            return bench.checks

        monkeypatch.setattr(Validation, "run", run)
        return bench

    return make


@pytest.fixture
def bench(make_bench: Callable[[str], Bench]) -> Bench:
    return make_bench("local")


def test_promotion_without_evidence_validates_first(bench: Bench) -> None:
    bench.stage("v1.1.0")
    asked = bench.promote("v1.1.0")
    assert bench.validated == 1
    assert asked.evidence
    assert asked.evidence.startswith("default-")
    bench.carry_out()
    bench.promote("v1.1.0", replicas=2)  # the evidence is still good
    assert bench.validated == 1


def test_promotion_is_refused_with_the_reasons(bench: Bench) -> None:
    bench.stage("v1.1.0")
    bench.checks = BAD
    for _ in range(2):  # at once, and later from the evidence
        with pytest.raises(ValidationFailed, match=r"accuracy: 0\.5 is worse than the threshold 0\.9.*--force"):
            bench.promote("v1.1.0")
    assert bench.validated == 1
    assert bench.serving() == (None, [])


def test_what_is_not_staged_can_not_be_validated(bench: Bench) -> None:
    bench.stage("v1.2.0")
    with pytest.raises(Unavailable, match=r"digit:v1\.1\.0 is not deployed in staging.*modelyard stage"):
        bench.promote("v1.1.0")


def test_a_later_failure_revokes_a_pass_and_a_later_pass_heals(bench: Bench) -> None:
    bench.stage("v1.1.0")
    bench.validate("v1.1.0")
    bench.validate("v1.1.0", checks=BAD)
    with pytest.raises(ValidationFailed):
        bench.promote("v1.1.0")
    bench.validate("v1.1.0")
    bench.promote("v1.1.0")


def test_evidence_of_another_suite_does_not_do(bench: Bench) -> None:
    bench.stage("v1.1.0")
    bench.validate("v1.1.0")
    bench.checks = BAD
    with pytest.raises(ValidationFailed):
        bench.promote("v1.1.0", suite=OTHER)
    assert bench.validated == 2
    with pytest.raises(ValidationFailed, match="other-"):  # every suite that was ever run must have passed
        bench.promote("v1.1.0")


def test_evidence_on_another_engine_does_not_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage("v1.1.0")
    bench.validate("v1.1.0")
    monkeypatch.setattr(facts, "version", lambda library: "99.0")
    bench.promote("v1.1.0")
    assert bench.validated == 2


def test_what_was_staged_on_another_engine_is_not_promoted(bench: Bench) -> None:
    bench.stage("v1.1.0")
    pin = bench.repository.environment("staging").get("digit").serving
    assert pin is not None
    bench.replicas = [replica("a", pin, environment="staging", engine="ollama")]
    with pytest.raises(Refused, match=r"was validated on ollama .*; production would run pytorch .*; stage it again"):
        bench.promote("v1.1.0")
    (evidence,) = (
        EvidenceJournal(bench.repository.storage, "validation")
        .newest(bench.repository.resolve("digit:v1.1.0").ref)
        .values()
    )
    assert evidence.engine["engine"] == "ollama"

    bench.replicas = [replica("a", pin, environment="staging", engine="pytorch")]
    assert bench.promote("v1.1.0").evidence


def test_evidence_of_other_bytes_does_not_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage("v1.1.0")
    bench.validate("v1.1.0")
    newest = EvidenceJournal.newest

    def of_other_bytes(self: Any, ref: Any) -> Any:
        return {key: type(e)(e.passed, "sha256:" + "0" * 64, e.suite, e.engine) for key, e in newest(self, ref).items()}

    monkeypatch.setattr(EvidenceJournal, "newest", of_other_bytes)
    bench.promote("v1.1.0")
    assert bench.validated == 2


def test_force_needs_a_reason_which_the_history_keeps(bench: Bench) -> None:
    with pytest.raises(Refused, match="reason"):
        bench.promote("v1.1.0", force=True)
    asked = bench.promote("v1.1.0", force=True, reason="the customer waits")
    assert bench.validated == 0
    assert asked.evidence == "forced"
    assert bench.why() == "promote digit:v1.1.0, forced: the customer waits"


def test_one_rollout_at_a_time(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.promote("v1.2.0", force=True, reason="first")
    with pytest.raises(Conflict, match=r"a rollout of digit to v1\.2\.0 is under way"):
        bench.promote("v1.3.0", force=True, reason="second")


def test_rollbacks_go_back_step_by_step(bench: Bench) -> None:
    for version in ("v1.1.0", "v1.2.0", "v1.3.0"):
        bench.force(version)
    assert bench.serving() == ("v1.3.0", ["v1.2.0", "v1.1.0"])
    bench.manager.rollback("digit", reason="it is slow", wait=False)
    assert bench.why() == "roll back digit to v1.2.0: it is slow"
    bench.carry_out()
    assert bench.serving() == ("v1.2.0", ["v1.1.0"])
    bench.manager.rollback("digit", wait=False)
    bench.carry_out()
    assert bench.serving() == ("v1.1.0", [])
    with pytest.raises(Refused, match="no earlier version"):
        bench.manager.rollback("digit")


def test_rollback_during_a_rollout_goes_back_to_what_serves(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.force("v1.2.0")
    bench.promote("v1.3.0", force=True, reason="a test")
    asked = bench.manager.rollback("digit", wait=False)
    assert (str(asked.target), asked.outcome) == ("v1.2.0", "running")
    bench.carry_out()
    assert bench.serving() == ("v1.2.0", ["v1.1.0"])


def test_rollback_of_what_was_never_there(bench: Bench) -> None:
    with pytest.raises(NotFound, match="never deployed"):
        bench.manager.rollback("digit")
    bench.promote("v1.1.0", force=True, reason="a test")
    with pytest.raises(Refused, match="no earlier version"):
        bench.manager.rollback("digit")


def test_rollback_does_not_overtake_somebody_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.force("v1.1.0")
    bench.force("v1.2.0")
    get = Environment.get

    def slow_get(self: Environment, model: str) -> Deployment:
        seen = get(self, model)
        monkeypatch.setattr(Environment, "get", get)
        bench.promote("v1.3.0", force=True, reason="faster")
        return seen

    monkeypatch.setattr(Environment, "get", slow_get)
    with pytest.raises(Conflict, match="in between"):
        bench.manager.rollback("digit")


def test_undeploy_and_back(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.manager.undeploy("digit", "production", reason="retired", wait=False)
    bench.carry_out()
    assert bench.serving() == (None, ["v1.1.0"])
    with pytest.raises(NotFound, match="not deployed"):
        bench.manager.undeploy("digit", "production")
    bench.manager.rollback("digit", wait=False)
    bench.carry_out()
    assert bench.serving() == ("v1.1.0", [])


def test_replicas_stay_as_they_were(bench: Bench) -> None:
    bench.promote("v1.1.0", replicas=3, force=True, reason="a test")
    bench.carry_out()
    assert bench.promote("v1.2.0", force=True, reason="a test").spec.replicas == 3
    with pytest.raises(InvalidInput, match="0 replicas"):
        bench.promote("v1.2.0", replicas=0, force=True, reason="a test")


def test_on_demand_it_stays_until_replicas_are_asked_for(bench: Bench) -> None:
    options = {"force": True, "reason": "a test"}
    assert bench.promote("v1.1.0", min_replicas=0, **options).spec.on_demand
    bench.carry_out()
    [row] = bench.manager.status()
    assert (row.on_demand, row.ready, row.wanted) == (True, 0, 0)
    assert bench.promote("v1.2.0", **options).spec.on_demand
    bench.fail("it can't be loaded")
    assert not bench.promote("v1.2.0", replicas=1, **options).spec.on_demand
    bench.fail("it does not stay up")
    back = bench.repository.environment("production").get("digit")
    assert (back.spec.on_demand, back.serving_on_demand) == (True, True)
    for sizes in ({"min_replicas": 1}, {"min_replicas": 0, "replicas": 1}):
        with pytest.raises(InvalidInput):
            bench.promote("v1.2.0", **sizes, **options)


def test_with_the_target_none_it_is_only_recorded(make_bench: Callable[[str], Bench]) -> None:
    bench = make_bench("none")
    bench.running = False
    done = bench.manager.promote_to_production("digit", "v1.1.0", force=True, reason="deployed by another system")
    assert done.outcome == "done"
    assert bench.serving() == ("v1.1.0", [])
    assert bench.manager.status()[0].serving == "v1.1.0"


def test_waiting_needs_somebody_who_does_it(bench: Bench) -> None:
    bench.running = False
    with pytest.raises(Unavailable, match="modelyard up"):
        bench.manager.deploy_to_staging("digit", "v1.1.0")
    assert bench.repository.environment("staging").get("digit").outcome == "running"  # recorded all the same


def test_waiting_tells_how_it_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def then(action: Callable[[], object]) -> None:
        """Once the wish is recorded and waiting begins."""

        def running() -> bool:
            action()
            return True

        monkeypatch.setattr(bench.manager, "_local", LocalStatus(running, list))

    then(bench.carry_out)
    bench.manager.promote_to_production("digit", "v1.1.0", force=True, reason="a test")
    then(lambda: bench.fail("no memory"))
    with pytest.raises(RolloutFailed, match=r"went back to v1\.1\.0: no memory.*modelyard logs digit"):
        bench.manager.promote_to_production("digit", "v1.2.0", force=True, reason="a test")
    then(lambda: bench.manager.rollback("digit", wait=False))
    with pytest.raises(Conflict, match="took over"):
        bench.manager.promote_to_production("digit", "v1.2.0", force=True, reason="a test")
    bench.carry_out()
    then(lambda: None)
    with pytest.raises(RolloutFailed, match=r"not done after 0\.3 s; it goes on"):
        bench.manager.promote_to_production("digit", "v1.2.0", force=True, reason="a test")


CANARY = RolloutOptions(steps="5,50:resume", step_pause_s=0.0)


def test_a_promotion_takes_the_configured_strategy(bench: Bench) -> None:
    bench.force("v1.1.0")
    ConfigurationManager(bench.repository.storage, user="tester").set_config("rollout", "digit", {"surge": 3})
    assert bench.promote("v1.2.0", force=True, reason="a test").spec.strategy == Strategy(surge=3)


def test_a_rollout_is_paused_resumed_and_aborted(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.promote("v1.2.0", force=True, reason="a test", rollout=CANARY)
    bench.manager.pause("digit", reason="a look")
    assert bench.why() == "pause the rollout of digit: a look"
    [row] = bench.manager.status()
    assert row.reason == "step 1 of 2: v1.2.0 is to get 5 % of the requests; paused: a look"
    bench.manager.resume("digit")
    assert bench.why() == "resume the rollout of digit"
    aborted = bench.manager.abort("digit", reason="enough")
    assert (str(aborted.target), aborted.outcome, aborted.reason) == ("v1.1.0", "failed", "tester aborted it: enough")
    with pytest.raises(Conflict, match="no rollout of digit is under way"):
        bench.manager.abort("digit")


def test_waiting_ends_at_a_pause(bench: Bench) -> None:
    bench.force("v1.1.0")
    asked = bench.promote("v1.2.0", force=True, reason="a test", rollout=CANARY)
    journal, heard = bench.repository.environment("production"), list[str]()
    journal.update("digit", lambda now: now.paused(Pause("step", "it says so", "me", 0.0)), by="me", why="at 5 %")
    paused = bench.manager.wait("digit", asked, told=lambda now: heard.append(describe(now)))
    assert paused.progress.pause
    assert heard == ["step 1 of 2: v1.2.0 is to get 5 % of the requests; paused: it says so"]
    journal.update("digit", lambda now: now.paused(Pause("analysis", "nobody asks", "me", 0.0)), by="me", why="held")
    with pytest.raises(RolloutFailed, match=r"is paused: .*nobody asks; use `modelyard promote digit --resume` or"):
        bench.manager.wait("digit", asked)


def test_a_pause_by_somebody_else_is_no_success(bench: Bench) -> None:
    bench.force("v1.1.0")
    asked = bench.promote("v1.2.0", force=True, reason="a test", rollout=CANARY)
    bench.manager.pause("digit", reason="a look")
    with pytest.raises(RolloutFailed, match=r"is paused: .*a look; use `modelyard promote digit --resume` or"):
        bench.manager.wait("digit", asked)


def test_who_waits_hears_that_nobody_carries_it_out_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.force("v1.1.0")
    asked = bench.promote("v1.2.0", force=True, reason="a test", rollout=RolloutOptions(steps="5", step_pause_s=600))
    looks: list[bool] = []

    def running() -> bool:
        looks.append(len(looks) in (0, 2))  # away for a moment, back, and gone
        return looks[-1]

    monkeypatch.setattr(rollout, "_LOOK_S", 0.0)
    monkeypatch.setattr(rollout, "_POLL_S", 0.0)
    monkeypatch.setattr(bench.manager, "_local", LocalStatus(running, list))
    with pytest.raises(Unavailable, match="nothing on this machine carries out deployments"):
        bench.manager.wait("digit", asked)
    assert looks == [True, False, True, False, False, False]


def test_a_limit_below_what_replicas_take_is_refused(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.room = Room(FreeMemory(2**33, 2**30, RUNNING), 10)
    with pytest.raises(Refused, match=r"a replica of digit takes 1.0 GiB of memory, and resources.memory would be 2Mi"):
        bench.manager.configure("digit", "production", ["resources.memory=2Mi"], wait=False)
    assert bench.repository.environment("production").get("digit").outcome == "done"
    assert bench.manager.configure("digit", "production", ["resources.memory=2Gi"], wait=False).spec.resources.memory


def test_a_promotion_without_room_is_refused_before_it_begins(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.room = Room(FreeMemory(100 * 2**20, 2**30, "by the size of its files"), 10)
    bench.stage("v1.2.0")
    bench.validate("v1.2.0")
    with pytest.raises(Refused, match=r"digit needs one more replica .* --surge 0 --unavailable 1"):
        bench.promote("v1.2.0")
    with pytest.raises(Refused, match="needs one more replica"):
        bench.manager.preview("digit", "v1.2.0")
    assert bench.repository.environment("production").get("digit").outcome == "done"
    narrow = RolloutOptions(surge=0, unavailable=1)
    assert bench.manager.preview("digit", "v1.2.0", rollout=narrow).least == 0
    assert bench.promote("v1.2.0", rollout=narrow).outcome == "running"


def test_a_metric_that_can_not_work_is_refused_before_anything_begins(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.stage("v1.2.0")
    asked = RolloutOptions(metrics=("nowhere.py:loss:lower",))
    for verb in (bench.promote, partial(bench.manager.preview, "digit")):
        with pytest.raises(NotFound, match=r"the metric's file nowhere\.py can't be read: No such file"):
            verb("v1.2.0", rollout=asked)
    assert bench.validated == 0
    assert bench.repository.environment("production").get("digit").outcome == "done"


def test_a_metric_that_would_not_be_taken_is_refused_before_anything_begins(bench: Bench, tmp_path: Path) -> None:
    bench.force("v1.1.0")
    (tmp_path / "quality.py").write_text("def loss(version):\n    return 1\n")
    asked = RolloutOptions(metrics=(f"{tmp_path / 'quality.py'}:loss:lower",))
    bench.trusted = ()
    for verb in (bench.promote, partial(bench.manager.preview, "digit")):
        with pytest.raises(Refused, match=r"quality\.py:loss is Python code, which the `modelyard up` that runs"):
            verb("v1.2.0", rollout=asked)
    assert bench.repository.environment("production").get("digit").outcome == "done"
    for trusted in (None, ("digit",)):
        bench.trusted = trusted
        assert bench.manager.preview("digit", "v1.2.0", rollout=asked).steps


def test_a_rollback_is_no_canary(bench: Bench) -> None:
    bench.force("v1.1.0")
    bench.promote("v1.2.0", force=True, reason="a test", rollout=CANARY)
    bench.carry_out()
    assert bench.manager.rollback("digit", wait=False).spec.strategy == Strategy()
