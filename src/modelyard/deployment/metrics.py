"""Metrics of a validation suite: reading the data set they are measured on, and computing them. Asks no model."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.deployment.suite import Metric
from modelyard.errors import InvalidInput, MissingExtra, NotFound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows to ask, and the answer that each should get."""

    inputs: NDArray[np.generic]
    expected: NDArray[np.generic]


def read_dataset(metric: Metric) -> Dataset:
    """The two arrays the metric names, after the digest was checked on the very bytes that are read.

    Raises NotFound, InvalidInput and MissingExtra, naming the file.
    """
    try:
        import numpy as np
    except ImportError:
        raise MissingExtra("numpy", "serve") from None
    where = f"the data set {metric.dataset}"
    try:
        data = Path(metric.dataset).read_bytes()
    except OSError as error:
        raise NotFound(f"{where} can't be read: {error.strerror}", remedy="check metric.dataset") from error
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != metric.digest:
        raise InvalidInput(
            f"{where} is {found}, the suite was written for {metric.digest}", remedy="give the right file, or mend it"
        )
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            inputs, expected = arrays[metric.input.array], arrays[metric.output.array]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"{where} does not hold what the suite names: {' '.join(str(error).split())}",
            remedy=f"write an .npz with the arrays {metric.input.array!r} and {metric.output.array!r}",
        ) from error
    if not inputs.ndim or not expected.ndim or len(inputs) != len(expected) or not len(inputs):
        raise InvalidInput(
            f"{where} has inputs of {inputs.shape} and answers of {expected.shape}",
            remedy=f"write rows into {metric.input.array!r}, and an answer for each into {metric.output.array!r}",
        )
    return Dataset(inputs, expected)


def row_scores(metric: Metric, found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """The metric's value for each row; their mean is the figure.

    Where a row has several outputs, accuracy takes the place of the largest as the answer. Raises ValueError when the
    shapes do not fit each other.
    """
    import numpy as np

    if found.ndim == expected.ndim + 1:
        if found.shape[-1] == 1:
            found = found[..., 0]
        elif metric.name == "accuracy":
            found = found.argmax(axis=-1)
    if found.shape != expected.shape:
        fitting = "the outputs' shape" + (" or a class for each row" if metric.name == "accuracy" else "")
        raise ValueError(
            f"outputs of {found.shape} can't be compared with answers of {expected.shape}; "
            f"write the array {metric.output.array!r} with {fitting}"
        )
    if metric.name == "accuracy":
        scores = (found == expected).astype(np.float64)
    elif found.dtype.kind not in _NUMBERS or expected.dtype.kind not in _NUMBERS:
        raise ValueError(f"{metric.name} needs numbers")
    else:
        scores = np.abs(found.astype(np.float64) - expected)
        scores = scores**2 if metric.name == "mean_squared_error" else scores
    means: NDArray[np.float64] = scores.reshape(len(scores), -1).mean(axis=1)
    return means


_NUMBERS = "biuf"
