"""Custom handlers: whose code runs, what it is given, and what becomes of its mistakes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from modelyard.errors import InvalidInput, Refused
from modelyard.serving import models, runtimes
from modelyard.serving.protocol import ModelFailed

from . import tiny
from .support import Model, signature
from .tiny import column

HANDLER = """
import json
from pathlib import Path

import numpy as np

from .words import lower


class Counter:
    def setup(self, folder: Path) -> None:
        from . import words
        self.weights = json.loads((folder / "weights.json").read_text())

    def preprocess(self, inputs):
        return [lower(text).split() for text in inputs["text"]]

    def predict(self, rows):
        return [sum(self.weights.get(word, 0) for word in row) for row in rows]

    def postprocess(self, sums):
        return {"score": np.array(sums, dtype=np.float32)}
"""
SIGNATURE = signature({"text": ("BYTES", [-1])}, {"score": ("FP32", [-1])})
MINIMAL = """
class Handler:
    def setup(self, folder):
        pass

    def predict(self, inputs):
        return {"score": [len(text) for text in inputs["text"]]}
"""


def counter(folder: Path, handler: str = HANDLER) -> Model:
    (folder / "handler.py").write_text(handler)
    (folder / "words.py").write_text("def lower(text):\n    return text.lower()\n")
    (folder / "weights.json").write_text('{"good": 1, "bad": -1}')
    return tiny.inspected(folder, "team/counter", SIGNATURE)


def load(each: Model) -> runtimes.Runtime:
    return models.load(models.Served(each.version, each.folder), trust_code=[each.version.name])


def test_a_handler_reads_prepares_computes_and_answers(tmp_path: Path) -> None:
    each = counter(tmp_path)
    assert each.version.model.format == "custom"
    answer = load(each).infer({"text": column("Good good", "a bad thing")})
    assert answer["score"].tolist() == [2, -1]
    assert not (tmp_path / "__pycache__").exists()


def test_texts_that_came_as_bytes_are_texts_for_the_handler(tmp_path: Path) -> None:
    runtime = load(counter(tmp_path))
    assert runtime.infer({"text": column(b"Good", "bad")})["score"].tolist() == [1, -1]
    with pytest.raises(InvalidInput, match="the binary data of input 'text' are not UTF-8"):
        runtime.infer({"text": column(b"\xff")})


def test_two_handlers_with_helpers_of_one_name_keep_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    first = load(counter(folders[0]))
    second = counter(folders[1], HANDLER + "\n")
    (folders[1] / "words.py").write_text("def lower(text):\n    return 'bad'\n")
    assert load(second).infer({"text": column("good")})["score"].tolist() == [-1]
    assert first.infer({"text": column("good")})["score"].tolist() == [1]


def test_preparing_and_finishing_may_be_left_out(tmp_path: Path) -> None:
    answer = load(counter(tmp_path, MINIMAL)).infer({"text": column("four", "a")})
    assert answer["score"].tolist() == [4, 1]


@pytest.mark.parametrize(
    "trusted", [[], ["counter"], ["team/counter:v2.0.0"], ["sha256:" + "0" * 64], ["team/counter:latest"]]
)
def test_code_that_nobody_trusts_is_not_run(tmp_path: Path, trusted: list[str]) -> None:
    each = counter(tmp_path, "raise SystemExit('it ran')" + HANDLER)
    with pytest.raises(Refused, match="which is not trusted; read it, then add sha256:") as caught:
        models.load(models.Served(each.version, each.folder), trust_code=trusted)
    assert "\n" not in str(caught.value)


def test_code_is_trusted_by_name_version_or_digest(tmp_path: Path) -> None:
    each = counter(tmp_path)
    digest = str(each.version.digest)
    for entry in ("team/counter", "team/counter:v1.0.0", digest, f"team/counter@{digest}", str(each.version.ref)):
        models.load(models.Served(each.version, each.folder), trust_code=["another", entry])


def test_an_entry_that_is_no_name_is_told(tmp_path: Path) -> None:
    each = counter(tmp_path)
    with pytest.raises(InvalidInput, match=r"serving\.trust_code holds 'sha256:12'.*write a model's name or a digest"):
        models.load(models.Served(each.version, each.folder), trust_code=["sha256:12"])


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("import nothing_there" + HANDLER, "failed: ModuleNotFoundError: No module named 'nothing_there'"),
        (HANDLER.replace("weights.json", "none.json"), "failed: FileNotFoundError"),
        (HANDLER + HANDLER.replace("Counter", "Other"), "has 2 classes with setup and predict; leave one of them"),
    ],
)
def test_a_handler_that_does_not_start_gives_one_line(tmp_path: Path, handler: str, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected) as caught:
        load(counter(tmp_path, handler))
    assert "\n" not in str(caught.value)
    assert not [name for name in sys.modules if name.startswith("nothing")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("[1, 2]", "gave a list where a dict of arrays was expected"), ("{'other': [1]}", "gave no output 'score'")],
)
def test_answers_that_do_not_fit_are_the_models_fault(tmp_path: Path, answer: str, expected: str) -> None:
    handler = MINIMAL.replace('{"score": [len(text) for text in inputs["text"]]}', answer)
    with pytest.raises(ModelFailed, match=expected):
        load(counter(tmp_path, handler)).infer({"text": column("a")})


def test_arrays_may_be_lists(tmp_path: Path) -> None:
    assert isinstance(load(counter(tmp_path, MINIMAL)).infer({"text": column("a")})["score"], np.ndarray)
