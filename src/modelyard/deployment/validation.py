"""Validation: ask a staged version what its suite demands, through the gateway, and say what came out.

Knows how to ask and how to judge; where evidence is kept and what it permits is the manager's work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from modelyard.deployment.client import Answer, ModelClient, message
from modelyard.deployment.golden import difference
from modelyard.deployment.metrics import Dataset, read_dataset, score
from modelyard.deployment.suite import Golden, Latency, Metric, Suite
from modelyard.engines.samples import sample
from modelyard.errors import Conflict, InvalidInput, Unavailable
from modelyard.repository import ModelVersion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 256  # in one request, where the model takes any number


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


class _Failed(Exception):
    """A check that the version did not pass; other errors mean that it could not be looked at."""


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
        """Every check, in the suite's order; without an answer the others would say nothing new.

        Raises what says nothing about the version: NotFound and InvalidInput for the suite's data, Unavailable for the
        gateway, Conflict when another version took its place meanwhile.
        """
        dataset = read_dataset(self._suite.metric) if self._suite.metric else None
        first = self._guarded("answers", self._answers)
        checks = [first]
        if first.passed:
            checks += [self._guarded(name, check) for name, check in self._others(dataset)]
        return tuple(checks)

    def _others(self, dataset: Dataset | None) -> Iterator[tuple[str, Callable[[], str]]]:
        if self._version.model.format != "gguf":
            yield "signature", self._signature
        for number, golden in enumerate(self._suite.golden, 1):
            yield f"golden {number}", partial(self._golden, golden)
        if self._suite.metric and dataset:
            yield self._suite.metric.name, partial(self._metric, self._suite.metric, dataset)
        if latency := self._suite.latency:
            yield "latency", partial(self._latency, latency)

    @staticmethod
    def _guarded(name: str, check: Callable[[], str]) -> Check:
        """A check returns its detail, and raises _Failed with it when the version did not pass."""
        try:
            return Check(name, True, check())
        except _Failed as failed:
            return Check(name, False, str(failed))

    def _answers(self) -> str:
        return f"answered in {self._ask(self._example()).seconds * 1000:.0f} ms"

    def _signature(self) -> str:
        """What the model says of itself, what was registered, and what it really answers must agree."""
        inputs, outputs = self._described("inputs"), self._described("outputs")
        registered = self._version.model.signature
        if registered:
            for kind, tensors, promised in (
                ("inputs", inputs, registered.inputs),
                ("outputs", outputs, registered.outputs),
            ):
                want = [(t.name, t.datatype, list(t.shape)) for t in promised]
                have = [(t["name"], t["datatype"], list(t["shape"])) for t in tensors]
                if want != have:
                    raise _Failed(f"it serves the {kind} {have}, registered are {want}")
        answer = self._ask({"inputs": [_smallest(tensor) for tensor in inputs]})
        given = {tensor["name"]: tensor for tensor in _tensors(answer, "outputs")}
        for tensor in outputs:
            found, promise = given.get(tensor["name"]), f"{tensor['datatype']} {tensor['shape']}"
            if found is None:
                raise _Failed(f"the output {tensor['name']!r} is missing, promised is {promise}")
            if found["datatype"] != tensor["datatype"] or not _fits(found["shape"], tensor["shape"]):
                raise _Failed(
                    f"the output {tensor['name']!r} is {found['datatype']} {found['shape']}, promised is {promise}"
                )
        return f"{len(inputs)} in, {len(outputs)} out"

    def _golden(self, golden: Golden) -> str:
        found = difference(golden.expect, self._ask(golden.request).body, golden.tolerance)
        if found:
            raise _Failed(found)
        return "as expected"

    def _metric(self, metric: Metric, dataset: Dataset) -> str:
        value = self._measure(self._ask, metric, dataset)
        bounds = [("the threshold", metric.threshold)]
        if metric.not_worse_than_production and self._production:
            slack = -metric.tolerance if metric.higher_is_better else metric.tolerance
            there = self._measured_in_production(self._production, metric, dataset)
            bounds.append(("production's", there + slack))
        for what, bound in bounds:
            good = value >= bound if metric.higher_is_better else value <= bound
            if not good:  # also when it is no number
                raise _Failed(f"{value:.4f} is worse than {what} {bound:.4f}")
        return f"{value:.4f} on {len(dataset.expected)} rows ({', '.join(f'{w} {bound:.4f}' for w, bound in bounds)})"

    def _latency(self, latency: Latency) -> str:
        request = self._example()
        times = sorted(self._ask(request).seconds * 1000 for _ in range(latency.requests))
        p95 = times[math.ceil(0.95 * len(times)) - 1]
        if p95 > latency.p95_ms:
            raise _Failed(f"the 95th percentile is {p95:.1f} ms, above {latency.p95_ms:g} ms")
        return f"p95 {p95:.1f} ms over {latency.requests} requests"

    def _measured_in_production(self, production: ModelClient, metric: Metric, dataset: Dataset) -> float:
        try:
            return self._measure(partial(_ask, production), metric, dataset)
        except _Failed as failed:
            raise Unavailable(
                f"what is in production can't be compared with: {failed}",
                remedy="mend it, or take not_worse_than_production out of the suite",
            ) from failed

    def _measure(self, ask: Callable[[dict[str, Any]], Answer], metric: Metric, dataset: Dataset) -> float:
        """The metric over the whole data set, in as many requests as it takes."""
        import numpy as np

        tensor = _named(self._described("inputs"), metric.input.name, "input")
        _named(self._described("outputs"), metric.output.name, "output")
        size = tensor["shape"][0] if tensor["shape"] and tensor["shape"][0] > 0 else _ROWS
        found = []
        for start in range(0, len(dataset.inputs), size):
            rows = dataset.inputs[start : start + size]
            answer = ask({"inputs": [_tensor(tensor, list(rows.shape), rows.ravel().tolist())]})
            found.append(_array(answer, metric.output.name))
        try:
            return score(metric, np.concatenate(found), dataset.expected)
        except ValueError as error:
            raise _Failed(f"the output {metric.output.name!r}: {error}") from error

    def _described(self, kind: str) -> list[dict[str, Any]]:
        answer = self._staged.signature()
        if answer.status != 200:
            raise _Failed(message(answer))
        return _tensors(answer, kind)

    def _example(self) -> dict[str, Any]:
        """A smallest request that every model of this kind must answer."""
        model = self._version.model
        if model.format == "gguf":
            return {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
        if model.format == "sentence-transformers" and model.task != "text-ranking":
            return {"input": "hello"}
        inputs = self._described("inputs")
        if not inputs:
            raise _Failed("the model declares no inputs; register it with a 'signature' in its metadata")
        return {"inputs": [_smallest(tensor) for tensor in inputs]}

    def _ask(self, request: dict[str, Any]) -> Answer:
        answer = _ask(self._staged, request)
        if answer.label != self._label:
            raise Conflict(
                f"{answer.label or 'something without a name'} answered instead of {self._label}",
                remedy="stage it, and validate again",
            )
        return answer


def _ask(client: ModelClient, request: dict[str, Any]) -> Answer:
    answer = client.ask(request)
    if answer.status != 200:
        raise _Failed(message(answer))
    return answer


def _smallest(tensor: dict[str, Any]) -> dict[str, Any]:
    shape = [1 if length < 0 else length for length in tensor["shape"]]
    return _tensor(tensor, shape, [sample(tensor["name"], tensor["datatype"])] * math.prod(shape))


def _tensor(like: dict[str, Any], shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": like["name"], "datatype": like["datatype"], "shape": shape, "data": data}


def _tensors(answer: Answer, kind: str) -> list[dict[str, Any]]:
    """The inputs or outputs of an answer. They come from outside, so they are looked at before they are used."""
    tensors = answer.body.get(kind) if isinstance(answer.body, dict) else None
    if not isinstance(tensors, list) or not all(isinstance(t, dict) and t.keys() >= _NEEDED for t in tensors):
        raise _Failed(f"its answer holds no {kind}")
    return tensors


_NEEDED = {"name", "datatype", "shape"}


def _named(tensors: list[dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    """The tensor that a suite speaks of. A name that the model does not have is the suite's fault."""
    found = next((tensor for tensor in tensors if tensor["name"] == name), None)
    if found is None:
        known = ", ".join(tensor["name"] for tensor in tensors)
        raise InvalidInput(
            f"the suite names the {kind} {name!r}, the model has {known or 'none'}",
            remedy="mend the suite or the model",
        )
    return found


def _array(answer: Answer, name: str) -> NDArray[np.generic]:
    import numpy as np

    tensor = next((t for t in _tensors(answer, "outputs") if t["name"] == name), None)
    if tensor is None:
        raise _Failed(f"the model has no output {name!r}")
    try:
        return np.asarray(tensor.get("data")).reshape(tensor["shape"])
    except (ValueError, TypeError) as error:
        raise _Failed(f"the output {name!r} can't be read: {error}") from error


def _fits(shape: list[int], promised: list[int]) -> bool:
    pairs = zip(shape, promised, strict=False)
    return len(shape) == len(promised) and all(p in (-1, length) for length, p in pairs)
