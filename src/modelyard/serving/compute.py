"""One batch of requests through a runtime: joined, computed, split. Pure; knows no queue, no clock, no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.errors import ModelyardError
from modelyard.repository.manifest import Signature
from modelyard.serving.protocol import Arrays, ModelFailed
from modelyard.serving.runtimes import Runtime

Result = Arrays | ModelyardError
Key = tuple[Any, ...]


def batch_key(inputs: Arrays, signature: Signature) -> Key | None:
    """What requests must have in common to be joined along axis 0; None when this one is computed by itself.

    They can be joined where the signature says that every input and output begins with any length (-1), and where the
    inputs of the request agree in it.
    """
    declared = (*signature.inputs, *signature.outputs)
    if not signature.inputs or not signature.outputs or any(t.shape[:1] != (-1,) for t in declared):
        return None
    if len({array.shape[:1] for array in inputs.values()}) != 1:
        return None
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))


def rows_of(inputs: Arrays) -> int:
    """How much a request weighs: the length of its first axis, at least 1."""
    return max((array.shape[0] for array in inputs.values() if array.ndim), default=1) or 1


def compute(runtime: Runtime, requests: Sequence[Arrays], key: Key | None, max_batch: int) -> list[Result]:
    """A result, or what went wrong, for each request. A failure in a joined batch is narrowed down to its request."""
    if len(requests) > 1:
        try:
            return list(_joined(runtime, requests))
        # A model may raise anything; whose fault it was shows when each is computed by itself.
        except Exception:
            return [_alone(runtime, inputs, key, max_batch) for inputs in requests]
    return [_alone(runtime, inputs, key, max_batch) for inputs in requests]


def _joined(runtime: Runtime, requests: Sequence[Arrays]) -> list[Arrays]:
    rows = [rows_of(inputs) for inputs in requests]
    outputs = runtime.infer(_concatenate(requests))
    _check_rows(outputs, sum(rows))
    ends = np.cumsum(rows)
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for end, count in zip(ends, rows, strict=True)
    ]


def _alone(runtime: Runtime, inputs: Arrays, key: Key | None, max_batch: int) -> Result:
    rows = rows_of(inputs)
    try:
        if key is None or rows <= max_batch:
            return runtime.infer(inputs)
        parts = []
        for start in range(0, rows, max_batch):
            part = {name: array[start : start + max_batch] for name, array in inputs.items()}
            parts.append(runtime.infer(part))
            _check_rows(parts[-1], rows_of(part))
        return _concatenate(parts)
    except ModelyardError as error:
        return error
    # A model may raise anything; the client gets its last line, the process lives on.
    except Exception as error:
        return ModelFailed(f"the model failed: {_last_line(error)}")


def _concatenate(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_rows(outputs: Arrays, rows: int) -> None:
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise ModelFailed(f"output {name!r} has shape {list(array.shape)} for a batch of {rows}")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
