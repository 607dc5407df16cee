"""Latency and throughput under a load, and the memory of replicas."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from modelyard.deployment.checks.base import Check
from modelyard.deployment.checks.resources import resident_of
from modelyard.deployment.checks.subject import Known
from modelyard.deployment.suite import Latency, Resources, Suite
from modelyard.errors import Conflict, Unavailable

from .bench import ASK, Bench
from .model_server import FakeModel

EASY = 30_000.0
MIB = 1024**2


def suite(**options: Any) -> Suite:
    return Suite(latency=(Latency.model_validate(options),))


def test_so_many_requests(bench: Bench) -> None:
    check = bench.run(suite(p95_ms=EASY, requests=20))["latency"]
    assert check.passed
    assert check.detail.startswith("p50 ")
    assert check.detail.endswith(" requests/s over 20 requests, 1 at once")
    assert bench.staged.asked == 2 + 1 + 20  # "answers", "signature", one to warm up


def test_so_many_at_once(bench: Bench) -> None:
    """Every answer waits until four requests are there, which only four clients can bring."""
    together, plain = threading.Barrier(4), FakeModel(bench.staged.label)

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        if request == ASK:
            together.wait(timeout=20)
        return plain.infer(request)

    bench.staged.answer = answer
    check = bench.run(suite(p99_ms=EASY, requests=40, concurrency=4, request=ASK))["latency"]
    assert check.passed
    assert check.detail.endswith("over 40 requests, 4 at once")


def test_for_so_long(bench: Bench) -> None:
    check = bench.run(suite(p50_ms=EASY, duration_s=0.05, concurrency=2))["latency"]
    assert check.passed
    assert check.detail.endswith("2 at once")


def test_too_slow_and_too_few(bench: Bench) -> None:
    check = bench.run(suite(p50_ms=1e-6, p95_ms=EASY, requests_per_s=1e9, requests=3))["latency"]
    assert not check.passed
    slow, few = check.detail.split(", above 1e-06 ms, ")
    assert slow.startswith("the 50th percentile is ")
    assert few.endswith(" requests/s are fewer than 1e+09")


def test_a_request_that_fails_under_load(bench: Bench) -> None:
    plain = FakeModel(bench.staged.label)

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        return (503, {"error": "the queue is full"}) if bench.staged.asked > 15 else plain.infer(request)

    bench.staged.answer = answer
    for load in ({"requests": 20}, {"duration_s": 3600, "concurrency": 3}):  # which ends at once
        check = bench.run(suite(p95_ms=EASY, **load))["latency"]
        assert check == Check("latency", False, "503: the queue is full")
        bench.staged.asked = 0


def test_another_version_that_answers_under_load_is_nobodys_failure(bench: Bench) -> None:
    plain = FakeModel(bench.staged.label)

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        if bench.staged.asked > 15:
            bench.staged.label = "digit:v9.0.0@sha256:9"
        return plain.infer(request)

    bench.staged.answer = answer
    with pytest.raises(Conflict, match="answered instead of"):
        bench.run(suite(p95_ms=EASY, requests=20))


def test_several_loads(bench: Bench) -> None:
    both = Suite(latency=(*suite(p95_ms=EASY, requests=2).latency, *suite(requests_per_s=0.001, requests=2).latency))
    assert bench.plan(both)["latency"] == "2 requests with 1 at once: p95 at most 30000 ms"
    assert bench.plan(both)["latency 2"] == "2 requests with 1 at once: at least 0.001 requests/s"


@contextmanager
def process(name: str) -> Iterator[None]:
    """A process that has a replica's id on its command line, and one below it."""
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()']); "
        "print(1, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, "--replica-id", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout and running.stdin
        running.stdout.readline()
        try:
            yield
        finally:
            running.stdin.close()


def test_memory_of_the_largest_replica(bench: Bench) -> None:
    def within(size: int) -> Check:
        wanted = Suite(resources=Resources.model_validate({"memory": size}))
        return bench.run(wanted, known=Known(replicas=lambda: ["staging-digit-one", "staging-digit-gone"]))["memory"]

    with process("staging-digit-one"):
        check = within(2048 * MIB)
        assert check.passed and check.detail.endswith(" MiB resident in the largest of 1 replicas")
        check = within(MIB)
        assert not check.passed and check.detail.endswith(", above 1 MiB")
        assert (resident_of("staging-digit-one") or 0) > MIB
    assert resident_of("staging-digit-one") is None


def test_memory_that_can_not_be_seen_is_nobodys_failure(bench: Bench) -> None:
    with pytest.raises(Unavailable, match=r"digit:v1\.1\.0 has no replica on this machine whose memory can be seen"):
        bench.run(Suite(resources=Resources.model_validate({"memory": "1 GiB"})))
