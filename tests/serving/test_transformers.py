"""The runtimes of transformers models, against what transformers itself says about the same models."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import Tensor
from modelyard.serving import models, runtimes
from modelyard.serving.models import example

from . import tiny
from .support import Model
from .tiny import TEXTS, column, encoded, picture

LABELS = ["negative", "neutral", "positive"]
ENTITIES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def load(each: Model) -> runtimes.Runtime:
    return models.load(models.Served(each.version, each.folder))


def pipeline(task: str, folder: Path, **options: Any) -> Any:
    make: Any = transformers.pipeline
    return make(task, model=str(folder), device="cpu", **options)


@pytest.mark.parametrize(
    ("options", "labels"),
    [({}, LABELS), ({"problem_type": "multi_label_classification"}, LABELS), ({}, ["toxic"])],
)
def test_texts_get_the_labels_that_transformers_gives_them(
    tmp_path: Path, options: dict[str, Any], labels: list[str]
) -> None:
    each = tiny.texts(tmp_path, "BertForSequenceClassification", labels, **options)
    assert each.version.model.task == "text-classification"
    runtime = load(each)
    answer = runtime.infer({"text": column(*TEXTS)})
    for row, expected in enumerate(pipeline("text-classification", tmp_path, top_k=None)(TEXTS)):
        probabilities = dict(zip(labels, answer["probabilities"][row].tolist(), strict=True))
        assert probabilities == pytest.approx({e["label"]: e["score"] for e in expected}, abs=1e-5)
        assert answer["label"][row] == expected[0]["label"]
        assert answer["score"][row] == pytest.approx(expected[0]["score"], abs=1e-5)
    assert answer["tokens"].tolist() == [5, 6, 6, 5]
    assert runtime.signature.inputs == (Tensor("text", "BYTES", (-1,)),)
    assert runtime.signature.outputs[-1] == Tensor("probabilities", "FP32", (-1, len(labels)))
    assert list(runtime.labels) == labels  # type: ignore[attr-defined]


def test_a_regression_gives_its_value(tmp_path: Path) -> None:
    each = tiny.texts(tmp_path, "BertForSequenceClassification", ["stars"], problem_type="regression")
    answer = load(each).infer({"text": column(*TEXTS)})
    expected = pipeline("text-classification", tmp_path)(TEXTS)
    np.testing.assert_allclose(answer["value"][:, 0], [e["score"] for e in expected], atol=1e-5)


def test_long_texts_are_cut_where_the_model_ends(tmp_path: Path) -> None:
    answer = load(tiny.texts(tmp_path, "BertForSequenceClassification", LABELS)).infer({"text": column("cat " * 500)})
    assert answer["tokens"].tolist() == [24]


def test_roberta_has_fewer_positions_than_it_says(tmp_path: Path) -> None:
    transformers.set_seed(1)
    words = tiny.tokenizer()
    config = transformers.RobertaConfig(vocab_size=len(words), max_position_embeddings=26, pad_token_id=0, **tiny.SIZES)
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    answer = load(tiny.inspected(tmp_path, "roberta")).infer({"text": column("cat " * 500)})
    assert answer["tokens"].tolist() == [25]


def test_a_tokenizer_without_padding_pads_all_the_same(tmp_path: Path) -> None:
    transformers.set_seed(1)
    words = tiny.tokenizer()
    words.pad_token = None
    words.eos_token = "[SEP]"
    config = transformers.GPT2Config(vocab_size=len(words), n_positions=24, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    runtime = load(tiny.inspected(tmp_path, "gpt2"))
    together = runtime.infer({"text": column(*TEXTS)})["probabilities"]
    alone = [runtime.infer({"text": column(text)})["probabilities"][0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_entities_are_those_that_transformers_groups(tmp_path: Path) -> None:
    runtime = load(tiny.texts(tmp_path, "BertForTokenClassification", ENTITIES))
    answer = runtime.infer({"text": column(*TEXTS)})
    found = 0
    for text, entities, expected in zip(
        TEXTS,
        map(json.loads, answer["entities"]),
        pipeline("token-classification", tmp_path, aggregation_strategy="simple")(TEXTS),
        strict=True,
    ):
        spans = [(e["label"], e["start"], e["end"]) for e in entities]
        assert spans == [(e["entity_group"], e["start"], e["end"]) for e in expected]
        assert [e["text"] for e in entities] == [text[e["start"] : e["end"]] for e in expected]
        found += len(entities)
    assert found
    assert answer["tokens"].tolist() == [5, 6, 6, 5]


def test_entities_of_long_texts_are_found_to_their_end(tmp_path: Path) -> None:
    runtime = load(tiny.texts(tmp_path, "BertForTokenClassification", ENTITIES))
    text = "anna lives in berlin the cat sat on a mat " * 10
    entities = json.loads(runtime.infer({"text": column("a cat", text)})["entities"][1])
    assert entities[-1]["end"] > len(text) - 12
    assert all(entity["text"] == text[entity["start"] : entity["end"]] for entity in entities)


def test_images_get_the_labels_that_transformers_gives_them(tmp_path: Path) -> None:
    each = tiny.images(tmp_path, LABELS)
    assert each.version.model.task == "image-classification"
    runtime = load(each)
    files = [picture(1), picture(2, "JPEG", (31, 17)), picture(3, "BMP")]
    answer = runtime.infer({"image": column(encoded(files[0]), files[1], f"data:image/bmp;base64,{encoded(files[2])}")})
    opened = [Image.open(io.BytesIO(file)) for file in files]
    auto: Any = transformers.AutoImageProcessor
    processor = auto.from_pretrained(tmp_path, backend="pil")
    expected = pipeline("image-classification", tmp_path, image_processor=processor)(opened)
    assert answer["label"].tolist() == [found[0]["label"] for found in expected]
    np.testing.assert_allclose(answer["score"], [found[0]["score"] for found in expected], atol=1e-5)
    assert runtime.signature.inputs == (Tensor("image", "BYTES", (-1,)),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no base64!", "an image in JSON is not base64; send the file's bytes as base64 text"),
        (encoded(b"GIF89a and then nothing"), "23 bytes can't be read as an image"),
        (picture(1)[:300], "300 bytes can't be read as an image"),
        (b"", "0 bytes can't be read as an image"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path, value: str | bytes, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        load(tiny.images(tmp_path, LABELS)).infer({"image": column(value)})


def test_cross_encoders_score_pairs(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    plain = tiny.texts(tmp_path / "plain", "BertForSequenceClassification", ["LABEL_0"]).folder
    encoder = CrossEncoder(str(plain), device="cpu", local_files_only=True)
    encoder.save_pretrained(str(tmp_path / "saved"))
    saved = tiny.inspected(tmp_path / "saved", "ranker")
    assert saved.version.model.task == "text-ranking"
    (plain / "README.md").write_text("---\npipeline_tag: text-ranking\n---\n")
    queries, texts = ["a cat", "a film", "anna", "a cat"], TEXTS
    expected = encoder.predict(list(zip(queries, texts, strict=True)), show_progress_bar=False)
    for each in (saved, tiny.inspected(plain, "ranker")):
        answer = load(each).infer({"query": column(*queries), "text": column(*texts)})
        np.testing.assert_allclose(answer["score"], expected, atol=1e-5)
        assert answer["tokens"].tolist() == [8, 9, 8, 8]
        with pytest.raises(InvalidInput, match="2 queries can't be paired with 4 texts; send a query for each"):
            load(each).infer({"query": column(*queries[:2]), "text": column(*texts)})


def test_a_bare_encoder_gives_embeddings(tmp_path: Path) -> None:
    each = tiny.texts(tmp_path, "BertModel", LABELS)
    assert each.version.model.task == "feature-extraction"
    answer = load(each).infer({"text": column(*TEXTS)})
    states = pipeline("feature-extraction", tmp_path)(TEXTS)
    expected = [np.array(state[0]).mean(axis=0) for state in states]
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-5)


def test_every_runtime_answers_its_own_example(tmp_path: Path) -> None:
    made = [
        tiny.texts(tmp_path / "1", "BertForSequenceClassification", LABELS),
        tiny.texts(tmp_path / "2", "BertForTokenClassification", ENTITIES),
        tiny.images(tmp_path / "3", LABELS),
    ]
    for each in made:
        runtime = load(each)
        answer = runtime.infer(example(runtime.signature))
        assert {tensor.name for tensor in runtime.signature.outputs} <= set(answer)


@pytest.mark.parametrize(
    ("task", "kind", "expected"),
    [
        ("text-classification", "BertModel", "can't be served: its files hold no weights for classifier"),
        ("image-classification", "BertModel", "can't be loaded as a transformers model: Unrecognized configuration"),
        ("text-generation", "BertModel", "has the task text-generation; the model server serves feature-extraction"),
    ],
)
def test_what_a_runtime_can_not_serve_gives_one_line(tmp_path: Path, task: str, kind: str, expected: str) -> None:
    from dataclasses import replace

    each = tiny.texts(tmp_path, kind, LABELS)
    wrong = replace(each.version, model=replace(each.version.model, task=task))
    with pytest.raises(InvalidInput, match=expected) as caught:
        load(Model(wrong, tmp_path))
    assert "\n" not in str(caught.value)


def test_code_that_came_with_a_model_is_not_run(tmp_path: Path) -> None:
    each = tiny.texts(tmp_path, "BertForSequenceClassification", LABELS)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.M"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InvalidInput, match="can't be loaded"):
        load(each)
