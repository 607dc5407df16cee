"""Figures on data sets: thresholds, and the comparison with production."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.deployment.suite import Named, Suite
from modelyard.deployment.validation import Check
from modelyard.errors import Conflict, InvalidInput, NotFound, Unavailable

from .bench import LABELS, ROWS, Bench
from .model_server import DESCRIPTION, TENSOR


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
    unfit = "the output 'y': outputs of (4, 2) can't be compared with answers of (4, 3, 3); write the array 'y' with "
    assert check.detail == f"{unfit}the outputs' shape or a class for each row"
    check = bench.run(bench.metric(name="mean_squared_error", y=np.zeros((4, 3, 3))))["mean_squared_error"]
    assert check.detail == f"{unfit}the outputs' shape"


DATASETS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "missing": ({"dataset": "/nowhere/data.npz"}, NotFound, r"/nowhere/data\.npz can't be read: No such file"),
    "other bytes": ({"digest": f"sha256:{0:064}"}, InvalidInput, r"data\.npz is sha256:.*written for sha256:0000"),
    "no such array": ({"input": Named(name="x", array="images")}, InvalidInput, r"data\.npz does not hold.*images"),
    "too few answers": (
        {"y": LABELS[:2]},
        InvalidInput,
        r"data\.npz has inputs of \(4, 2\) and answers of \(2,\); write rows into 'x', and an answer for each into 'y'",
    ),
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


def answers_with(bench: Bench, *, lost: int, gained: int) -> dict[str, Any]:
    """100 rows. Production is right on all but the first `gained`, which only the staged version gets right; that one
    is wrong on the last `lost`. The first number of a row is its own."""
    x = np.array([[row, 0] for row in range(100)], dtype=np.float32)

    def answer(right: range) -> Any:
        def infer(request: dict[str, Any]) -> tuple[int, Any]:
            numbers = request["inputs"][0]["data"][::2]
            data = [float(each) for number in numbers for each in ([0, 1] if int(number) in right else [1, 0])]
            return 200, {"outputs": [{"name": "y", "datatype": "FP32", "shape": [len(numbers), 2], "data": data}]}

        return infer

    bench.staged.answer, bench.production.answer = answer(range(100 - lost)), answer(range(gained, 100))
    return {"x": x, "y": np.ones(100, dtype=int), "threshold": 0.5, "not_worse_than_production": True}


def test_with_enough_rows_the_interval_decides(bench: Bench) -> None:
    check = bench.run(bench.metric(**answers_with(bench, lost=12, gained=3)), compare=True)["accuracy"]
    assert not check.passed
    assert check.detail == (
        "0.8800 is worse than production's 0.9700: worse by 0.0181 to 0.1699 at 95 %, 0.0000 is allowed"
    )
    check = bench.run(bench.metric(**answers_with(bench, lost=12, gained=3), tolerance=0.02), compare=True)["accuracy"]
    assert check.passed and "0.0200 is allowed, too few rows to tell" in check.detail
    check = bench.run(bench.metric(**answers_with(bench, lost=12, gained=3), tolerance=0.2), compare=True)["accuracy"]
    assert check.passed and check.detail.endswith("0.2000 is allowed)")


def test_a_little_worse_on_few_rows_proves_nothing(bench: Bench) -> None:
    options = answers_with(bench, lost=4, gained=2)
    check = bench.run(bench.metric(**options), compare=True)["accuracy"]
    assert check.passed
    assert "production's 0.9800: worse by -0.0" in check.detail and check.detail.endswith("too few rows to tell)")
    check = bench.run(bench.metric(**options, undecided="fail"), compare=True)["accuracy"]
    assert check.detail.startswith("0.9600 is not shown to be no worse than production's 0.9800: worse by")
    assert bench.run(bench.metric(**options, undecided="fail", tolerance=0.1), compare=True)["accuracy"].passed


def test_errors_are_compared_row_by_row(bench: Bench) -> None:
    x = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    options = {"name": "mean_squared_error", "x": x, "y": x, "threshold": 1.0, "not_worse_than_production": True}
    bench.staged.factor, bench.production.factor = 1.5, 1.4
    check = bench.run(bench.metric(**options), compare=True)["mean_squared_error"]
    assert not check.passed and "is worse than production's" in check.detail
    bench.staged.factor = 1.4
    check = bench.run(bench.metric(**options), compare=True)["mean_squared_error"]
    assert check.passed and "worse by 0.0000 to 0.0000 at 95 %" in check.detail


def test_production_that_changes_meanwhile_is_nobodys_failure(bench: Bench) -> None:
    bench.production.label = "digit:v9.0.0@sha256:9"
    with pytest.raises(
        Conflict, match=r"digit:v9\.0\.0@sha256:9 answered instead of digit:v1\.0\.0@sha256:0; wait until"
    ):
        bench.run(bench.metric(not_worse_than_production=True), compare=True)


def test_production_that_gives_no_number_is_nobodys_failure(bench: Bench) -> None:
    bench.production.factor = float("nan")
    suite = bench.metric(name="mean_absolute_error", y=ROWS, threshold=1, not_worse_than_production=True)
    with pytest.raises(Unavailable, match="can't be compared with: its mean_absolute_error is nan"):
        bench.run(suite, compare=True)


def test_several_metrics_on_one_data_set(bench: Bench) -> None:
    (accuracy,) = bench.metric().metric
    suite = Suite(metric=(accuracy, accuracy.model_copy(update={"threshold": 0.8})))
    checks = bench.run(suite)
    assert (checks["accuracy"].passed, checks["accuracy 2"].passed) == (True, False)


def test_errors_need_numbers(bench: Bench) -> None:
    suite = bench.metric(name="mean_absolute_error", y=np.array([["a", "b"]] * 4), threshold=1)
    assert bench.run(suite)["mean_absolute_error"].detail == "the output 'y': mean_absolute_error needs numbers"


def test_the_plan_names_the_data(bench: Bench) -> None:
    suite = bench.metric(not_worse_than_production=True, tolerance=0.01)
    start = f"4 rows of data.npz ({suite.metric[0].digest[:19]}), at least 0.7"
    assert bench.plan(suite)["accuracy"] == f"{start}; nothing is in production to compare with"
    assert (
        bench.plan(suite, compare=True)["accuracy"] == f"{start}, not worse than digit:v1.0.0 by more than 0.01 at 95 %"
    )
    assert bench.staged.asked == 0
