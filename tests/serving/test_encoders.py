"""Text encoders without padding, in ONNX and in fewer bits, against what the library itself computes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.serving import models, runtimes
from modelyard.serving.runtimes import RowRuntime

from .support import Model, model

TEXTS = ["A cat sits on the mat.", "B", "  Grüße an\nALLE ", "word " * 400, "two words", "C d", "tokens " * 40]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def library(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)


def embed(each: Model) -> Any:
    return models.load(models.Served(each.version, each.folder)).infer({"text": np.array(TEXTS, dtype=object)})


def declaring(each: Model, **serving: str) -> Model:
    return replace(each, version=replace(each.version, metadata={"serving": serving}))


def cosines(found: Any, expected: Any) -> Any:
    return (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


def tiny(folder: Path, architecture: str, pooling: str, minilm: Model, prompt: str | None = None) -> Model:
    """A small model of another architecture, with random weights and MiniLM's tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(transformers, f"{architecture}Config")(vocab_size=30522, pad_token_id=0, **sizes)
    getattr(transformers, f"{architecture}Model")(config).save_pretrained(str(folder))
    for name in TOKENIZER:
        shutil.copy(minilm.folder / name, folder / name)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    if prompt:
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"prompts": {"p": prompt}, "default_prompt_name": "p"})
        )
    (folder / "1_Pooling").mkdir()
    config = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return model(folder, "tiny", "sentence-transformers")


@pytest.mark.parametrize(
    ("architecture", "pooling", "packed"),
    [
        ("Bert", "cls_token", True),
        ("Roberta", "mean_tokens", True),  # positions begin behind the padding's
        ("Bert", "max_tokens", True),
        ("Bert", "lasttoken", True),
        ("MPNet", "mean_tokens", False),  # its attention has a bias of its own
    ],
)
def test_other_architectures_give_the_librarys_vectors(
    tmp_path: Path, minilm: Model, architecture: str, pooling: str, packed: bool
) -> None:
    each = tiny(tmp_path, architecture, pooling, minilm)
    assert isinstance(runtimes.load(each.version, each.folder), RowRuntime) is packed
    np.testing.assert_allclose(embed(each)["embedding"], library(tmp_path), atol=1e-5)


def test_the_default_prompt_is_set_before_each_text(tmp_path: Path, minilm: Model) -> None:
    each = tiny(tmp_path, "Bert", "mean_tokens", minilm, prompt="query: ")
    assert isinstance(runtimes.load(each.version, each.folder), RowRuntime)
    np.testing.assert_allclose(embed(each)["embedding"], library(tmp_path), atol=1e-5)


def test_an_encoder_in_onnx_gives_the_same_vectors(minilm: Model) -> None:
    found = embed(declaring(minilm, backend="onnx"))["embedding"]
    np.testing.assert_allclose(found, library(minilm.folder), atol=1e-5)


@pytest.mark.parametrize(("precision", "least"), [("int8", 0.97), ("bf16", 0.99)])
def test_fewer_bits_give_nearly_the_same_vectors(minilm: Model, precision: str, least: float) -> None:
    answer = embed(declaring(minilm, precision=precision))
    assert answer["embedding"].dtype == np.float32
    found = cosines(answer["embedding"], library(minilm.folder))
    assert least < found.min() < 0.99999
    np.testing.assert_allclose(np.linalg.norm(answer["embedding"], axis=1), 1, atol=1e-5)


def test_an_onnx_file_of_another_model_is_refused(tmp_path: Path, minilm: Model) -> None:
    import torch
    from transformers import AutoModel

    from modelyard.serving.runtimes.encoder_graph import export

    each = tiny(tmp_path, "Bert", "mean_tokens", minilm)
    encoder = AutoModel.from_pretrained(str(tmp_path))
    torch.nn.init.normal_(encoder.embeddings.word_embeddings.weight)
    (tmp_path / "onnx").mkdir()
    export(encoder.eval(), tmp_path / "onnx" / "model.onnx")
    with pytest.raises(InvalidInput, match="are not those of its weights"):
        runtimes.load(declaring(each, backend="onnx").version, tmp_path)


@pytest.mark.parametrize(
    ("serving", "expected"),
    [
        ({"precision": "int4"}, "declares serving.precision as 'int4'; register a version with"),
        ({"backend": "tensorrt"}, "one of torch, onnx"),
        ({"precision": "bf16", "backend": "onnx"}, "can't be served as bf16 by onnx"),
        ({"precision": "int8", "backend": "torch"}, "can't be served as int8 by torch"),
    ],
)
def test_what_cannot_be_served_is_named(minilm: Model, serving: dict[str, str], expected: str) -> None:
    each = declaring(minilm, **serving)
    with pytest.raises(InvalidInput, match=expected):
        runtimes.load(each.version, each.folder)
