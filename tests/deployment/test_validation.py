from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.deployment.checks.subject import Known, Production
from modelyard.deployment.client import ModelClient
from modelyard.deployment.golden import difference
from modelyard.deployment.suite import Golden, Latency, Metric, Named, Suite
from modelyard.deployment.validation import Check, Validation
from modelyard.errors import Conflict, InvalidInput, NotFound, Unavailable
from modelyard.repository import ModelInfo, ModelVersion
from modelyard.repository.manifest import Signature, Tensor

from .builders import V1
from .model_server import DESCRIPTION, TENSOR, FakeModel, gateway

SIGNATURE = Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("y", "FP32", (-1, 2)),))
VERSION = ModelVersion(
    id="test",
    name="digit",
    version=V1.version,
    digest=V1.digest,
    files=(),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    created_by="tester",
    model=ModelInfo(format="onnx", signature=SIGNATURE),
)
OLD = "digit:v1.0.0@sha256:0"
ASK = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 3]}]}
ROWS = np.array([[0, 1], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
LABELS = np.array([1, 0, 1, 0])  # three of four


class Bench:
    def __init__(self, url: str, folder: Path, models: dict[str, FakeModel]) -> None:
        self._url = url
        self._folder = folder
        self.staged, self.production = models["digit:staging"], models["digit:production"]

    def run(self, suite: Suite, *, compare: bool = False, known: Known | None = None) -> dict[str, Check]:
        with (
            ModelClient(self._url, "digit:staging") as staged,
            ModelClient(self._url, "digit:production") as production,
        ):
            serves = Production(production, OLD) if compare else None
            checks = Validation(VERSION, suite, staged, serves, known).run()
        return {check.name: check for check in checks}

    def metric(self, *, x: Any = ROWS, y: Any = LABELS, **options: Any) -> Suite:
        path = self._folder / "data.npz"
        np.savez(path, x=x, y=y)
        values: dict[str, Any] = {
            "dataset": str(path),
            "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
            "input": Named(name="x", array="x"),
            "output": Named(name="y", array="y"),
            "threshold": 0.7,
        }
        return Suite(metric=(Metric(**(values | options)),))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    models = {"digit:staging": FakeModel(str(VERSION.ref)), "digit:production": FakeModel(OLD)}
    with gateway(models) as url:
        yield Bench(url, tmp_path, models)


def test_the_default_suite(bench: Bench) -> None:
    checks = bench.run(Suite())
    assert [name for name, check in checks.items() if check.passed] == ["answers", "signature"]
    assert checks["signature"].detail == "1 in, 1 out"


def test_without_an_answer_nothing_else_is_asked(bench: Bench) -> None:
    bench.staged.answer = lambda request: (500, {"error": "out of memory"})
    checks = bench.run(Suite(latency=(Latency(p95_ms=1000),)))
    assert checks == {"answers": Check("answers", False, "500: out of memory")}
    assert bench.staged.asked == 1


def test_another_version_that_answers_is_nobodys_failure(bench: Bench) -> None:
    bench.staged.label = "digit:v9.0.0@sha256:1"
    with pytest.raises(Conflict, match=r"digit:v9\.0\.0@sha256:1 answered instead of digit:v1\.1\.0@"):
        bench.run(Suite())


def test_a_gateway_that_is_away_is_nobodys_failure() -> None:
    with ModelClient("http://127.0.0.1:1", "digit:staging") as client, pytest.raises(Unavailable, match="modelyard up"):
        Validation(VERSION, Suite(), client, None).run()


Y = DESCRIPTION | {"outputs": [TENSOR | {"name": "z"}]}
SIGNATURES: dict[str, tuple[Any, Callable[[dict[str, Any]], tuple[int, Any]] | None, str]] = {
    "it serves another one than was registered": (
        Y,
        None,
        "it serves the outputs [('z', 'FP32', [-1, 2])], registered",
    ),
    "an output is missing": (
        DESCRIPTION,
        lambda request: (200, {"outputs": []}),
        "the output 'y' is missing, promised is FP32 [-1, 2]",
    ),
    "an output has another shape": (
        DESCRIPTION,
        lambda request: (200, {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [0] * 3}]}),
        "the output 'y' is FP32 [1, 3], promised is FP32 [-1, 2]",
    ),
    "an output has another type": (
        DESCRIPTION,
        lambda request: (200, {"outputs": [{"name": "y", "datatype": "INT64", "shape": [1, 2], "data": [0] * 2}]}),
        "the output 'y' is INT64 [1, 2], promised is FP32 [-1, 2]",
    ),
    "the answer is something else": (DESCRIPTION, lambda request: (200, ["?"]), "its answer holds no outputs"),
    "the answer is not JSON": (DESCRIPTION, lambda request: (200, b"<html>"), "its answer holds no outputs"),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_a_signature_that_does_not_hold(bench: Bench, case: str) -> None:
    bench.staged.description, bench.staged.answer, expected = SIGNATURES[case]
    check = bench.run(Suite())["signature"]
    assert not check.passed
    assert check.detail.startswith(expected)


def test_a_description_that_is_none(bench: Bench) -> None:
    bench.staged.description = {"name": "digit"}
    assert bench.run(Suite()) == {"answers": Check("answers", False, "its answer holds no inputs")}


def test_golden_requests(bench: Bench) -> None:
    bench.staged.factor = 1.25
    right = Golden(request=ASK, expect={"outputs": [{"name": "y", "data": [1.0, 3.0]}]}, tolerance=1)
    strict = right.model_copy(update={"tolerance": 0.5})
    checks = bench.run(Suite(golden=(right, strict)))
    assert checks["golden 1"].passed
    assert checks["golden 2"] == Check("golden 2", False, "the answer.outputs[0].data[1] is 3.75, expected 3.0")


DIFFERENCES: list[tuple[Any, Any, str]] = [
    ({"a": 1}, {"a": 1, "b": 2}, ""),
    ({"a": {"b": 1}}, {"a": {}}, "the answer.a has no 'b'"),
    ([1, 2], [1], "the answer has 1 elements, expected 2"),
    ([1, "x"], [1, "y"], "the answer[1] is 'y', expected 'x'"),
    ({"a": [1]}, {"a": 1}, "the answer.a is 1, expected [1]"),
    (True, 1, "the answer is 1, expected True"),
    (1.0, float("nan"), "the answer is nan, expected 1.0"),
    (1, 1.05, ""),
    (None, None, ""),
]


@pytest.mark.parametrize(("expect", "found", "text"), DIFFERENCES)
def test_difference(expect: Any, found: Any, text: str) -> None:
    assert difference(expect, found, 0.1) == text


def test_metric_above_and_below_the_threshold(bench: Bench) -> None:
    check = bench.run(bench.metric())["accuracy"]
    assert check == Check("accuracy", True, "0.7500 on 4 rows (the threshold 0.7000)")
    check = bench.run(bench.metric(threshold=0.8))["accuracy"]
    assert check == Check("accuracy", False, "0.7500 is worse than the threshold 0.8000")


def test_metric_not_worse_than_production(bench: Bench) -> None:
    bench.production.factor = -1  # right where the other is wrong: one of four
    suite = bench.metric(threshold=0.1, not_worse_than_production=True)
    assert bench.run(suite, compare=True)["accuracy"].detail.endswith("production's 0.2500)")
    bench.production.factor, bench.staged.factor = 1, -1
    check = bench.run(suite, compare=True)["accuracy"]
    assert not check.passed
    assert check.detail == (
        "0.2500 is worse than production's 0.7500; 0.0000 is allowed, and 4 rows are too few for an interval"
    )
    assert bench.run(bench.metric(threshold=0.1, not_worse_than_production=True, tolerance=0.5), compare=True)[
        "accuracy"
    ].passed
    assert bench.run(suite)["accuracy"].passed  # nothing is in production yet


def test_what_can_not_be_compared_with_is_nobodys_failure(bench: Bench) -> None:
    bench.production.answer = lambda request: (503, {"error": "no replica is ready"})
    with pytest.raises(Unavailable, match="can't be compared with: 503: no replica is ready"):
        bench.run(bench.metric(not_worse_than_production=True), compare=True)


def test_errors_and_means_count_downwards(bench: Bench) -> None:
    suite = bench.metric(name="mean_absolute_error", x=ROWS, y=ROWS + 0.5, threshold=0.4)
    assert bench.run(suite)["mean_absolute_error"].detail == "0.5000 is worse than the threshold 0.4000"
    assert bench.run(bench.metric(name="mean_absolute_error", y=ROWS, threshold=0.1))["mean_absolute_error"].passed


def test_a_figure_that_is_no_number_does_not_pass(bench: Bench) -> None:
    y = np.full_like(ROWS, np.nan)
    check = bench.run(bench.metric(name="mean_absolute_error", y=y, threshold=0.1))["mean_absolute_error"]
    assert check == Check("mean_absolute_error", False, "nan is worse than the threshold 0.1000")


def test_a_model_that_takes_one_row_gets_one_row(bench: Bench) -> None:
    bench.staged.description = DESCRIPTION | {"inputs": [TENSOR | {"name": "x", "shape": [1, 2]}]}
    assert bench.run(bench.metric())["accuracy"].passed
    assert bench.staged.asked == 1 + 4  # "answers", and the rows; the signature is not what was registered


def test_names_that_the_model_does_not_have_are_the_suites_fault(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="the suite names the input 'pixels', the model has x; mend the suite"):
        bench.run(bench.metric(input=Named(name="pixels", array="x")))
    with pytest.raises(InvalidInput, match="the suite names the output 'logits', the model has y; mend the suite"):
        bench.run(bench.metric(output=Named(name="logits", array="y")))


def test_outputs_that_do_not_fit_the_answers(bench: Bench) -> None:
    check = bench.run(bench.metric(y=np.zeros((4, 3, 3))))["accuracy"]
    assert check.detail == "the output 'y': outputs of (4, 2) can't be compared with answers of (4, 3, 3)"


DATASETS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "missing": ({"dataset": "/nowhere/data.npz"}, NotFound, r"/nowhere/data\.npz can't be read: No such file"),
    "other bytes": ({"digest": f"sha256:{0:064}"}, InvalidInput, r"data\.npz is sha256:.*written for sha256:0000"),
    "no such array": ({"input": Named(name="x", array="images")}, InvalidInput, r"data\.npz does not hold.*images"),
    "too few answers": ({"y": LABELS[:2]}, InvalidInput, r"data\.npz has inputs of \(4, 2\) and answers of \(2,\)"),
    "a lonely number": ({"y": np.array(1)}, InvalidInput, r"answers of \(\)"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_a_data_set_that_can_not_be_used_is_nobodys_failure(bench: Bench, case: str) -> None:
    options, error, text = DATASETS[case]
    with pytest.raises(error, match=text) as caught:
        bench.run(bench.metric(**options))
    assert "\n" not in str(caught.value)
    assert bench.staged.asked == 0


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 not a zip", b"\x93NUMPY\x01\x00"])
def test_a_data_set_that_is_no_npz(bench: Bench, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with pytest.raises(InvalidInput, match=r"other\.npz does not hold"):
        bench.run(bench.metric(dataset=str(path), digest=digest))


def test_a_single_array_is_no_npz(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, ROWS)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with pytest.raises(InvalidInput, match=r"array\.npy does not hold"):
        bench.run(bench.metric(dataset=str(path), digest=digest))
