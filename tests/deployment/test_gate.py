"""What permits promotion, and each reason why it is refused. The gateway is a small HTTP server; the rest is real."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.configuration import ConfigurationManager
from modelyard.deployment import DeploymentManager, LocalStatus, Suite, facts, read_suite
from modelyard.deployment.plan import Replica
from modelyard.errors import InvalidInput, ModelyardError, NotFound, Refused, Unavailable, ValidationFailed
from modelyard.repository import (
    Evidence,
    EvidenceJournal,
    Inspection,
    ModelInfo,
    ModelRepository,
    ModelVersion,
)
from modelyard.repository.manifest import Signature, Tensor
from modelyard.settings import GatewaySettings, SecuritySettings, Settings
from modelyard.store import Memory

from .builders import replica
from .model_server import FakeModel, gateway

INFO = ModelInfo(
    format="onnx",
    task="text-classification",
    license="mit",
    signature=Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("y", "FP32", (-1, 2)),)),
)
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
GOLDEN = {"name": "wines", "golden": [{"request": REQUEST, "expect": {"outputs": [{"data": [1.0, 2.0]}]}}]}
PRODUCTION = "digit:v1.1.0"


class Bench:
    """A manager on a repository with v1.1.0 and v1.2.0 of `digit`; `staged` answers for v1.2.0."""

    def __init__(self, repository: ModelRepository, url: str, models: dict[str, FakeModel], folder: Path) -> None:
        port = int(url.rpartition(":")[2])
        self.repository, self.folder = repository, folder
        self.settings = Settings(
            user="tester", gateway=GatewaySettings(port=port), cache=folder / "cache", state=folder / "state"
        )
        self.staged, self.production = models["digit:staging"], models["digit:production"]
        self.replicas: list[Replica] = []
        self.configuration = ConfigurationManager(repository.storage, user="tester")

    def manager(self, **security: Any) -> DeploymentManager:
        settings = self.settings.model_copy(update={"security": SecuritySettings(**security)})

        def engine(version: ModelVersion, name: str | None) -> dict[str, str]:
            found = facts.engine_of(version)
            return found | {"engine": name or found["engine"]}

        local = LocalStatus(lambda: False, lambda: self.replicas, engine=engine)
        return DeploymentManager(self.repository, target="none", settings=settings, local=local)

    def stage(self, version: str = "v1.2.0") -> ModelVersion:
        self.manager().deploy_to_staging("digit", version)
        found = self.repository.resolve(f"digit:{version}")
        self.staged.label = str(found.ref)
        return found

    def put_into_production(self, version: str) -> None:
        self.manager().promote_to_production("digit", version, force=True, reason="a test")
        self.production.label = str(self.repository.resolve(f"digit:{version}").ref)

    def validate(self, suite: Any = None) -> bool:
        given = Suite.model_validate(suite) if suite is not None else None
        return bool(self.manager().run_validation_tests("digit", "v1.2.0", suite=given))

    def promote(self, suite: Any = None, **options: Any) -> str:
        given = Suite.model_validate(suite) if suite is not None else None
        return self.manager().promote_to_production("digit", "v1.2.0", suite=given, **options).evidence or ""

    def refused(self, kind: type[ModelyardError], suite: Any = None, **options: Any) -> str:
        """The one line with which promotion is refused; production is as before."""
        before = self.repository.environment("production").get("digit")
        with pytest.raises(kind) as caught:
            self.promote(suite, **options)
        assert self.repository.environment("production").get("digit") == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def runs(self) -> int:
        """How often v1.2.0 was validated, over all suites."""
        journal = EvidenceJournal(self.repository.storage, "validation")
        ref = self.repository.resolve("digit:v1.2.0").ref
        return sum(len(journal._journal(ref, key).history()) for key in journal.newest(ref))


@pytest.fixture
def bench(open_repository: Callable[..., ModelRepository], tmp_path: Path) -> Iterator[Bench]:
    repository = open_repository(Memory(), inspect=lambda files: Inspection(INFO))
    for version in ("v1.1.0", "v1.2.0"):
        (tmp_path / "model.onnx").write_bytes(version.encode())
        repository.register_model("digit", version, tmp_path / "model.onnx", {})
    models = {"digit:staging": FakeModel(""), "digit:production": FakeModel("")}
    with gateway(models) as url:
        yield Bench(repository, url, models, tmp_path)


def test_missing_evidence_is_made_if_it_can_be(bench: Bench) -> None:
    assert bench.refused(Unavailable) == ("digit:v1.2.0 is not deployed in staging; run `modelyard stage digit:v1.2.0`")
    bench.stage()
    assert bench.promote().startswith("default-")
    assert bench.runs() == 1


def test_failing_evidence(bench: Bench) -> None:
    bench.stage()
    bench.staged.factor = 2
    assert not bench.validate(GOLDEN)
    bench.staged.factor = 1
    for suite in (GOLDEN, None):
        text = bench.refused(ValidationFailed, suite)
        assert ("name the suite that counts with --suite" in text) is (suite is None)
        assert "failed wines-" in text and "golden 1: the answer.outputs[0].data[0] is 2.0, expected 1.0" in text
    assert bench.runs() == 1


def test_missing_and_failing_now(bench: Bench) -> None:
    bench.stage()
    bench.staged.factor = 2
    text = bench.refused(ValidationFailed, GOLDEN)
    assert f"{bench.staged.label} failed: golden 1: " in text and "validated again" not in text
    assert bench.runs() == 1  # which is kept


def test_a_later_failure_revokes_a_pass(bench: Bench) -> None:
    bench.stage()
    assert bench.validate(GOLDEN)
    bench.staged.factor = 2
    assert not bench.validate(GOLDEN)
    assert "failed wines-" in bench.refused(ValidationFailed, GOLDEN)
    bench.staged.factor = 1
    assert bench.validate(GOLDEN)
    assert bench.promote(GOLDEN).startswith("wines-")
    assert bench.runs() == 3


def test_a_changed_suite_makes_evidence_stale(bench: Bench) -> None:
    bench.stage()
    assert bench.validate(GOLDEN)
    stricter = GOLDEN | {"licenses": ["apache-2.0"]}
    text = bench.refused(ValidationFailed, stricter)
    assert "license: mit is not allowed" in text
    assert "validated again, since its suite wines has changed since it was validated" in text
    bench.stage("v1.1.0")
    assert bench.refused(Unavailable, GOLDEN | {"licenses": ["mit"]}) == (
        "digit:v1.2.0 is not deployed in staging to be validated again, and its suite wines has changed since it was "
        "validated; run `modelyard stage digit:v1.2.0`"
    )


def test_a_failure_of_a_suite_as_it_was_is_stale_too(bench: Bench) -> None:
    bench.stage()
    bench.configuration.set_config("validation", "digit", GOLDEN | {"licenses": ["apache-2.0"]})
    assert not bench.validate()
    bench.configuration.set_config("validation", "digit", GOLDEN)
    assert bench.promote().startswith("wines-")
    assert bench.runs() == 2


@pytest.mark.parametrize("what", ["version", "precision", "device"])
def test_evidence_of_another_engine_or_precision_is_stale(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    bench.stage()
    assert bench.validate()
    now = facts.engine_of(bench.repository.resolve("digit:v1.2.0")) | {what: "another"}
    monkeypatch.setattr(facts, "engine_of", lambda version: now)
    bench.stage("v1.1.0")
    text = bench.refused(Unavailable)
    assert "not deployed in staging to be validated again, and it was validated on pytorch (onnxruntime " in text
    assert "production would run pytorch (" in text and "another" in text
    bench.stage()
    assert bench.promote()
    assert bench.runs() == 2


def test_staging_on_another_engine(bench: Bench) -> None:
    version = bench.stage()
    pin = bench.repository.environment("staging").get("digit").serving
    assert pin
    bench.replicas = [replica("a", pin, environment="staging", engine="vllm")]
    text = bench.refused(Refused)
    assert f"{version.ref} was validated on vllm (" in text and "production would run pytorch (" in text


def test_evidence_of_other_bytes_is_stale(bench: Bench) -> None:
    version = bench.stage()
    other = "sha256:" + "0" * 64
    evidence = Evidence(True, other, str(Suite().digest), facts.engine_of(version))
    EvidenceJournal(bench.repository.storage, "validation").add(version.ref, "default-0-pytorch", evidence, by="me")
    bench.stage("v1.1.0")
    assert "and its evidence is about other bytes, sha256:000000000000" in bench.refused(Unavailable)
    bench.stage()
    assert bench.promote()
    assert bench.runs() == 2


def test_evidence_against_what_does_not_serve_any_more_is_stale(bench: Bench) -> None:
    bench.put_into_production("v1.1.0")
    old = bench.production.label.rpartition("@")[2]
    suite = bench_metric(bench, not_worse_than_production=True)
    bench.stage()
    assert bench.validate(suite)
    newer = bench.folder / "newer"
    newer.mkdir()
    (newer / "model.onnx").write_bytes(b"newer")
    bench.repository.register_model("digit", "v1.3.0", newer, {})
    bench.put_into_production("v1.3.0")
    bench.stage("v1.1.0")
    text = bench.refused(Unavailable, suite)
    new = bench.production.label.rpartition("@")[2]
    assert f"it was compared with {old[:19]}; production serves {new[:19]} now" in text
    bench.stage()
    assert bench.promote(suite)
    assert bench.runs() == 2
    assert bench.promote(suite)  # it is itself what serves now
    assert bench.runs() == 2


def test_evidence_against_nothing_is_stale_once_something_serves(bench: Bench) -> None:
    suite = bench_metric(bench, not_worse_than_production=True)
    bench.stage()
    assert bench.validate(suite)
    bench.put_into_production("v1.1.0")
    bench.stage("v1.1.0")
    assert "it was compared with nothing; production serves sha256:" in bench.refused(Unavailable, suite)


def test_a_yanked_version(bench: Bench) -> None:
    bench.stage()
    assert bench.validate()
    bench.repository.yank("digit", "v1.2.0", reason="it was trained on the test set")
    assert "digit:v1.2.0 is yanked: it was trained on the test set" in bench.refused(Refused)


def test_an_unsigned_version_where_it_must_be_signed(bench: Bench) -> None:
    bench.stage()
    assert bench.validate()
    for options in ({}, {"force": True, "reason": "now"}):
        with pytest.raises(Refused, match=r"digit:v1\.2\.0 has no signature that counts: it is not signed"):
            bench.manager(require_signature=("production",)).promote_to_production("digit", "v1.2.0", **options)  # type: ignore[arg-type]


def test_force_is_in_the_history(bench: Bench) -> None:
    bench.stage()
    bench.staged.factor = 2
    assert not bench.validate(GOLDEN)
    assert "needs a reason" in bench.refused(Refused, force=True)
    assert bench.promote(force=True, reason="the old one leaks") == "forced"
    entry = bench.repository.environment("production").history()[-1][0]
    assert (entry.why, entry.by) == ("promote digit:v1.2.0, forced: the old one leaks", "tester")


def test_the_suite_that_counts(bench: Bench) -> None:
    bench.stage()
    plan = bench.manager().plan_validation
    assert plan("digit", "v1.2.0").origin == "the default suite"
    bench.configuration.set_config("validation", "task:text-classification", GOLDEN | {"name": "texts"})
    assert (plan("digit", "v1.2.0").suite, plan("digit", "v1.2.0").origin) == (
        "texts",
        "validation.task:text-classification of the configuration",
    )
    bench.configuration.set_config("validation", "digit", GOLDEN)
    assert plan("digit", "v1.2.0").suite == "wines"
    given = plan("digit", "v1.2.0", suite=Suite(name="mine"))
    assert (given.suite, given.origin) == ("mine", "given")
    assert bench.validate(Suite(name="mine"))  # a pass of another suite is not enough
    assert bench.promote().startswith("wines-")


def test_a_suite_and_its_files_beside_the_model(bench: Bench) -> None:
    model = bench.folder / "whole"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"v1.2.1")
    suite = bench_metric(bench, folder=model)
    (model / "validation.yaml").write_text(json.dumps(suite))
    bench.repository.register_model("digit", "v1.2.1", model, {})
    bench.stage("v1.2.1")
    plan = bench.manager().plan_validation("digit", "v1.2.1")
    assert (plan.suite, plan.origin) == ("figures", "validation.yaml of the version")
    assert [check.what for check in plan.checks if check.name == "accuracy"] == [
        f"4 rows of data.npz ({suite['metric']['digest'][:19]}), at least 0.7"
    ]
    assert bench.manager().run_validation_tests("digit", "v1.2.1")
    assert plan.suite_digest == str(read_suite(model / "validation.yaml").digest)  # wherever it lies


def test_files_that_a_suite_of_the_version_names_must_be_in_it(bench: Bench) -> None:
    model = bench.folder / "poor"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"v1.2.1")
    (model / "validation.yaml").write_text(json.dumps(bench_metric(bench)))
    bench.repository.register_model("digit", "v1.2.1", model, {})
    with pytest.raises(NotFound, match=r"validation\.yaml of digit:v1\.2\.1: .*data\.npz is not among the version's"):
        bench.manager().plan_validation("digit", "v1.2.1")


def test_a_bad_suite_in_the_configuration_is_one_line_with_its_place(bench: Bench) -> None:
    bench.configuration.set_config("validation", "digit", {"metric": {"threshold": 1}})
    with pytest.raises(InvalidInput, match=r"^validation\.digit of the configuration: metric\.dataset: it is missing"):
        bench.manager().plan_validation("digit", "v1.2.0")


def test_a_dry_run_asks_nobody_and_keeps_nothing(bench: Bench) -> None:
    bench.manager().plan_validation("digit", "v1.2.0", suite=Suite.model_validate(GOLDEN))
    assert (bench.staged.asked, bench.runs()) == (0, 0)


def bench_metric(bench: Bench, *, folder: Path | None = None, **options: Any) -> dict[str, Any]:
    """A suite with a metric that three of four rows get right; its data set lies in the folder."""
    path = (folder or bench.folder) / "data.npz"
    np.savez(path, x=np.array([[0, 1], [1, 0], [0, 1], [0, 1]], dtype=np.float32), y=np.array([1, 0, 1, 0]))
    metric = {
        "dataset": "data.npz" if folder else str(path),
        "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        "input": {"name": "x", "array": "x"},
        "output": {"name": "y", "array": "y"},
        "threshold": 0.7,
    }
    return {"name": "figures", "metric": metric | options}
