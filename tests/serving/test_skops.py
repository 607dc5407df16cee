"""scikit-learn models through skops: what they answer, and what is not made out of a file."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

from modelyard.errors import InvalidInput, Refused
from modelyard.repository.manifest import Tensor
from modelyard.serving import models, runtimes
from modelyard.serving.models import example

from . import tiny
from .support import signature
from .tiny import column

DIGITS, TARGETS = (array[:200] for array in load_digits(return_X_y=True))


def saved(folder: Path, model: Any, metadata: dict[str, Any] | None = None) -> runtimes.Runtime:
    skops.io.dump(model, folder / "model.skops")
    each = tiny.inspected(folder, "digits", metadata)
    assert each.version.model.format == "skops"
    return models.load(models.Served(each.version, each.folder))


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=2000),
        make_pipeline(StandardScaler(), MLPClassifier((8,), tol=1)),
        RandomForestClassifier(4, random_state=0),
        GradientBoostingClassifier(n_estimators=2),
        HistGradientBoostingClassifier(max_iter=2),
        make_pipeline(PolynomialFeatures(1), RandomForestClassifier(2)),
        VotingClassifier(
            [("forest", RandomForestClassifier(2)), ("lines", LogisticRegression(max_iter=2000))], voting="soft"
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_classifier_gives_labels_scores_and_probabilities(tmp_path: Path, model: Any) -> None:
    model.fit(DIGITS, TARGETS)
    runtime = saved(tmp_path, model)
    answer = runtime.infer({"x": DIGITS})
    assert answer["label"].tolist() == model.predict(DIGITS).tolist()
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(DIGITS), atol=1e-6)
    np.testing.assert_allclose(answer["score"], answer["probabilities"].max(axis=1))
    assert runtime.signature.inputs == (Tensor("x", "FP64", (-1, 64)),)
    assert runtime.signature.outputs == (
        Tensor("label", "INT64", (-1,)),
        Tensor("score", "FP32", (-1,)),
        Tensor("probabilities", "FP32", (-1, 10)),
    )
    assert runtime.labels == tuple("0123456789")  # type: ignore[attr-defined]
    assert runtime.infer(example(runtime.signature))["label"].shape == (1,)


def test_texts_are_classified_from_their_words(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100))
    model.fit(["a good film", "a bad film", "very good"], ["yes", "no", "yes"])
    runtime = saved(tmp_path, model)
    assert runtime.signature.inputs == (Tensor("text", "BYTES", (-1,)),)
    answer = runtime.infer({"text": column("good", "bad", "bad")})
    assert answer["label"].tolist() == ["yes", "no", "no"]


@pytest.mark.parametrize(
    ("model", "targets", "expected"),
    [
        (Ridge(), TARGETS, Tensor("prediction", "FP64", (-1,))),
        (Ridge(), np.stack([TARGETS, -TARGETS], axis=1), Tensor("prediction", "FP64", (-1, -1))),
        (RandomForestRegressor(2), np.stack([TARGETS, TARGETS], axis=1), Tensor("prediction", "FP64", (-1, -1))),
        (KMeans(3, n_init=1), None, Tensor("prediction", "INT64", (-1,))),
        (RidgeClassifier(), TARGETS, Tensor("label", "INT64", (-1,))),
    ],
)
def test_other_models_give_what_they_predict(tmp_path: Path, model: Any, targets: Any, expected: Tensor) -> None:
    model.fit(DIGITS, targets)
    runtime = saved(tmp_path, model)
    assert runtime.signature.outputs == (expected,)
    answer = runtime.infer({"x": DIGITS})[expected.name]
    np.testing.assert_allclose(answer, model.predict(DIGITS))
    assert answer.ndim == len(expected.shape)


def test_a_signature_in_the_metadata_names_inputs_and_answer(tmp_path: Path) -> None:
    model = LogisticRegression().fit([[0, 0], [1, 1], [0, 1]], [0, 1, 0])
    columns = {name: ("FP32", [-1]) for name in ("height", "width")}
    runtime = saved(tmp_path, model, signature(columns, {"large": ("FP32", [-1])}))
    answer = runtime.infer({"width": np.array([0, 1], np.float32), "height": np.array([1, 1], np.float32)})
    assert answer["large"].tolist() == model.predict([[1, 0], [1, 1]]).tolist()
    assert answer["large"].dtype == np.float32


def shout(values: Any) -> Any:
    return values


def test_types_that_are_not_trusted_are_refused_by_name(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(shout), LogisticRegression()).fit([[0], [1]], [0, 1])
    with pytest.raises(Refused, match=r"model\.skops of digits:v1\.0\.0 holds types that are not trusted: .*shout;"):
        saved(tmp_path, model)


def damaged(data: bytes, find: dict[str, Any], change: Any) -> bytes:
    """The file with other nodes in the first array that has these fields."""
    out = io.BytesIO()
    done = False
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            array = np.load(io.BytesIO(content)) if name.endswith(".npy") else None
            if not done and array is not None and array.dtype.names and find.keys() <= set(array.dtype.names):
                change(array)
                buffer = io.BytesIO()
                np.save(buffer, array)
                content, done = buffer.getvalue(), True
            target.writestr(name, content)
    assert done
    return out.getvalue()


def _set(field: str, value: int) -> Any:
    def change(nodes: Any) -> None:
        nodes[field][0] = value

    return change


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (RandomForestClassifier(2), _set("left_child", 10_000)),
        (RandomForestClassifier(2), _set("right_child", 0)),
        (RandomForestClassifier(2), _set("feature", 64)),
        (GradientBoostingClassifier(n_estimators=2), _set("feature", -5)),
        (HistGradientBoostingClassifier(max_iter=2), _set("left", 10_000)),
        (HistGradientBoostingClassifier(max_iter=2), _set("feature_idx", 64)),
    ],
)
def test_trees_that_lead_out_of_themselves_are_refused(tmp_path: Path, model: Any, change: Any) -> None:
    data = skops.io.dumps(model.fit(DIGITS, TARGETS))
    key = "left" if isinstance(model, HistGradientBoostingClassifier) else "left_child"
    (tmp_path / "model.skops").write_bytes(damaged(data, {key: 0}, change))
    each = tiny.inspected(tmp_path, "digits")
    with pytest.raises(InvalidInput, match=r"can't be loaded: a decision tree in it is damaged"):
        models.load(models.Served(each.version, each.folder))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (StandardScaler().fit(DIGITS), "is a StandardScaler, which predicts nothing"),
        ({"not": "a model"}, "is a dict, which predicts nothing"),
    ],
)
def test_what_predicts_nothing_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        saved(tmp_path, content)


def test_a_schema_that_does_not_fit_gives_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps({"__class__": "Ridge", "__module__": "sklearn.linear_model"}))
    each = tiny.inspected(tmp_path, "digits")
    with pytest.raises(InvalidInput, match=r"model\.skops of digits:v1\.0\.0 can't be loaded") as caught:
        models.load(models.Served(each.version, each.folder))
    assert "\n" not in str(caught.value)
