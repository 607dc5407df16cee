"""Sentence-transformers models: texts to vectors, from local files only.

Computes what `SentenceTransformer.encode` computes with its default prompt, and counts the tokens on the way.
"""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import ModelVersion, Signature, Tensor
from modelyard.serving.cores import usable_cores
from modelyard.serving.protocol import Arrays

# Read by the libraries when they are imported: a server prints no progress and asks no hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

try:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging
except ImportError as error:
    raise MissingExtra("sentence-transformers", "serve") from error


class SentenceTransformersRuntime:
    platform = "pytorch_sentence-transformers"

    def __init__(self, model: Any) -> None:
        self._model = model
        self._prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        dimension = model.get_embedding_dimension()
        self.signature = Signature(
            (Tensor("text", "BYTES", (-1,)),),
            (Tensor("embedding", "FP32", (-1, -1 if dimension is None else dimension)),),
        )

    def infer(self, inputs: Arrays) -> Arrays:
        texts = list(inputs["text"])
        with torch.inference_mode():
            features = self._model.preprocess(texts, prompt=self._prompt)
            tokens = features["attention_mask"].sum(dim=1)
            embedding = self._model(features)["sentence_embedding"]
        dimension = self._model.truncate_dim
        return {
            "embedding": embedding[:, :dimension].float().numpy(),
            "tokens": tokens.numpy().astype(np.int64),
        }


def load(version: ModelVersion, folder: Path) -> SentenceTransformersRuntime:
    torch.set_num_threads(usable_cores())
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    except UnpicklingError as error:  # torch reads pickles of weights alone, and advises to let it read anything
        raise InvalidInput(
            f"{version.name}:{version.version} can't be loaded as a sentence-transformers model: "
            "its pickle holds more than weights",
            remedy="convert it to safetensors",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InvalidInput(
            f"{version.name}:{version.version} can't be loaded as a sentence-transformers model: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    return SentenceTransformersRuntime(model.eval())
