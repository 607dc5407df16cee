from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modelyard.deployment.client import ModelClient
from modelyard.deployment.golden import difference
from modelyard.deployment.suite import Golden, Latency, Suite
from modelyard.deployment.validation import Check, Validation
from modelyard.errors import Conflict, Unavailable

from .bench import ASK, VERSION, Bench
from .model_server import DESCRIPTION, TENSOR


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
