"""Checks of single answers: there is one, it keeps the signature, golden requests get what they must."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from modelyard.deployment.checks.base import Failed, Planned
from modelyard.deployment.checks.subject import Subject, smallest, tensors_of
from modelyard.deployment.golden import difference
from modelyard.deployment.suite import Golden, Suite


def answers(_: Suite, subject: Subject) -> Iterator[Planned]:
    def run() -> str:
        return f"answered in {subject.ask(subject.example()).seconds * 1000:.0f} ms"

    yield Planned("answers", "a smallest request", run)


def signature(_: Suite, subject: Subject) -> Iterator[Planned]:
    """Not of GGUF models: their engine has no tensors to show."""
    if subject.version.model.format != "gguf":
        registered = "the registered signature" if subject.version.model.signature else "the signature it serves"
        yield Planned("signature", registered, partial(_signature, subject))


def golden(suite: Suite, subject: Subject) -> Iterator[Planned]:
    for number, each in enumerate(suite.golden, 1):
        what = f"a request with {', '.join(each.request) or 'nothing'}, numbers within {each.tolerance:g}"
        yield Planned(f"golden {number}", what, partial(_golden, subject, each))


def _golden(subject: Subject, golden: Golden) -> str:
    found = difference(golden.expect, subject.ask(golden.request).body, golden.tolerance)
    if found:
        raise Failed(found)
    return "as expected"


def _signature(subject: Subject) -> str:
    """What the model says of itself, what was registered, and what it really answers must agree."""
    inputs, outputs = subject.described("inputs"), subject.described("outputs")
    registered = subject.version.model.signature
    if registered:
        for kind, tensors, promised in (
            ("inputs", inputs, registered.inputs),
            ("outputs", outputs, registered.outputs),
        ):
            want = [(t.name, t.datatype, list(t.shape)) for t in promised]
            have = [(t["name"], t["datatype"], list(t["shape"])) for t in tensors]
            if want != have:
                raise Failed(f"it serves the {kind} {have}, registered are {want}")
    answer = subject.ask({"inputs": [smallest(tensor) for tensor in inputs]})
    given = {tensor["name"]: tensor for tensor in tensors_of(answer, "outputs")}
    for tensor in outputs:
        found, promise = given.get(tensor["name"]), f"{tensor['datatype']} {tensor['shape']}"
        if found is None:
            raise Failed(f"the output {tensor['name']!r} is missing, promised is {promise}")
        if found["datatype"] != tensor["datatype"] or not _fits(found["shape"], tensor["shape"]):
            raise Failed(
                f"the output {tensor['name']!r} is {found['datatype']} {found['shape']}, promised is {promise}"
            )
    return f"{len(inputs)} in, {len(outputs)} out"


def _fits(shape: list[int], promised: list[int]) -> bool:
    pairs = zip(shape, promised, strict=False)
    return len(shape) == len(promised) and all(p in (-1, length) for length, p in pairs)
