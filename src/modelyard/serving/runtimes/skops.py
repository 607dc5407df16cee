"""scikit-learn models that skops saved. Only types that skops knows to be harmless, and a few more, are made.

Takes rows of numbers, or texts where the model begins with a text vectorizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, MissingExtra, Refused
from modelyard.repository.manifest import ModelVersion, Signature, Tensor, declared_signature
from modelyard.serving.datatypes import DATATYPES
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import only_file
from modelyard.serving.runtimes.rows import nothing

try:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException
except ImportError as error:
    raise MissingExtra("skops", "serve") from error

from modelyard.serving.runtimes import trees

# Beyond what skops trusts by itself: plain values, and trees, which are looked at before they are used.
_TRUSTED = (
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.utils._bunch.Bunch",
    *trees.TYPES,
)


class SkopsRuntime:
    """A classifier gives `label` and, where it knows them, `score` and `probabilities`; any other `prediction`.

    A signature in the metadata names the inputs: one of rows, or one for each column, in order. If it has a single
    output, that is what the label or prediction is called, and the datatype it is given in.
    """

    platform = "sklearn_skops"

    def __init__(self, model: Any, declared: Signature) -> None:
        self._model = model
        self._classes = getattr(model, "classes_", None)
        one_answer = isinstance(self._classes, np.ndarray)
        self._probable = one_answer and hasattr(model, "predict_proba")
        self.labels = tuple(str(name) for name in self._classes) if isinstance(self._classes, np.ndarray) else ()
        inputs = declared.inputs or (_input(model),)
        self._answer = _answer(model) if len(declared.outputs) != 1 else declared.outputs[0]
        probable = (
            (Tensor("score", "FP32", (-1,)), Tensor("probabilities", "FP32", (-1, len(self.labels))))
            if self._probable
            else ()
        )
        self.signature = Signature(inputs, (self._answer, *probable))

    def infer(self, inputs: Arrays) -> Arrays:
        columns = [inputs[tensor.name] for tensor in self.signature.inputs]
        rows = columns[0] if len(columns) == 1 else np.column_stack(columns)
        if not len(rows):
            return nothing(self.signature)
        if not self._probable or self._classes is None:
            return {self._answer.name: self._typed(self._model.predict(rows))}
        probabilities = self._model.predict_proba(rows).astype(np.float32)
        # Not the most probable: some models decide otherwise.
        label = self._model.predict(rows)
        return {
            self._answer.name: self._typed(label),
            "score": probabilities[np.arange(len(label)), np.searchsorted(self._classes, label)],
            "probabilities": probabilities,
        }

    def _typed(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return values.astype(DATATYPES[self._answer.datatype])


def load(version: ModelVersion, folder: Path) -> SkopsRuntime:
    path = only_file(folder, (".skops",))
    name = f"{path.name} of {version.name}:{version.version}"
    try:
        model = skops.io.load(path, trusted=list(_TRUSTED))
    except UntrustedTypesFoundException as error:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(_TRUSTED))
        raise Refused(
            f"{name} holds types that are not trusted: {', '.join(unknown)}",
            remedy="save it without them, or serve it by a custom handler",
        ) from error
    # skops and scikit-learn raise many things for files that do not fit.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInput(f"{name} can't be loaded: {reason}") from error
    if not hasattr(model, "predict"):
        raise InvalidInput(f"{name} is a {type(model).__name__}, which predicts nothing")
    try:
        trees.check(model)
    except InvalidInput as error:
        raise InvalidInput(f"{name} can't be loaded: {error.message}", remedy=error.remedy) from error
    return SkopsRuntime(model, declared_signature(version.metadata) or version.model.signature or Signature())


def _input(model: Any) -> Tensor:
    first = model.steps[0][1] if hasattr(model, "steps") else model
    if hasattr(first, "build_analyzer"):
        return Tensor("text", "BYTES", (-1,))
    return Tensor("x", "FP64", (-1, int(getattr(model, "n_features_in_", -1))))


def _answer(model: Any) -> Tensor:
    """What `predict` gives, in the protocol's words."""
    classes = getattr(model, "classes_", None)
    if isinstance(classes, np.ndarray):
        return Tensor("label", "INT64" if classes.dtype.kind in "iu" else "BYTES", (-1,))
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if hasattr(last, "labels_"):  # a clustering
        return Tensor("prediction", "INT64", (-1,))
    several = np.ndim(getattr(last, "coef_", 0)) > 1 or getattr(last, "n_outputs_", 1) > 1
    return Tensor("prediction", "FP64", (-1, -1) if several else (-1,))
