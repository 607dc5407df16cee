"""One batch of pieces through a runtime: joined, computed, split. Pure; knows no queue, no clock, no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.errors import ModelyardError
from modelyard.repository.manifest import Signature
from modelyard.serving.batches import Key, Piece
from modelyard.serving.protocol import Arrays, ModelFailed
from modelyard.serving.runtimes import Row, RowRuntime, Runtime

Result = Arrays | ModelyardError

ROWS: Key = ("rows",)


@dataclass(frozen=True, slots=True, eq=False)
class Work(Piece):
    """A piece with what the runtime takes: arrays, or one prepared row. `whole`: it is all of its request."""

    item: Any
    whole: bool


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


def prepare(runtime: RowRuntime, inputs: Arrays) -> Sequence[Row]:
    """The request's rows, ready to be computed. Raises ModelFailed, and what the runtime refuses."""
    try:
        return runtime.prepare(inputs)
    except ModelyardError:
        raise
    except Exception as error:
        raise ModelFailed(f"the model failed: {_last_line(error)}") from error


def compute(runtime: Runtime, batch: Sequence[Work]) -> list[Result]:
    """A result, or what went wrong, for each piece. A failure in a joined batch is narrowed down to its piece."""
    if len(batch) > 1:
        try:
            return list(_split(_run(runtime, batch), [piece.rows for piece in batch]))
        # A model may raise anything; whose fault it was shows when each is computed by itself.
        except Exception:
            return [_alone(runtime, piece) for piece in batch]
    return [_alone(runtime, piece) for piece in batch]


def concatenate(parts: Sequence[Arrays]) -> Arrays:
    """The parts' rows one after the other."""
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _alone(runtime: Runtime, piece: Work) -> Result:
    try:
        outputs = _run(runtime, [piece])
        return outputs if piece.whole else _split(outputs, [piece.rows])[0]
    except ModelyardError as error:
        return error
    # A model may raise anything; the client gets its last line, the process lives on.
    except Exception as error:
        return ModelFailed(f"the model failed: {_last_line(error)}")


def _run(runtime: Runtime, batch: Sequence[Work]) -> Arrays:
    if batch[0].key is ROWS:
        rows_runtime: Any = runtime
        outputs: Arrays = rows_runtime.infer_rows([piece.item for piece in batch])
        return outputs
    return runtime.infer(concatenate([piece.item for piece in batch]))


def _split(outputs: Arrays, rows: Sequence[int]) -> list[Arrays]:
    ends = np.cumsum(rows)
    for name, array in outputs.items():
        if array.shape[:1] != (ends[-1],):
            raise ModelFailed(f"output {name!r} has shape {list(array.shape)} for a batch of {ends[-1]}")
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for end, count in zip(ends.tolist(), rows, strict=True)
    ]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
