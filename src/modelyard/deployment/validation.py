"""Validation: ask a staged version what its suite demands, through the gateway, and say what came out.

Knows how to ask and how to judge; where evidence is kept and what it permits is the manager's work.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.deployment.client import Answer, ModelClient, message
from modelyard.deployment.suite import Golden, Latency, Metric, Suite
from modelyard.errors import InvalidInput, MissingExtra, ModelyardError, NotFound
from modelyard.repository import ModelVersion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `detail` is a line for people."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a validation run found; falsy when any check failed."""

    ref: str
    suite: str
    suite_digest: str
    engine: dict[str, str]
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> str:
        """The failed checks in one line."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": bool(self)}


class Validation:
    """One run of a suite against a staged version; `production` is what serves today, if anything does."""

    def __init__(
        self, version: ModelVersion, suite: Suite, staged: ModelClient, production: ModelClient | None
    ) -> None:
        self._version = version
        self._suite = suite
        self._staged = staged
        self._production = production
        self._label = str(version.ref)

    def run(self) -> tuple[Check, ...]:
        """Every check, in the suite's order; without an answer the others would say nothing new."""
        first = self._guarded("answers", self._answers)
        checks = [first]
        if first.passed:
            checks += [self._guarded(name, check) for name, check in self._others()]
        return tuple(checks)

    def _others(self) -> Iterator[tuple[str, Callable[[], str]]]:
        if self._version.model.format != "gguf":
            yield "signature", self._signature
        for number, golden in enumerate(self._suite.golden, 1):
            yield f"golden {number}", partial(self._golden, golden)
        if metric := self._suite.metric:
            yield metric.name, partial(self._metric, metric)
        if latency := self._suite.latency:
            yield "latency", partial(self._latency, latency)

    @staticmethod
    def _guarded(name: str, check: Callable[[], str]) -> Check:
        """A check returns its detail, and raises a named error when it fails."""
        try:
            return Check(name, True, check())
        except ModelyardError as error:
            return Check(name, False, error.message)

    def _answers(self) -> str:
        answer = self._ask(self._staged, self._example())
        if answer.label != self._label:
            raise InvalidInput(f"{answer.label or 'something unnamed'} answered instead of {self._label}")
        return f"answered in {answer.seconds * 1000:.0f} ms"

    def _signature(self) -> str:
        """What the model says of itself, what was registered, and what it really answers must agree."""
        described = self._described()
        registered = self._version.model.signature
        for kind in ("inputs", "outputs") if registered else ():
            want = [(t.name, t.datatype, list(t.shape)) for t in getattr(registered, kind)]
            have = [(t["name"], t["datatype"], list(t["shape"])) for t in described[kind]]
            if want != have:
                raise InvalidInput(f"it serves the {kind} {have}, registered are {want}")
        answer = self._ask(self._staged, {"inputs": [_zeros(tensor) for tensor in described["inputs"]]})
        given = {tensor["name"]: tensor for tensor in answer.body["outputs"]}
        for tensor in described["outputs"]:
            found = given.get(tensor["name"])
            if found is None or found["datatype"] != tensor["datatype"] or not _fits(found["shape"], tensor["shape"]):
                raise InvalidInput(f"output {tensor['name']} is {found and found['shape']}, promised {tensor['shape']}")
        return f"{len(described['inputs'])} in, {len(described['outputs'])} out"

    def _golden(self, golden: Golden) -> str:
        difference = _difference(golden.expect, self._ask(self._staged, golden.request).body, golden.tolerance)
        if difference:
            raise InvalidInput(difference)
        return "as expected"

    def _metric(self, metric: Metric) -> str:
        inputs, expected = _load(metric)
        value = self._measure(self._staged, metric, inputs, expected)
        bounds = [("the threshold", metric.threshold)]
        if metric.not_worse_than_production and self._production:
            there = self._measure(self._production, metric, inputs, expected)
            slack = -metric.tolerance if metric.higher_is_better else metric.tolerance
            bounds.append(("production's", there + slack))
        for what, bound in bounds:
            if (value < bound) if metric.higher_is_better else (value > bound):
                raise InvalidInput(f"{value:.4f} is worse than {what} {bound:.4f}")
        return f"{value:.4f} on {len(expected)} rows ({', '.join(f'{what} {bound:.4f}' for what, bound in bounds)})"

    def _latency(self, latency: Latency) -> str:
        request = self._example()
        times = sorted(self._ask(self._staged, request).seconds * 1000 for _ in range(latency.requests))
        p95 = times[math.ceil(0.95 * len(times)) - 1]
        if p95 > latency.p95_ms:
            raise InvalidInput(f"the 95th percentile is {p95:.1f} ms, above {latency.p95_ms:g} ms")
        return f"p95 {p95:.1f} ms over {latency.requests} requests"

    def _measure(
        self, client: ModelClient, metric: Metric, inputs: NDArray[np.generic], expected: NDArray[np.generic]
    ) -> float:
        """The metric over the whole data set, in batches. Accuracy takes the arg max of two-dimensional outputs."""
        import numpy as np

        tensor = next((t for t in self._described()["inputs"] if t["name"] == metric.input.name), None)
        if tensor is None:
            raise InvalidInput(f"the model has no input {metric.input.name!r}")
        outputs = []
        for start in range(0, len(inputs), _BATCH):
            rows = inputs[start : start + _BATCH]
            request = {"inputs": [_tensor(tensor, list(rows.shape), rows.ravel().tolist())]}
            answer = self._ask(client, request)
            output = next((o for o in answer.body["outputs"] if o["name"] == metric.output.name), None)
            if output is None:
                raise InvalidInput(f"the model has no output {metric.output.name!r}")
            outputs.append(np.asarray(output["data"]).reshape(output["shape"]))
        found = np.concatenate(outputs)
        if metric.name == "accuracy":
            labels = found.argmax(axis=-1) if found.ndim > 1 else found
            return float((labels == expected).mean())
        return float(np.abs(found.squeeze() - expected).mean())

    def _described(self) -> dict[str, Any]:
        answer = self._staged.signature()
        if answer.status != 200:
            raise InvalidInput(message(answer))
        described: dict[str, Any] = answer.body
        return described

    def _example(self) -> dict[str, Any]:
        """A smallest request that every model of this kind must answer."""
        model = self._version.model
        if model.format == "gguf":
            return {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
        if model.format == "sentence-transformers":
            return {"input": "hello"}
        return {"inputs": [_zeros(tensor) for tensor in self._described()["inputs"]]}

    @staticmethod
    def _ask(client: ModelClient, request: dict[str, Any]) -> Answer:
        answer = client.ask(request)
        if answer.status != 200:
            raise InvalidInput(message(answer))
        return answer


def _zeros(tensor: dict[str, Any]) -> dict[str, Any]:
    shape = [1 if length < 0 else length for length in tensor["shape"]]
    filler = {"BYTES": "hello", "BOOL": False}.get(tensor["datatype"], 0)
    return _tensor(tensor, shape, [filler] * math.prod(shape))


def _tensor(like: dict[str, Any], shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": like["name"], "datatype": like["datatype"], "shape": shape, "data": data}


def _fits(shape: list[int], promised: list[int]) -> bool:
    pairs = zip(shape, promised, strict=False)
    return len(shape) == len(promised) and all(p in (-1, length) for length, p in pairs)


def _difference(expect: Any, found: Any, tolerance: float, place: str = "the answer") -> str:
    """Where the two first differ, in words; empty when all that is expected is there."""
    if isinstance(expect, dict) and isinstance(found, dict):
        missing = next((key for key in expect if key not in found), None)
        if missing is not None:
            return f"{place} has no {missing!r}"
        parts = ((expect[key], found[key], f"{place}.{key}") for key in expect)
    elif isinstance(expect, list) and isinstance(found, list):
        if len(expect) != len(found):
            return f"{place} has {len(found)} elements, expected {len(expect)}"
        parts = ((e, f, f"{place}[{i}]") for i, (e, f) in enumerate(zip(expect, found, strict=True)))
    else:
        return "" if _equal(expect, found, tolerance) else f"{place} is {found!r}, expected {expect!r}"
    return next((text for e, f, where in parts if (text := _difference(e, f, tolerance, where))), "")


def _equal(expect: Any, found: Any, tolerance: float) -> bool:
    numbers = (int, float)
    if isinstance(expect, numbers) and isinstance(found, numbers):
        return math.isclose(expect, found, rel_tol=0, abs_tol=tolerance)
    return bool(expect == found)


def _load(metric: Metric) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """The data set's two arrays, after its digest was checked on the very bytes that are read."""
    try:
        import numpy as np
    except ImportError:
        raise MissingExtra("numpy", "serve") from None
    import io

    try:
        data = Path(metric.dataset).read_bytes()
    except OSError as error:
        raise NotFound(f"the data set {metric.dataset} can't be read: {error.strerror}") from error
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if found != metric.digest:
        raise InvalidInput(f"the data set {metric.dataset} is {found}, the suite was written for {metric.digest}")
    try:
        arrays = np.load(io.BytesIO(data), allow_pickle=False)
        inputs, expected = arrays[metric.input.array], arrays[metric.output.array]
    except (ValueError, KeyError, OSError) as error:
        raise InvalidInput(f"the data set {metric.dataset} does not hold what the suite names: {error}") from error
    if len(inputs) != len(expected) or not len(inputs):
        raise InvalidInput(f"the data set {metric.dataset} has {len(inputs)} inputs and {len(expected)} answers")
    return inputs, expected
