"""The version under validation as checks see it: how it is asked, and what is known of it without asking."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.deployment.checks.base import Failed
from modelyard.deployment.client import Answer, ModelClient, message
from modelyard.engines.samples import sample
from modelyard.errors import Conflict, Unavailable
from modelyard.repository import Evidence, ModelVersion

_NEEDED = {"name", "datatype", "shape"}
_UNREADABLE = "mend it, or take not_worse_than_production out of the suite"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a version without asking it.

    `scan`: the newest evidence of that kind; `verify`: says who signed it, or raises Refused; `replicas`: the ids of
    those that answer in staging from this machine; `trusted`: models and digests whose code may run here, None: any.
    """

    scan: Callable[[], Evidence | None] = lambda: None
    verify: Callable[[], str] = lambda: ""
    replicas: Callable[[], Sequence[str]] = tuple
    trusted: Collection[str] | None = ()


@dataclass(frozen=True, slots=True)
class Production:
    """What serves today; `label` is what its answers bear."""

    client: ModelClient
    label: str

    def ask(self, request: dict[str, Any]) -> Answer:
        """Raises Unavailable for an answer that is none, Conflict when another version gave it."""
        answer = self.client.ask(request)
        if answer.status != 200:
            raise self.unusable(message(answer))
        return _from(answer, self.label, remedy="wait until the rollout has ended, and validate again")

    @staticmethod
    def unusable(problem: str) -> Unavailable:
        return Unavailable(f"what is in production can't be compared with: {problem}", remedy=_UNREADABLE)


class Subject:
    """One version, asked where it is staged."""

    def __init__(self, version: ModelVersion, staged: ModelClient, production: Production | None, known: Known) -> None:
        self.version = version
        self.production = production
        self.known = known
        self._staged = staged
        self._label = str(version.ref)

    def ask(self, request: dict[str, Any]) -> Answer:
        """Raises Failed for an answer that is none, Conflict when another version gave it."""
        answer = self._staged.ask(request)
        if answer.status != 200:
            raise Failed(message(answer))
        return _from(answer, self._label, remedy="stage it, and validate again")

    def described(self, kind: str) -> list[dict[str, Any]]:
        """The inputs or outputs that the server says it has."""
        answer = self._staged.signature()
        if answer.status != 200:
            raise Failed(message(answer))
        return tensors_of(answer, kind)

    def example(self) -> dict[str, Any]:
        """A smallest request that every model of this kind must answer."""
        model = self.version.model
        if model.format == "gguf":
            return {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
        if model.format == "sentence-transformers" and model.task != "text-ranking":
            return {"input": "hello"}
        inputs = self.described("inputs")
        if not inputs:
            raise Failed("the model declares no inputs; register it with a 'signature' in its metadata")
        return {"inputs": [smallest(tensor) for tensor in inputs]}


def smallest(tensor: dict[str, Any]) -> dict[str, Any]:
    shape = [1 if length < 0 else length for length in tensor["shape"]]
    return tensor_like(tensor, shape, [sample(tensor["name"], tensor["datatype"])] * math.prod(shape))


def tensor_like(like: dict[str, Any], shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": like["name"], "datatype": like["datatype"], "shape": shape, "data": data}


def tensors_of(answer: Answer, kind: str) -> list[dict[str, Any]]:
    """The inputs or outputs of an answer. They come from outside, so they are looked at before they are used."""
    tensors = answer.body.get(kind) if isinstance(answer.body, dict) else None
    if not isinstance(tensors, list) or not all(isinstance(t, dict) and t.keys() >= _NEEDED for t in tensors):
        raise Failed(f"its answer holds no {kind}")
    return tensors


def _from(answer: Answer, label: str, *, remedy: str) -> Answer:
    if answer.label != label:
        raise Conflict(f"{answer.label or 'something without a name'} answered instead of {label}", remedy=remedy)
    return answer
