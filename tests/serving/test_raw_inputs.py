"""Texts and images through a real server: what goes in as it is, what comes out, and who is told of mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from ports import free_port

from . import tiny
from .support import Model, ServerProcess, serving, signature
from .tiny import TEXTS, encoded, picture

LABELS = ["negative", "neutral", "positive"]
HANDLER = """
from modelyard.errors import InvalidInput

class Lengths:
    def setup(self, folder):
        self.longest = 10

    def predict(self, inputs):
        if any(len(text) > self.longest for text in inputs["words"]):
            raise InvalidInput("a word is too long")
        return {"length": [[len(text)] for text in inputs["words"]]}
"""


def named(each: Model, name: str) -> Model:
    from dataclasses import replace

    return Model(replace(each.version, name=name), each.folder)


def ranker(folder: Path) -> Model:
    tiny.texts(folder, "BertForSequenceClassification", ["LABEL_0"])
    (folder / "README.md").write_text("---\npipeline_tag: text-ranking\n---\n")
    return tiny.inspected(folder, "ranker")


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("custom")
    (folder / "handler.py").write_text(HANDLER)
    return tiny.inspected(folder, "lengths", signature({"words": ("BYTES", [-1])}, {"length": ("INT64", [-1, 1])}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, custom: Model) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("raw")
    (folder / "numbers").mkdir()
    skops.io.dump(LogisticRegression().fit([[0, 0], [1, 1]], ["low", "high"]), folder / "numbers" / "model.skops")
    made = [
        named(tiny.texts(folder / "texts", "BertForSequenceClassification", LABELS), "texts"),
        named(tiny.texts(folder / "entities", "BertForTokenClassification", ["O", "B-PER", "I-PER"]), "entities"),
        tiny.images(folder / "images", LABELS),
        tiny.inspected(folder / "numbers", "numbers"),
        ranker(folder / "ranker"),
        custom,
    ]
    settings = json.dumps({"trust_code": ["lengths"], "batch_delay_ms": 20})
    with serving(folder, made, free_port(), settings) as process:
        process.wait_ready()
        yield process


def ask(server: ServerProcess, model: str, name: str, *values: str, **tensor: Any) -> httpx.Response:
    document = {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": list(values)} | tensor
    return httpx.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": [document]}, timeout=30)


def outputs(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {tensor["name"]: tensor for tensor in response.json()["outputs"]}


def test_a_text_gives_its_label(server: ServerProcess) -> None:
    found = outputs(ask(server, "texts", "text", *TEXTS))
    assert set(found["label"]["data"]) <= set(LABELS)
    assert (found["label"]["datatype"], found["score"]["shape"]) == ("BYTES", [4])
    assert found["probabilities"]["shape"] == [4, 3]
    metadata = httpx.get(f"{server.url}/v2/models/texts").json()
    assert metadata["parameters"] == {"labels": LABELS}
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]


def test_an_image_gives_its_label(server: ServerProcess) -> None:
    files = [encoded(picture(1)), encoded(picture(2, "JPEG"))]
    found = outputs(ask(server, "images", "image", *files, parameters={"content_type": "base64"}))
    assert set(found["label"]["data"]) <= set(LABELS)
    assert outputs(ask(server, "images", "image", *files))["label"] == found["label"]


def test_an_image_may_come_as_binary_data(server: ServerProcess) -> None:
    file = picture(1)
    data = len(file).to_bytes(4, "little") + file
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    answer = httpx.post(
        f"{server.url}/v2/models/images/infer",
        content=head + data,
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert outputs(answer) == outputs(ask(server, "images", "image", encoded(file)))


def test_entities_come_as_json(server: ServerProcess) -> None:
    found = outputs(ask(server, "entities", "text", *TEXTS))
    for text, entities in zip(TEXTS, found["entities"]["data"], strict=True):
        assert all(text[e["start"] : e["end"]] == e["text"] for e in json.loads(entities))


@pytest.mark.parametrize(
    ("model", "name", "tensor"),
    [
        ("texts", "text", {}),
        ("entities", "text", {}),
        ("images", "image", {}),
        ("numbers", "x", {"datatype": "FP64", "shape": [0, 2], "data": []}),
    ],
)
def test_no_rows_get_no_rows(server: ServerProcess, model: str, name: str, tensor: dict[str, Any]) -> None:
    found = outputs(ask(server, model, name, **tensor))
    assert {output["shape"][0] for output in found.values()} == {0}


def test_texts_of_all_lengths_at_once_get_what_they_get_alone(server: ServerProcess) -> None:
    texts = [" ".join(["cat dog film"] * length) for length in (1, 9, 3, 20, 2, 6)]
    alone = [outputs(ask(server, "texts", "text", text))["score"]["data"][0] for text in texts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda text: outputs(ask(server, "texts", "text", text)), texts))
    assert [found["score"]["data"][0] for found in together] == pytest.approx(alone, abs=1e-5)
    assert outputs(ask(server, "texts", "text", *texts))["score"]["data"] == pytest.approx(alone, abs=1e-5)


def test_requests_at_the_same_time_get_what_they_get_alone(server: ServerProcess) -> None:
    files = [encoded(picture(seed)) for seed in range(8)]
    alone = [outputs(ask(server, "images", "image", file))["score"]["data"][0] for file in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda file: outputs(ask(server, "images", "image", file)), files))
    assert [found["score"]["data"][0] for found in together] == pytest.approx(alone, abs=1e-5)


def test_one_that_is_no_image_fails_alone(server: ServerProcess) -> None:
    files = [encoded(picture(seed)) for seed in range(4)] + [encoded(b"no image")]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda file: ask(server, "images", "image", file), files))
    assert [answer.status_code for answer in answers] == [200] * 4 + [400]
    assert answers[-1].json()["error"].startswith("8 bytes can't be read as an image")


def test_a_handler_may_refuse_what_it_is_given(server: ServerProcess) -> None:
    assert outputs(ask(server, "lengths", "words", "four", "a"))["length"]["data"] == [4, 1]
    refused = ask(server, "lengths", "words", "much too long for this")
    assert (refused.status_code, refused.json()) == (400, {"error": "a word is too long"})


def test_numbers_give_labels_too(server: ServerProcess) -> None:
    found = outputs(ask(server, "numbers", "x", shape=[1, 2], datatype="FP64", data=[1, 1]))
    assert found["label"]["data"] == ["high"]


def rerank(server: ServerProcess, **document: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/rerank", json={"model": "ranker", "query": "a cat", **document}, timeout=30)


def test_documents_are_ranked_by_a_query(server: ServerProcess) -> None:
    pairs = [
        {"name": name, "datatype": "BYTES", "shape": [4], "data": data}
        for name, data in (("query", ["a cat"] * 4), ("text", TEXTS))
    ]
    answer = httpx.post(f"{server.url}/v2/models/ranker/infer", json={"inputs": pairs}, timeout=30)
    scores = outputs(answer)["score"]["data"]
    found = rerank(server, documents=[*TEXTS[:2], *({"text": text} for text in TEXTS[2:])]).json()
    assert found["model"] == "ranker" and found["usage"]["total_tokens"] == 34
    assert [result["index"] for result in found["results"]] == sorted(range(4), key=lambda n: -scores[n])
    for result in found["results"]:
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-5)
    best = rerank(server, documents=TEXTS, top_n=1, return_documents=True).json()["results"]
    assert [result["document"]["text"] for result in best] == [TEXTS[found["results"][0]["index"]]]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"documents": TEXTS, "query": ""}, "'query' is not a text"),
        ({"documents": []}, "'documents' is not a list of texts"),
        ({"documents": [{"title": "a"}]}, "'documents' is not a list of texts"),
        ({"documents": TEXTS, "top_n": 0}, "'top_n' is not a number above 0"),
        ({"documents": TEXTS, "model": "texts"}, "texts ranks no texts; ask a cross encoder"),
    ],
)
def test_rankings_that_can_not_be_made_are_told(server: ServerProcess, document: dict[str, Any], expected: str) -> None:
    answer = rerank(server, **document)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(expected)


def test_a_server_with_code_that_nobody_trusts_ends_with_one_line(tmp_path: Path, custom: Model) -> None:
    with serving(tmp_path, [custom], free_port()) as process:
        _, said = process.process.communicate(timeout=60)
    assert process.process.returncode == 1
    assert said.startswith(
        "error: lengths:v1.0.0 is served by Python code of its own (handler.py), which is not trusted;"
    )
    assert said.count("\n") == 1
