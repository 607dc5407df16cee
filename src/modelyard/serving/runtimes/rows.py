"""What runtimes that prepare row by row share: a whole request through both steps, and the answer to one of no rows."""

from __future__ import annotations

import numpy as np

from modelyard.repository.manifest import Signature
from modelyard.serving.datatypes import DATATYPES
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import RowRuntime


def infer_rows(runtime: RowRuntime, inputs: Arrays) -> Arrays:
    """What the runtime gives for one request by itself."""
    rows = runtime.prepare(inputs)
    return runtime.infer_rows([row.item for row in rows]) if rows else nothing(runtime.signature)


def nothing(signature: Signature) -> Arrays:
    """The outputs of no rows."""
    return {
        tensor.name: np.empty((0, *(max(length, 0) for length in tensor.shape[1:])), dtype=DATATYPES[tensor.datatype])
        for tensor in signature.outputs
    }
