"""Real embedding models: what they compute, what they are called, and how they fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from modelyard.configuration import ConfigurationManager
from modelyard.embeddings import EmbeddingManager, EmbeddingModel
from modelyard.errors import InvalidInput
from modelyard.repository import ModelRepository
from modelyard.serving import runtimes

from .builders import WORDS, minilm, save_static


@pytest.fixture
def manager(config: ConfigurationManager, real_repository: ModelRepository) -> Iterator[EmbeddingManager]:
    manager = EmbeddingManager(config, repository=real_repository, check=lambda _: None)
    yield manager
    manager.close()


@pytest.fixture
def model(manager: EmbeddingManager, real_repository: ModelRepository, static: Path) -> EmbeddingModel:
    real_repository.register_model("static", "v1.0.0", static, {})
    return manager.model("static")


def test_minilm_gives_the_vectors_that_sentence_transformers_gives(
    manager: EmbeddingManager, real_repository: ModelRepository
) -> None:
    registered = real_repository.register_model("all-MiniLM-L6-v2", "v1.0.0", minilm(), {})
    texts = ["The parcel is late.", "Where is my order?", "Bake it for an hour."]

    model = manager.get_embedding_model("semantic-search")
    vectors = model.encode(texts)

    reference = SentenceTransformer(str(minilm()), device="cpu", local_files_only=True)
    assert np.allclose(vectors, reference.encode(texts), atol=1e-5)
    assert (vectors.shape, str(vectors.dtype), model.dimension) == ((3, 384), "float32", 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert model.stamp == str(registered.ref)
    assert repr(model) == f"EmbeddingModel('{registered.ref}')"


def test_a_version_in_int8_gives_the_vectors_that_the_model_server_gives(
    manager: EmbeddingManager, real_repository: ModelRepository
) -> None:
    for version, metadata in (("v1.0.0", {}), ("v1.1.0", {"serving": {"precision": "int8"}})):
        registered = real_repository.register_model("all-MiniLM-L6-v2", version, minilm(), metadata)
    exact, rounded = manager.model("all-MiniLM-L6-v2:v1.0.0"), manager.model("all-MiniLM-L6-v2:v1.1.0")
    texts = ["The parcel is late.", "Where is my order?"]

    vectors = rounded.encode(texts)

    served = runtimes.load(registered, minilm()).infer({"text": np.array(texts, dtype=object)})["embedding"]
    assert np.allclose(vectors, served, atol=1e-5)
    assert not np.allclose(vectors, exact.encode(texts), atol=1e-4)
    assert (rounded.encode("a cat").shape, rounded.dimension) == ((384,), 384)
    with pytest.raises(InvalidInput, match="there is no prompt"):
        rounded.encode(texts, prompt="query: ")


def test_shapes(model: EmbeddingModel) -> None:
    one, several, none = model.encode("a cat"), model.encode(("a cat", "a dog")), model.encode([])

    assert (one.shape, several.shape, none.shape) == ((8,), (2, 8), (0, 8))
    assert one.dtype == several.dtype == none.dtype == np.float32
    assert np.array_equal(one, several[0])
    assert model.encode(np.array(["a cat"])).shape == (1, 8)  # type: ignore[arg-type]


def test_the_keywords_of_sentence_transformers(model: EmbeddingModel) -> None:
    normal = model.encode(["a cat", "a dog"], normalize_embeddings=True, batch_size=1, show_progress_bar=False)
    assert np.allclose(np.linalg.norm(normal, axis=1), 1)
    assert model.encode("a cat", truncate_dim=3).shape == (3,)
    assert model.encode([], truncate_dim=3).shape == (0, 3)
    assert isinstance(model.encode(["a cat"], convert_to_tensor=True), torch.Tensor)
    assert isinstance(model.encode(["a cat"], convert_to_numpy=False), list)
    assert model.encode(["a cat", "a dog"], precision="binary").dtype == np.int8
    assert np.array_equal(model.encode("cat", prompt="a "), model.encode("a cat"))


def test_threads_share_a_model(model: EmbeddingModel) -> None:
    texts = [f"{first} {second}" for first in WORDS for second in WORDS]
    expected = model.encode(texts)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(model.encode, texts))
    assert np.allclose(found, expected)


@pytest.mark.parametrize(
    ("texts", "options", "reason"),
    [
        ([1], {}, "1 is no text to embed; give a text or a list of texts"),
        (["a", None], {}, "None is no text to embed"),
        ("a", {"batch_size": 0}, "static:v1.0.0 can't embed this: batch_size must be a positive integer"),
        ("a", {"prompt_name": "nobody"}, "static:v1.0.0 can't embed this: Prompt name 'nobody' not found"),
        ("a", {"precision": "int3"}, "static:v1.0.0 can't embed this: Precision 'int3' is not supported"),
    ],
)
def test_what_cannot_be_embedded(model: EmbeddingModel, texts: Any, options: Any, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.encode(texts, **options)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_a_keyword_that_does_not_exist(model: EmbeddingModel) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'normalise'"):
        model.encode("a", normalise=True)  # type: ignore[call-arg]


def test_a_model_that_cannot_be_loaded_is_named(
    manager: EmbeddingManager, real_repository: ModelRepository, static: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(static, tmp_path / "broken")
    modules = json.loads((broken / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.NoSuchModule"
    (broken / "modules.json").write_text(json.dumps(modules))
    real_repository.register_model("broken", "v1.0.0", broken, {})

    with pytest.raises(InvalidInput, match=r"broken:v1\.0\.0 can't be loaded: ") as caught:
        manager.model("broken")
    assert "\n" not in str(caught.value)


def test_models_of_several_dimensions_live_side_by_side(
    manager: EmbeddingManager, real_repository: ModelRepository, model: EmbeddingModel, tmp_path: Path
) -> None:
    real_repository.register_model("other", "v1.0.0", save_static(tmp_path / "other", dimension=5, seed=1), {})
    other = manager.model("other:latest")
    assert (model.dimension, other.dimension) == (8, 5)
    assert sorted(manager.models) == ["other:v1.0.0", "static:v1.0.0"]
